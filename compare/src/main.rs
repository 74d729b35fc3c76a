//! Loads Quorate and other systems with the same transfers, and measures the floors under them.
//!
//! `cargo xtask compare` starts the systems and this program, one run at a time. Every system is loaded
//! by the loop of `crates/load`, which draws the same accounts for the same seed; what differs is only
//! how a client says it:
//!
//! | System | A transfer |
//! |---|---|
//! | `quorate` | one REST call of `inventory.transfer` |
//! | `etcd` | one request that reads both, then a compare-and-swap transaction over gRPC; after a conflict again, with what the failed transaction read |
//! | `zookeeper` | two reads at once, then a multi with both versions; after a conflict again |
//! | `postgresql` | one call of a stored procedure that locks both rows in one order |
//! | `echo` | the REST call of `quorate`, to a server that only sends the body back: a floor |
//!
//! With `--read` a call is one read of one account instead: of `quorate` one REST request, of `etcd` one `Range`, both of
//! them linearizable; of `zookeeper` a `sync` and a read behind it, of `postgresql` a `SELECT` on the primary, the best that
//! they have: one that is leader or primary no more may answer them too.
//!
//! One connection for each client (of etcd: at most [`etcd::CONNECTIONS`]), spread over all servers that
//! take calls. The result is one JSON object, with the names of `quorate bench --output json`.

use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use load::{Law, Plan, Rest, System, Template};

mod etcd;
mod floors;
mod postgresql;
mod reads;
mod zookeeper;

/// The stock of an account at first: more than any run moves out of one.
const STOCK: i64 = load::STOCK as i64;

/// Conflicts after which a transfer is given up.
const CONFLICTS_MAX: u64 = 1_000;

/// What `load` waits after a failure at first, too.
const FAILED_PAUSE: Duration = Duration::from_millis(5);

/// Loads systems and measures floors; started by `cargo xtask compare`.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    job: Job,
}

#[derive(Subcommand)]
enum Job {
    /// Make accounts
    Stock {
        #[command(flatten)]
        target: Target,
        /// The first account to be made
        #[arg(long, default_value_t = 0)]
        first: u64,
        /// The number of accounts there are then
        #[arg(long)]
        accounts: u64,
    },
    /// Transfer between accounts, and print what was seen
    Load(Load),
    /// Serve an HTTP server that sends back what it gets
    Echo {
        #[arg(long)]
        port: u16,
    },
    /// Measure what a system on this machine cannot be faster than
    Floors {
        /// Where files are written and synced
        #[arg(long)]
        directory: std::path::PathBuf,
        #[arg(long)]
        seconds: f64,
    },
    /// Watch processes, and print what percentage of a processor each took, with those below it
    Idle {
        #[arg(long)]
        seconds: f64,
        #[arg(long, value_delimiter = ',')]
        pids: Vec<u32>,
    },
    /// Append and sync, and print how long one took; one of the three of `floors`
    #[command(hide = true)]
    Sync {
        #[arg(long)]
        file: std::path::PathBuf,
        #[arg(long)]
        seconds: f64,
    },
}

#[derive(clap::Args)]
struct Target {
    #[arg(long, value_enum)]
    system: Kind,
    /// Where its servers take calls, host:port
    #[arg(long, value_delimiter = ',', required = true)]
    at: Vec<String>,
}

#[derive(clap::Args)]
struct Load {
    #[command(flatten)]
    target: Target,
    #[arg(long)]
    accounts: u64,
    /// Read accounts instead of transferring
    #[arg(long)]
    read: bool,
    /// Send calls to Quorate again that came to nothing; clients of etcd and ZooKeeper make their next one at another server
    #[arg(long)]
    retry: bool,
    /// Draw accounts by Zipf's law with this exponent instead of evenly
    #[arg(long)]
    zipf: Option<f64>,
    #[arg(long)]
    clients: u32,
    /// Calls a second, in an open loop
    #[arg(long)]
    rate: Option<f64>,
    #[arg(long)]
    seconds: f64,
    #[arg(long)]
    warmup: f64,
    #[arg(long)]
    seed: u64,
    /// Processes of the servers; those below them count too
    #[arg(long, value_delimiter = ',')]
    pids: Vec<u32>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Quorate,
    Etcd,
    Zookeeper,
    Postgresql,
    Echo,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().job {
        Job::Stock { target, first, accounts } => load::block_on(stock(&target, first..accounts)),
        Job::Load(load) => {
            let report = load::block_on(run(&load))?;
            println!("{}", report.to_json());
            Ok(())
        }
        Job::Echo { port } => floors::echo(port),
        Job::Floors { directory, seconds } => {
            println!("{}", floors::measure(&directory, seconds)?);
            Ok(())
        }
        Job::Idle { seconds, pids } => {
            println!("{}", floors::idle(seconds, &pids));
            Ok(())
        }
        Job::Sync { file, seconds } => {
            println!("{}", floors::syncs(&file, seconds)?);
            Ok(())
        }
    }
}

async fn stock(target: &Target, numbers: std::ops::Range<u64>) -> anyhow::Result<()> {
    match target.system {
        Kind::Quorate => load::stock(&load::Target::plain(target.at[0].clone()), numbers, &run_key()?).await,
        Kind::Etcd => etcd::stock(&target.at[0], numbers).await,
        Kind::Zookeeper => zookeeper::stock(&target.at[0], numbers).await,
        Kind::Postgresql => postgresql::stock(&target.at[0], numbers).await,
        Kind::Echo => Ok(()),
    }
}

async fn run(load: &Load) -> anyhow::Result<load::Report> {
    let target = &load.target;
    let (at, accounts, reads) = (target.at.clone(), load.accounts, load.read);
    match target.system {
        Kind::Quorate | Kind::Echo if reads => measure(load, &reads::Rest::new(at, accounts)).await,
        Kind::Quorate | Kind::Echo => measure(load, &Rc::new(rest(at, accounts, load.retry)?)).await,
        Kind::Etcd => measure(load, &etcd::Etcd::connect(at, accounts, load.clients, reads).await?).await,
        Kind::Zookeeper => measure(load, &zookeeper::ZooKeeper { at, accounts, reads, moves: load.retry }).await,
        Kind::Postgresql => {
            measure(load, &postgresql::PostgreSql::connect(at[0].clone(), accounts, reads).await?).await
        }
    }
}

/// As `quorate bench` calls it.
fn rest(hosts: Vec<String>, accounts: u64, retry: bool) -> anyhow::Result<Rest> {
    let last = accounts - 1;
    let body = format!(r#"{{"from": "w$int(0,{last})", "to": "w$distinct(0,{last})", "amount": 1}}"#);
    Ok(Rest {
        function: "inventory.transfer".to_owned(),
        batch: 1,
        template: Template::parse(&body).map_err(anyhow::Error::msg)?,
        targets: hosts.into_iter().map(load::Target::plain).collect(),
        retry,
        timeout: Duration::from_secs(30),
        run_key: run_key()?,
    })
}

async fn measure<S: System>(load: &Load, system: &S) -> anyhow::Result<load::Report> {
    let law = match load.zipf {
        Some(exponent) => Law::zipf(exponent, load.accounts).map_err(anyhow::Error::msg)?,
        None => Law::Even,
    };
    let plan = Plan {
        what: if load.read { "read" } else { "transfer" }.to_owned(),
        clients: load.clients,
        rate: load.rate,
        warmup: Duration::from_secs_f64(load.warmup),
        length: Duration::from_secs_f64(load.seconds),
        calls: None,
        seed: load.seed,
        law: Rc::new(law),
        pids: load.pids.clone(),
        progress: None,
    };
    load::measure(&plan, system).await
}

/// How a call ended. After a failure the next one waits a moment, lest whom nobody answers takes the processors.
async fn done(error: Option<String>, retries: u64) -> load::Done {
    if error.is_some() {
        tokio::time::sleep(FAILED_PAUSE).await;
    }
    load::Done { error, retries, ..load::Done::default() }
}

/// Tells this run from others.
fn run_key() -> anyhow::Result<String> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(format!("compare-{:x}", since.as_micros()))
}
