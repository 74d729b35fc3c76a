//! The first step of a connection: TLS, where the nodes have it.

use std::io;

use tokio::net::TcpStream;

use crate::handshake::DialError;
use crate::stream::{Proven, Socket, Stream};
use crate::tls::{self, Name, Tls};

/// The first byte of TLS. Neither a frame of ours nor HTTP begins so.
pub(crate) const TLS_RECORD: u8 = 0x16;

/// The listener's side. Who does not begin TLS gets a plain connection, for the handshake to tell him what is wrong.
///
/// # Errors
/// What went wrong, and the socket where TLS has failed: an alert is on its way on it.
pub(crate) async fn accept(tls: Option<&Tls>, stream: TcpStream) -> Result<Stream, (io::Error, Option<Socket>)> {
    let plain = |stream| Ok(Stream::Plain(Socket::Here(stream)));
    let Some(tls) = tls else { return plain(stream) };
    let mut first = [0];
    let peeked = stream.peek(&mut first).await.map_err(|error| (error, None))?;
    if peeked > 0 && first != [TLS_RECORD] {
        return plain(stream);
    }
    match tls.acceptor().accept(Socket::Here(stream)).into_fallible().await {
        Ok(stream) => Ok(Stream::Tls(Box::new(stream.into()))),
        Err((error, socket)) => Err((error, Some(socket))),
    }
}

/// The dialer's side: whoever listens must be that node, or, where none is named, some node of that cluster.
///
/// # Errors
/// Why not.
pub(crate) async fn dial(
    tls: Option<&Tls>,
    stream: TcpStream,
    cluster: &str,
    node: Option<&str>,
) -> Result<Stream, DialError> {
    let Some(tls) = tls else { return Ok(Stream::Plain(Socket::Here(stream))) };
    let stream = tls.connector().connect(tls::no_host(), Socket::Here(stream)).await?;
    let stream = Stream::Tls(Box::new(stream.into()));
    let expected = |name: &Name| name.cluster == cluster && node.is_none_or(|node| name.node == node);
    match stream.proven() {
        Proven::Name(Some(name)) if expected(&name) => Ok(stream),
        Proven::Name(name) => Err(DialError::OtherCertificate(tls::shown(name.as_ref()))),
        Proven::Nothing => unreachable!("it is TLS"),
    }
}
