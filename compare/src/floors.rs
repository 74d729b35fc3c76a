//! What a system on this machine cannot be faster than.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use actix_web::{App, HttpResponse, HttpServer, web};
use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// What is appended before a sync: about what a transfer writes into a log.
const APPEND: [u8; 512] = [7; 512];

/// What goes there and back: less than a segment.
const MESSAGE: usize = 128;

/// What is sent to a reader: as long as an account.
const ENTRY: &str = r#"{"key":"inventory/goods/w123","value":1000000,"version":123456}"#;

/// An HTTP server that sends back what it gets, and to who reads always the same.
pub fn echo(port: u16) -> anyhow::Result<()> {
    let answer = |body: web::Bytes| async move { HttpResponse::Ok().content_type("application/json").body(body) };
    let read = || async { HttpResponse::Ok().content_type("application/json").body(ENTRY) };
    let app = move || {
        let calls = App::new().route("/v1/functions/{name}", web::post().to(answer));
        calls.route("/v1/state/{key:.*}", web::get().to(read))
    };
    let server = HttpServer::new(app).bind(("127.0.0.1", port)).with_context(|| format!("port {port}"))?;
    actix_web::rt::System::new().block_on(server.run()).context("the echo")
}

/// Append and sync alone and with two more processes that do the same, and a round trip over TCP.
pub fn measure(directory: &Path, seconds: f64) -> anyhow::Result<Value> {
    let file = |number: u32| directory.join(format!("floor-{number}"));
    let alone = syncs(&file(0), seconds)?;
    let me = std::env::current_exe().context("this program")?;
    let other = |number: u32| {
        let mut command = Command::new(&me);
        command.arg("sync").arg("--file").arg(file(number)).args(["--seconds", &seconds.to_string()]);
        command.stdout(Stdio::piped()).spawn().context("another process that syncs")
    };
    let others = [other(1)?, other(2)?];
    let mut of_three = vec![syncs(&file(0), seconds)?];
    for process in others {
        let done = process.wait_with_output().context("another process that syncs")?;
        if !done.status.success() {
            bail!("another process that syncs failed ({})", done.status);
        }
        of_three.push(serde_json::from_slice(&done.stdout).context("another process that syncs")?);
    }
    Ok(json!({ "sync_alone": alone, "sync_of_three": of_three, "tcp_round_trip": round_trip(seconds)? }))
}

/// Appends and syncs for some time.
pub fn syncs(path: &Path, seconds: f64) -> anyhow::Result<Value> {
    let mut file = File::create(path).with_context(|| path.display().to_string())?;
    let measured = repeat(seconds, || {
        file.write_all(&APPEND)?;
        file.sync_data()
    });
    std::fs::remove_file(path).with_context(|| path.display().to_string())?;
    measured
}

fn round_trip(seconds: f64) -> anyhow::Result<Value> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    // It ends with the connection.
    std::thread::spawn(move || -> std::io::Result<()> {
        let mut stream = listener.accept()?.0;
        stream.set_nodelay(true)?;
        let mut message = [0; MESSAGE];
        loop {
            stream.read_exact(&mut message)?;
            stream.write_all(&message)?;
        }
    });
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut message = [7; MESSAGE];
    repeat(seconds, || {
        stream.write_all(&message)?;
        stream.read_exact(&mut message)
    })
}

fn repeat(seconds: f64, mut act: impl FnMut() -> std::io::Result<()>) -> anyhow::Result<Value> {
    let mut micros = Histogram::<u64>::new(3).context("a histogram")?;
    let begun = Instant::now();
    let length = Duration::from_secs_f64(seconds);
    let mut last = Duration::ZERO;
    while last < length {
        act()?;
        let now = begun.elapsed();
        micros.record(u64::try_from((now - last).as_nanos()).unwrap_or(u64::MAX)).context("a histogram")?;
        last = now;
    }
    let at = |quantile| micros.value_at_quantile(quantile) as f64 / 1e3;
    Ok(json!({ "per_second": micros.len() as f64 / last.as_secs_f64(), "p50_us": at(0.5), "p99_us": at(0.99) }))
}

/// What percentage of a processor each of these processes takes, with those below it.
pub fn idle(seconds: f64, pids: &[u32]) -> Value {
    let before = load::cpu_times(pids);
    let begun = Instant::now();
    std::thread::sleep(Duration::from_secs_f64(seconds));
    let elapsed = begun.elapsed();
    let percent = |pid: &u32, now: &Duration| {
        let spent = now.saturating_sub(before.get(pid).copied().unwrap_or_default());
        (pid.to_string(), json!(100.0 * spent.as_secs_f64() / elapsed.as_secs_f64()))
    };
    load::cpu_times(pids).iter().map(|(pid, now)| percent(pid, now)).collect()
}

/// Sends a question and reads all that comes.
pub async fn ask(host: &str, question: &str) -> std::io::Result<String> {
    let asking = async {
        let mut stream = tokio::net::TcpStream::connect(host).await?;
        stream.write_all(question.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    tokio::time::timeout(Duration::from_secs(3), asking).await?
}
