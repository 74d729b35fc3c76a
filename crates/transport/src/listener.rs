//! Incoming connections until they have shown who they are; then they belong to a reader.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use protocol::NodeId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

use crate::disk::Disk;
use crate::handshake::{self, Answer, HANDSHAKE_DEADLINE, Hello, ReadError, Refusal};
use crate::join::{ADMISSION_BYTES_MAX, ADMISSION_DEADLINE, Again, Join, NotAdmitted};
use crate::processes::Connection;
use crate::stream::Stream;
use crate::tls::Failed;
use crate::transport::{PeerEvent, Shared};
use crate::{opening, reader, socket};

/// The wait after a failed accept, which is nearly always a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What an HTTP client on the wrong port reads.
const HTTP_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\
    Content-Length: 97\r\n\r\n\
    This port is for Quorate nodes among themselves. Send HTTP requests to the address `listen.http`.";

/// Accepts until the transport is stopped.
pub(crate) async fn run(shared: Arc<Shared>, listener: TcpListener) {
    tokio::select! {
        () = shared.stopped() => {}
        error = accept(&shared, listener) => tracing::error!("cannot listen for peers, restart this node: {error}"),
    }
}

async fn accept(shared: &Arc<Shared>, listener: TcpListener) -> io::Error {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return error,
    };
    let handshakes = Arc::new(Semaphore::new(shared.limits.handshakes));
    loop {
        match listener.accept().await {
            Ok((stream, from)) => match handshakes.clone().try_acquire_owned() {
                Ok(permit) => {
                    actix::spawn(receive(shared.clone(), stream, from, permit));
                }
                Err(_) => refused(shared, &from.ip().to_string(), &Refusal::TooMany),
            },
            Err(error) => {
                if let Some(repeated) = shared.report.may_warn("listener", "accept") {
                    tracing::warn!(repeated, "cannot accept connections: {error}; trying again");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection until it is refused or has a reader.
async fn receive(shared: Arc<Shared>, stream: TcpStream, from: SocketAddr, permit: OwnedSemaphorePermit) {
    tokio::select! {
        () = shared.stopped() => {}
        () = shake(&shared, stream, from) => {}
    }
    drop(permit);
}

/// With TLS where this node has it; `None` where that has failed.
async fn open(shared: &Shared, stream: TcpStream, from: SocketAddr) -> Option<Stream> {
    match timeout(HANDSHAKE_DEADLINE, opening::accept(shared.tls.as_ref(), stream)).await {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err((error, socket))) => {
            match Failed::in_io(&error) {
                Some(failed) => refused(shared, &from.ip().to_string(), &Refusal::Tls(failed)),
                None => tracing::debug!(%from, "a connection ended before its handshake: {error}"),
            }
            if let Some(mut socket) = socket {
                // Whether the other side reads the alert is its own affair.
                let _ = timeout(HANDSHAKE_DEADLINE, finish(&mut socket)).await;
            }
        }
        Err(_) => refused(shared, &from.ip().to_string(), &Refusal::Silent),
    }
    None
}

async fn shake(shared: &Arc<Shared>, stream: TcpStream, from: SocketAddr) {
    let Some(mut stream) = open(shared, stream, from).await else { return };
    let hello = timeout(HANDSHAKE_DEADLINE, handshake::read::<Hello, _>(&mut stream)).await;
    let (hello, peer) = match hello {
        Ok(Ok(hello)) => {
            let peer = format!("{} ({})", hello.node, handshake::shown(&hello.node_name).escape_debug());
            (Ok(hello), peer)
        }
        Ok(Err(ReadError::Io(error))) => {
            // A probe of the port, or a node that stops just now.
            tracing::debug!(%from, "a connection ended before its handshake: {error}");
            return;
        }
        Ok(Err(garbage @ ReadError::Garbage { .. })) => {
            let refusal = match (garbage.is_http(), garbage.is_tls()) {
                (true, _) => Refusal::Http,
                (_, true) => Refusal::SpeaksTls,
                (false, false) => Refusal::NotAPeer,
            };
            (Err(refusal), from.ip().to_string())
        }
        Err(_) => (Err(Refusal::Silent), from.ip().to_string()),
    };
    let hello = hello.and_then(|hello| {
        shared.identity.judge_proof(&stream.proven(), &hello.node_name, shared.tls.is_some())?;
        Ok(hello)
    });
    if let Ok(hello) = &hello
        && let Some(join) = &hello.join
    {
        return take_in(shared, stream, hello, join).await;
    }
    let comes_with = hello.as_ref().ok().map(|hello| (NodeId(hello.node), hello.disk.clone()));
    let judged = hello.and_then(|hello| {
        let (node, lane) = shared.identity.judge(&hello, |node, name| shared.known(node, name))?;
        if let Some(theirs) = shared.identity.other_window(&hello) {
            shared.report.other_window(&peer, theirs, shared.identity.window);
        }
        if shared.identity.other_auth(&hello) {
            shared.report.other_auth(&peer, shared.identity.auth);
        }
        Ok((node, lane, hello.disk))
    });
    let judged = match judged {
        Ok((node, lane, disk)) => judge_disk(shared, node, disk).await.map(|taken| (node, lane, taken)),
        Err(refusal @ Refusal::NotAnyMore { .. }) => Err(of_the_disk(shared, comes_with).await.unwrap_or(refusal)),
        Err(refusal) => Err(refusal),
    };
    let (node, lane, Taken { noted, connection }) = match judged {
        Ok(judged) => judged,
        Err(refusal) => return refuse(shared, &mut stream, peer, &refusal).await,
    };
    let welcomed = async {
        socket::prepare_accepted(stream.socket().here()?)?;
        handshake::write(&mut stream, &shared.identity.welcome(noted)).await?;
        stream.leave()
    };
    match timeout(HANDSHAKE_DEADLINE, welcomed).await {
        Ok(Ok(stream)) => {
            let replaced = shared.replace_inbound(node, lane);
            shared.runtime(lane).spawn(reader::run(shared.clone(), stream, node, lane, replaced, connection));
        }
        Ok(Err(error)) => tracing::debug!(peer, "a connection ended during its handshake: {error}"),
        Err(_) => refused(shared, &peer, &Refusal::Silent),
    }
}

/// Answers a newcomer, who is then to start as a node.
async fn take_in(shared: &Shared, mut stream: Stream, hello: &Hello, join: &Join) {
    let name = handshake::shown(&hello.node_name);
    let not_admitted = |why: &str| {
        let why = NotAdmitted { why: why.to_owned(), again: Again::Same };
        Refusal::NotAdmitted(name.clone(), why)
    };
    let admitted = async {
        let newcomer = shared.identity.judge_newcomer(hello, join)?;
        let admit = shared.admit.get().ok_or_else(|| not_admitted("this node starts"))?;
        let _one = shared.newcomers.try_acquire().map_err(|_| not_admitted("others are joining"))?;
        let admitted = timeout(ADMISSION_DEADLINE, admit(newcomer)).await;
        let admitted = admitted.map_err(|_| not_admitted("the cluster has not decided in time"))?;
        admitted.map_err(|why| Refusal::NotAdmitted(name.clone(), why))
    };
    let told = match admitted.await {
        Ok(admission) => {
            let answer = shared.identity.admit(admission);
            timeout(HANDSHAKE_DEADLINE, handshake::write_within(&mut stream, &answer, ADMISSION_BYTES_MAX)).await
        }
        Err(refusal) => {
            refused(shared, &name.escape_debug().to_string(), &refusal);
            timeout(HANDSHAKE_DEADLINE, close_with(&mut stream, &refusal.answer_to_newcomer())).await
        }
    };
    // It asks again.
    if !matches!(told, Ok(Ok(()))) {
        tracing::debug!(name, "a newcomer has gone before its answer");
    }
}

/// What is known of a dialer that is let in. Nothing, when it does not say its disk.
#[derive(Default)]
struct Taken {
    /// Its disk is durably noted.
    noted: bool,
    /// Keeps other processes of its node out.
    connection: Option<Connection>,
}

/// Whether the disk of a dialer may be taken, and is noted now: that takes a sync. Not while another process of its node
/// is connected: the note of a copy would shut that one out.
async fn judge_disk(shared: &Shared, node: NodeId, disk: Option<Disk>) -> Result<Taken, Refusal> {
    let Some(disk) = disk else { return Ok(Taken::default()) };
    let connection = shared.processes.connect(node, disk.run, Instant::now());
    let connection = Some(connection.ok_or(Refusal::ConnectedAlready(node))?);
    let judge = shared.disks.judge.clone();
    // It fails only when the judge panics.
    let judged = tokio::task::spawn_blocking(move || judge(node, disk)).await;
    let noted = judged.unwrap_or(Err(Refusal::NotNoted(node)))?;
    Ok(Taken { noted, connection })
}

/// A member that looks for this node under an id of before has missed a change, or has lost its disk and begins again with
/// what its list says: then that is what it must hear of.
async fn of_the_disk(shared: &Shared, comes_with: Option<(NodeId, Option<Disk>)>) -> Option<Refusal> {
    let (node, disk) = comes_with?;
    judge_disk(shared, node, disk).await.err().filter(Refusal::is_for_its_disk)
}

/// Tells both sides. This node may end by it: its answer is on its way by then.
async fn refuse(shared: &Shared, stream: &mut Stream, peer: String, refusal: &Refusal) {
    refused(shared, &peer, refusal);
    let tell_node = async {
        if let Refusal::OtherCluster { claims: true, .. } = refusal {
            (shared.on_event)(PeerEvent::Claimed { by: peer });
        }
    };
    // Whether the other side reads its answer is its own affair.
    let _ = tokio::join!(timeout(HANDSHAKE_DEADLINE, answer(stream, refusal)), tell_node);
}

fn refused(shared: &Shared, peer: &str, refusal: &Refusal) {
    shared.report.refused(peer, refusal.reason(), refusal.passes(), &refusal.to_string());
}

/// Says why, and lets the other side read it: closing while its bytes are unread would reset
/// the connection and discard the answer.
async fn answer(stream: &mut Stream, refusal: &Refusal) -> io::Result<()> {
    if *refusal == Refusal::Http {
        stream.write_all(HTTP_ANSWER).await?;
    } else {
        return close_with(stream, &refusal.answer()).await;
    }
    finish(stream).await
}

async fn close_with(stream: &mut Stream, answer: &Answer) -> io::Result<()> {
    handshake::write(stream, answer).await?;
    finish(stream).await
}

async fn finish<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    stream.shutdown().await?;
    while stream.read(&mut [0; 1024]).await? > 0 {}
    Ok(())
}
