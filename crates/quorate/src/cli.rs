//! The command line: what there is to say and how it is read.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

mod members;

pub(crate) use members::{Acceptor, Add, Change, Leader, Majority, Nodes, Remove, Replace, SetMajority, Transfer};
mod security;

pub(crate) use security::{
    Audit, Certificates, CheckAudit, Create, CreateToken, ListTokens, RevokeToken, Secret, Token, Trust, shows_token,
};

/// Quorate runs your functions once and replicates what they decided.
#[derive(Debug, Parser)]
#[command(
    name = "quorate",
    version,
    propagate_version = true,
    after_help = "Try it:\n  quorate dev\n  quorate call inventory.inbound '{\"warehouse\": \"A\", \"amount\": 500}'\n  quorate status"
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one node
    Serve(Serve),
    /// Run a whole cluster of real node processes on this machine, to try things out
    Dev(Dev),
    /// Call a function
    Call(Call),
    /// Read the value of a key
    Get(Get),
    /// Write the value of a key
    Put(Put),
    /// Delete a key
    Delete(Delete),
    /// Show the nodes: who leads, what each has issued, applied and made durable
    Status(Status),
    /// Ask one node how it is, by the exit code; for the health check of a container
    Health(Health),
    /// Measure calls a second and latencies
    Bench(Bench),
    /// Take a backup of a running cluster into a file
    Backup(Backup),
    /// Make the data of a new cluster from a backup, or only check the file
    Restore(Restore),
    /// Let a node that has lost its disk join its cluster again, as a new one
    Recover(Recover),
    /// Say which nodes vote
    #[command(subcommand)]
    Acceptor(Acceptor),
    /// Say which sets of nodes decide
    #[command(subcommand)]
    Majority(Majority),
    /// Say which node leads
    #[command(subcommand)]
    Leader(Leader),
    /// Say who may do what
    #[command(subcommand)]
    Token(Token),
    /// Look at what operators did
    #[command(subcommand)]
    Audit(Audit),
    /// Make certificates for TLS
    #[command(subcommand)]
    Certificates(Certificates),
}

impl Command {
    /// How its results, and its failures, are shown.
    pub(crate) fn output(&self) -> Output {
        match self {
            Self::Serve(_) | Self::Dev(_) => Output::Text,
            Self::Call(Call { connection, .. })
            | Self::Get(Get { connection, .. })
            | Self::Put(Put { connection, .. })
            | Self::Delete(Delete { connection, .. })
            | Self::Status(Status { connection }) => connection.output,
            Self::Health(health) => health.output,
            Self::Bench(bench) => bench.output,
            Self::Backup(Backup { connection, .. }) => connection.output,
            Self::Restore(restore) => restore.output,
            Self::Recover(recover) => recover.output,
            Self::Acceptor(acceptor) => acceptor.change().connection.output,
            Self::Majority(Majority::Set(set)) => set.change.connection.output,
            Self::Leader(Leader::Transfer(transfer)) => transfer.change.connection.output,
            Self::Audit(Audit::Check(check)) => check.output,
            Self::Certificates(Certificates::Create(create)) => create.output,
            Self::Token(Token::Create(CreateToken { connection, .. }) | Token::List(ListTokens { connection })) => {
                connection.output
            }
            Self::Token(Token::Revoke(RevokeToken { connection, .. })) => connection.output,
        }
    }
}

/// Where the configuration of a node is, for every command that takes one.
#[derive(Debug, Args)]
pub(crate) struct Given {
    /// The configuration of the node, a TOML file
    #[arg(long, value_name = "FILE", env = "QUORATE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Set one key of it, such as listen.http=127.0.0.1:9000; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) sets: Vec<String>,
}

/// `quorate serve`.
#[derive(Debug, Args)]
#[command(
    after_help = "Configuration, later ones win: defaults, --config, environment, --set.\n\nExamples:\n  quorate serve\n      a cluster of one node in ./quorate-data, REST on http://127.0.0.1:8080\n  quorate serve --config a.toml --set log.format=json\n  QUORATE_LISTEN__HTTP=127.0.0.1:9000 quorate serve --print-config\n\nExit codes: 0 stopped as asked; 1 failed while running; 2 wrong usage or configuration."
)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) given: Given,
    /// Show the configuration with where each value came from, and stop
    #[arg(long)]
    pub(crate) print_config: bool,
    /// Stop when standard input is closed: `dev` holds the other end
    #[arg(long, hide = true)]
    pub(crate) stop_with_parent: bool,
}

const DEV_DATA: &str = ".quorate/dev";
const HTTP_BASE: u16 = 8080;
const PEER_BASE: u16 = 7080;

/// `quorate dev`.
#[derive(Debug, Args)]
#[command(
    after_help = "Node k, from 1, serves REST on HTTP_BASE + k - 1 and its peers on PEER_BASE + k - 1. A node that dies is\nnot started again; the command to do so by hand is printed. Running it again with the same --data\ncontinues the same cluster. What is printed is also in DIR/nodes.json.\n\nExamples:\n  quorate dev\n  quorate dev --nodes 5 --data /tmp/five --http-base 9080 --peer-base 9180 --set log.level=debug"
)]
pub(crate) struct Dev {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=26))]
    pub(crate) nodes: u16,
    /// Where their data lies
    #[arg(long, value_name = "DIR", default_value = DEV_DATA)]
    pub(crate) data: PathBuf,
    /// The first REST port
    #[arg(long, value_name = "PORT", default_value_t = HTTP_BASE, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) http_base: u16,
    /// The first port for peers
    #[arg(long, value_name = "PORT", default_value_t = PEER_BASE, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) peer_base: u16,
    /// Set one key of the configuration of every node; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) sets: Vec<String>,
}

impl Default for Dev {
    /// What the flags say when they are not given.
    fn default() -> Self {
        Self { nodes: 3, data: PathBuf::from(DEV_DATA), http_base: HTTP_BASE, peer_base: PEER_BASE, sets: Vec::new() }
    }
}

/// `quorate backup`.
#[derive(Debug, Args)]
#[command(
    after_help = "The cluster goes on meanwhile. The file is one state, at one command number, whole or not there: it is\nverified before it gets its name. Every call that was acknowledged before is in it, whichever node is asked. Who can write it can change what it says: keep it where only those can\nwrite whom the cluster trusts.\n\nExamples:\n  quorate backup monday.quorate\n  quorate backup --url http://10.0.0.2:8080 --force /backups/newest.quorate\n  quorate backup --url http://10.0.0.2:8080 --local last.quorate\n      no leader is left: what this node has applied"
)]
pub(crate) struct Backup {
    /// The file to write
    pub(crate) file: PathBuf,
    /// Take the place of a file that is there already
    #[arg(long)]
    pub(crate) force: bool,
    /// Ask no leader: take what the node has. For when there is no leader and will be none; what was acknowledged last may
    /// be missing
    #[arg(long)]
    pub(crate) local: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// `quorate restore`.
#[derive(Debug, Args)]
#[command(
    after_help = "The new cluster has the state, the request ids and the command numbers of the old one, and an identity of\nits own: its nodes and those of the old one refuse each other. Restore every node of the new cluster from\nthe same file, each with its own configuration, then start them.\n\nExamples:\n  quorate restore monday.quorate --dry-run\n      only verify the file and say what is in it\n  quorate restore monday.quorate --config a.toml\n      make the data directory of node a, then: quorate serve --config a.toml\n  quorate restore monday.quorate --dev restored\n      make the data of three nodes to try it out, then: quorate dev --data restored"
)]
pub(crate) struct Restore {
    /// The backup
    pub(crate) file: PathBuf,
    /// Verify the file and say what is in it; write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) given: Given,
    /// Make the data of a whole cluster for `quorate dev --data DIR` instead
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    pub(crate) dev: Option<PathBuf>,
    /// With --dev: how many nodes
    #[arg(long, default_value_t = 3, requires = "dev", value_parser = clap::value_parser!(u16).range(1..=26))]
    pub(crate) nodes: u16,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

/// `quorate recover`.
#[derive(Debug, Args)]
#[command(
    after_help = "For a node whose disk is lost, or was replaced by an old copy, or whose log and MARK are both damaged: what it\npromised and voted for is gone, so that it must not vote again under its id. This asks nobody. It moves what is in\nthe data directory into `before-recovery-N`; then `quorate serve` joins the cluster as a new node of the same name, in\nthe place of the old one, and votes again when it has caught up.\n\nA damaged disk of which the node itself says that it heals needs none of this. If the old disk comes back whole, put\nit back instead.\n\nExamples:\n  quorate recover --config a.toml --dry-run\n      say what there is, and what would be done\n  quorate recover --config a.toml\n      then: quorate serve --config a.toml\n  quorate recover --config a.toml --force\n      give up the votes of a node whose data directory can be used\n\nExit codes: 0 done; 1 the disk failed, or another process uses the directory; 2 wrong usage or configuration, or the\ndata directory can be used and --force is not given."
)]
pub(crate) struct Recover {
    #[command(flatten)]
    pub(crate) given: Given,
    /// Give up a data directory that can be used, and with it the votes of this node, for good
    #[arg(long)]
    pub(crate) force: bool,
    /// Say what there is and what would be done, with the exit code that doing it would have; change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

/// How every client command reaches the cluster.
#[derive(Clone, Debug, Args)]
pub(crate) struct Connection {
    /// REST of a node; several, separated by commas, are tried in turn
    #[arg(
        long,
        env = "QUORATE_URL",
        value_name = "URL",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:8080"
    )]
    pub(crate) url: Vec<String>,
    #[command(flatten)]
    pub(crate) trust: Trust,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

/// How results are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Text,
    /// For programs: one JSON value on standard output; a failure is a problem document
    Json,
}

/// `quorate call`.
#[derive(Debug, Args)]
#[command(
    after_help = "Without --key the command makes a key of its own, so that trying another node never executes the call twice.\n\nExamples:\n  quorate call inventory.inbound '{\"warehouse\": \"A\", \"amount\": 500}'\n  quorate call inventory.outbound '{\"warehouse\": \"A\", \"amount\": 900}' --wait 30s\n  quorate call kv.increment '{\"key\": \"visits\"}' --key order-17 --output json"
)]
pub(crate) struct Call {
    /// Its name, such as inventory.transfer
    pub(crate) function: String,
    /// Its arguments; `-` reads them from standard input
    #[arg(value_name = "JSON", default_value = "{}")]
    pub(crate) arguments: String,
    /// The idempotency key: the same key and arguments get the first answer again
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// How long to wait for a refusal to pass and for the outcome, such as 30s
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) wait: Option<Duration>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// `quorate get`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  quorate get inventory/goods/A\n  quorate get inventory/goods/A --consistency local --output json"
)]
pub(crate) struct Get {
    /// The key
    pub(crate) key: String,
    /// How current the value must be
    #[arg(long, value_enum, default_value_t = Consistency::Linearizable)]
    pub(crate) consistency: Consistency,
    /// Wait until the node has applied this command
    #[arg(long, value_name = "N")]
    pub(crate) min_command: Option<u64>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// How current a read is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Consistency {
    /// At least everything acknowledged before the read began
    Linearizable,
    /// The newest state that the asked node knows
    Local,
}

/// `quorate put`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  quorate put greeting '\"hello\"'\n  quorate put greeting '\"hello again\"' --if-version 17"
)]
pub(crate) struct Put {
    /// The key
    pub(crate) key: String,
    /// The value: its bytes are stored as they are; `-` reads them from standard input
    pub(crate) value: String,
    #[command(flatten)]
    pub(crate) condition: Condition,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// `quorate delete`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  quorate delete greeting")]
pub(crate) struct Delete {
    /// The key
    pub(crate) key: String,
    #[command(flatten)]
    pub(crate) condition: Condition,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// What must be true of a key for a write to happen.
#[derive(Clone, Debug, Args)]
pub(crate) struct Condition {
    /// Only if the key has this version (0: it is absent)
    #[arg(long, value_name = "N")]
    pub(crate) if_version: Option<u64>,
    /// The idempotency key
    #[arg(long = "idempotency-key", value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
}

/// `quorate status`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  quorate status --url http://127.0.0.1:8080,http://127.0.0.1:8081")]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// `quorate health`.
#[derive(Debug, Args)]
#[command(
    after_help = "Without --url it asks the node of this machine where the configuration says that it listens (listen.http: --config,\nenvironment, --set, as for `serve`). QUORATE_URL is not read.\n\nExamples:\n  quorate health\n      can the node serve calls now?\n  quorate health --live --url http://10.0.0.1:8080\n      does its process answer?\n\nExit codes: 0 all checks hold; 1 one fails, or no answer in time; 2 wrong usage or configuration."
)]
pub(crate) struct Health {
    /// REST of the node
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Ask only whether its process lives (/livez), not whether it can serve calls (/readyz)
    #[arg(long)]
    pub(crate) live: bool,
    /// Give up after that long
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) trust: Trust,
    #[command(flatten)]
    pub(crate) given: Given,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

/// `quorate bench`.
#[derive(Debug, Args)]
#[command(after_long_help = BENCH_HELP, after_help = "See --help for the template language and examples.")]
pub(crate) struct Bench {
    /// The function to call
    #[arg(default_value = "inventory.transfer")]
    pub(crate) function: String,
    /// Its arguments, with random fields; without, a transfer of 1 between two of --warehouses
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) arguments: Option<String>,
    /// Transfer between so many warehouses, w0, w1, …
    #[arg(long, value_name = "N", default_value_t = 1000, conflicts_with = "arguments", value_parser = clap::value_parser!(u64).range(2..=1_000_000))]
    pub(crate) warehouses: u64,
    /// Draw numbers by Zipf's law with this exponent, such as 1.2, instead of evenly: the first of a range most often
    #[arg(long, value_name = "EXPONENT")]
    pub(crate) zipf: Option<f64>,
    /// REST of the nodes; clients are spread over them
    #[arg(
        long = "url",
        alias = "urls",
        env = "QUORATE_URL",
        value_name = "URL,URL",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:8080"
    )]
    pub(crate) urls: Vec<String>,
    #[command(flatten)]
    pub(crate) trust: Trust,
    /// Clients at once; each has one call under way at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub(crate) clients: u32,
    /// Send so many calls in one request (POST /v1/calls): latency is that of the request, all else is told by the call
    #[arg(long, value_name = "CALLS", default_value_t = 1, conflicts_with_all = ["rate", "retry"], value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) batch: u32,
    /// Calls a second that are due, whatever became of those before (open loop); latency counts from then
    #[arg(long, value_name = "CALLS")]
    pub(crate) rate: Option<f64>,
    /// How long to measure
    #[arg(long, default_value_t = 6.0)]
    pub(crate) seconds: f64,
    /// Measure this many calls instead
    #[arg(long, conflicts_with = "seconds")]
    pub(crate) calls: Option<u64>,
    /// Seconds to run before measuring
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    pub(crate) warmup: f64,
    /// Fill stock first: inventory:N is N warehouses w0, w1, … with 1,000,000 goods each
    #[arg(long, value_name = "inventory:N")]
    pub(crate) setup: Option<String>,
    /// After a failure send the call again, to the next node, with the same idempotency key
    #[arg(long)]
    pub(crate) retry: bool,
    /// Give up on one call after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
    pub(crate) timeout: f64,
    /// Process ids of the nodes, to report their CPU time a call
    #[arg(long, value_name = "PID,PID", value_delimiter = ',')]
    pub(crate) pids: Vec<u32>,
    /// The same seed gives the same arguments
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

const BENCH_HELP: &str = "\
Arguments are JSON; in its strings these are replaced anew for every call:
  $int(a,b)       a random whole number from a to b
  $distinct(a,b)  the same, but unlike every number drawn before in this call
  $text(n)        n random letters
  $client         the number of the client, from 0
  $sequence       the number of the call of this client, from 0
A string that is nothing but one $int, $distinct, $client or $sequence becomes a number.

Every client waits for its answer before the next call (closed loop). With --rate calls are due at even intervals
and any free client makes the next one (open loop): latency then counts from when a call was due, so that a stall
is charged for all calls that it held up, and calls without an answer at the end count with their age; give more
clients than are under way at a time. Latencies are of calls with a 2xx answer, retries included; other answers are
counted by their code. Refusals (429, 503) have latencies of their own, since their call was sent. The longest gap is
the longest time in which no call succeeded. Syncs come from the nodes' /metrics; CPU is that of --pids and the
processes below them.

Examples:
  quorate bench --setup inventory:1000 --clients 64
  quorate bench --setup inventory:100000 --warehouses 100000 --zipf 1.2 --clients 256 --rate 5000
  quorate bench kv.put --arguments '{\"key\": \"k$int(0,9999)\", \"value\": \"$text(256)\"}' --seconds 10
  quorate bench --setup inventory:1000 --clients 16 --batch 100
  quorate bench --url http://127.0.0.1:8080,http://127.0.0.1:8081,http://127.0.0.1:8082 --retry --seconds 20";
