//! What good clients notice of bad ones: such as keep connections without a word, that take long for the head or the body
//! of a request, that ask for much and take nothing of it, and that send more than is taken.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

use super::durability::round;
use super::overload::{calls_a_second, capacity};
use super::{Arguments, median};
use crate::cluster::{Cluster, finished, pause};

/// What a kind of bad clients does.
struct Kind {
    name: &'static str,
    clients: usize,
    /// What each sends first.
    opening: &'static [u8],
    /// What it sends then, once a second.
    drip: &'static [u8],
    reads: bool,
}

const KINDS: [Kind; 4] = [
    Kind { name: "idle", clients: 2_000, opening: b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n", drip: b"", reads: true },
    Kind {
        name: "slow_head",
        clients: 1_000,
        opening: b"POST /v1/functions/kv.put HTTP/1.1\r\nHost: a\r\nX-Slow: ",
        drip: b"x",
        reads: true,
    },
    Kind {
        name: "slow_body",
        clients: 1_000,
        opening: b"POST /v1/functions/kv.put HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{",
        drip: b" ",
        reads: true,
    },
    Kind {
        name: "slow_reader",
        clients: 1_000,
        opening: b"GET /v1/state?prefix=large/&limit=1000&consistency=local HTTP/1.1\r\nHost: a\r\n\r\n",
        // Who is cut off hears of it when it speaks.
        drip: b"\r\n",
        reads: false,
    },
];
/// Clients that send a body of 1 GiB in chunks.
const SENDERS: usize = 8;
const BODY: &[u8] = b"POST /v1/functions/kv.put HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
const CHUNK: usize = 64 << 10;
const CHUNKS: usize = (1 << 30) / CHUNK;
/// What the answer of a slow reader is made of: more than the buffers of a connection hold.
const LARGE: [&str; 9] = [
    "kv.put",
    "--arguments",
    r#"{"key": "large/$int(0,127)", "value": "$text(65536)"}"#,
    "--clients",
    "4",
    "--calls",
    "600",
    "--warmup",
    "0",
];
const SETUP: [&str; 6] = ["--setup", "inventory:1000", "--seconds", "3", "--clients", "64"];
/// How long they are at it before anything is measured.
const STEADY: Duration = Duration::from_secs(2);
/// Between two bytes of a slow client, and before a sender that was cut off begins again.
const TURN: Duration = Duration::from_secs(1);
/// The parts of that in which all of them take their turns.
const STEPS: u32 = 100;
/// Files that are open beside connections.
const OTHER_FILES: u64 = 128;

/// Bad clients at work, until they are stopped.
struct Bad {
    stop: Arc<AtomicBool>,
    /// How often one was cut off, and began again.
    cut: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

/// p99 of 64 good clients in an open loop of half the capacity, without and with bad ones of each kind.
pub(super) fn clients(arguments: &Arguments, binary: &Path) -> anyhow::Result<Value> {
    allow_files()?;
    let cluster = arguments.cluster(binary)?;
    finished(cluster.bench(&cluster.all(), &SETUP)?)?;
    finished(cluster.bench(&cluster.all(), &LARGE)?)?;
    let could = capacity(&cluster, arguments)?;
    let rate = format!("{:.0}", calls_a_second(&could)? / 2.0);
    let mut measured = json!({"capacity": could, "rate": rate});
    let kinds = KINDS.iter().map(Some).chain([None]);
    for kind in kinds {
        let name = kind.map_or("1_gib_body", |kind| kind.name);
        let mut rounds = Vec::new();
        for round in 1..=arguments.rounds {
            crate::step(&format!("{name}, round {round} of {}", arguments.rounds));
            let without = good(&cluster, arguments, &rate)?;
            let bad = match kind {
                Some(kind) => Bad::slow(kind, &addresses(&cluster)?)?,
                None => Bad::senders(&addresses(&cluster)?),
            };
            pause(STEADY);
            let with = good(&cluster, arguments, &rate);
            let cut = bad.end()?;
            rounds.push((without, with?, cut));
        }
        measured[name] = summary(&rounds)?;
    }
    Ok(measured)
}

/// The calls of good clients; none may fail.
fn good(cluster: &Cluster<'_>, arguments: &Arguments, rate: &str) -> anyhow::Result<Value> {
    let seconds = arguments.seconds.to_string();
    finished(cluster.bench(&cluster.all(), &["--clients", "64", "--rate", rate, "--seconds", &seconds])?)
}

fn summary(rounds: &[(Value, Value, u64)]) -> anyhow::Result<Value> {
    let p99 = |run: &Value| run["latency_ms"]["p99"].as_f64().context("the result of a run names no p99");
    let (mut ratios, mut times) = (Vec::new(), Vec::new());
    for (without, with, _) in rounds {
        ratios.push(p99(with)? / p99(without)?);
        times.push(json!([p99(without)?, p99(with)?]));
    }
    ratios.sort_by(f64::total_cmp);
    let errors: Vec<&Value> = rounds.iter().map(|(_, with, _)| &with["errors"]).collect();
    Ok(json!({
        "p99_ratio_median": round(median(&ratios)),
        "p99_ms_without_and_with": times,
        "errors": errors,
        "unanswered": rounds.iter().map(|(_, with, _)| &with["unanswered"]).collect::<Vec<_>>(),
        "cut_off": rounds.iter().map(|(_, _, cut)| cut).collect::<Vec<_>>(),
    }))
}

fn addresses(cluster: &Cluster<'_>) -> anyhow::Result<Vec<String>> {
    let address = |url: &String| url.strip_prefix("http://").map(str::to_owned).context("an address of REST");
    cluster.nodes.iter().map(|(_, url, _)| address(url)).collect()
}

/// Raises the limit of open files to what the most clients need.
fn allow_files() -> anyhow::Result<()> {
    let most = KINDS.iter().map(|kind| kind.clients).max().unwrap_or_default();
    let needed = OTHER_FILES + u64::try_from(most)?;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    ensure!(hard >= needed, "{needed} files must be open at a time; raise `ulimit -Hn`, which is {hard}");
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(needed), hard)?;
    Ok(())
}

impl Bad {
    /// Clients on connections that do nothing, or little, for as long as they are let; spread over the nodes.
    fn slow(kind: &'static Kind, addresses: &[String]) -> anyhow::Result<Self> {
        let (stop, cut) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let addresses = addresses.to_vec();
        let begun = move |number: usize| begin(&addresses[number % addresses.len()], kind.opening);
        let mut open = (0..kind.clients).map(&begun).collect::<std::io::Result<Vec<_>>>()?;
        let (stopped, again) = (Arc::clone(&stop), Arc::clone(&cut));
        // One after the other, evenly: a burst of all of them would be another matter.
        let pause_between = TURN / STEPS;
        let work = move || {
            let some = open.len().div_ceil(STEPS as usize);
            for first in (0..open.len()).step_by(some).cycle() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                pause(pause_between);
                for number in first..open.len().min(first + some) {
                    if goes_on(kind, &mut open[number]) {
                        continue;
                    }
                    again.fetch_add(1, Ordering::Relaxed);
                    if let Ok(new) = begun(number) {
                        open[number] = new;
                    }
                }
            }
        };
        Ok(Self { stop, cut, threads: vec![spawn(work)] })
    }

    /// Clients that send more than anybody takes, again and again.
    fn senders(addresses: &[String]) -> Self {
        let (stop, cut) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let sender = |number: usize| {
            let (stop, cut) = (Arc::clone(&stop), Arc::clone(&cut));
            let address = addresses[number % addresses.len()].clone();
            spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if sends_all(&address, &stop).is_err() {
                        cut.fetch_add(1, Ordering::Relaxed);
                    }
                    pause(TURN);
                }
            })
        };
        let threads = (0..SENDERS).map(sender).collect();
        Self { stop, cut, threads }
    }

    /// Ends them, and says how often one was cut off.
    fn end(self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a client died")))?;
        Ok(self.cut.load(Ordering::Relaxed))
    }
}

#[expect(clippy::disallowed_methods, reason = "a job of a developer, no core")]
fn spawn(work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    std::thread::spawn(work)
}

fn begin(address: &str, opening: &[u8]) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(opening)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// One turn of a slow client. False when it was cut off.
fn goes_on(kind: &Kind, stream: &mut TcpStream) -> bool {
    let waits = |error: &std::io::Error| error.kind() == ErrorKind::WouldBlock;
    if stream.write_all(kind.drip).is_err_and(|error| !waits(&error)) {
        return false;
    }
    let mut answer = [0; 4096];
    match kind.reads.then(|| stream.read(&mut answer)) {
        None => matches!(stream.take_error(), Ok(None)),
        Some(Ok(bytes)) => bytes > 0,
        Some(Err(error)) => waits(&error),
    }
}

fn sends_all(address: &str, stop: &AtomicBool) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    let chunk = [format!("{CHUNK:x}\r\n").as_bytes(), &[b' '; CHUNK], b"\r\n"].concat();
    stream.write_all(BODY)?;
    for _ in 0..CHUNKS {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        stream.write_all(&chunk)?;
    }
    stream.shutdown(Shutdown::Both)
}
