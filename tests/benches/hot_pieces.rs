//! What each call goes through, piece by piece, and what sharing saves: `cargo bench -p quorate-tests --bench hot_pieces`.
//!
//! The commands are those of `inventory.transfer`, one or so many of them applied, written or sent at once. Nothing is
//! forgotten meanwhile: the stores of the faster one are larger at the end. Times are of this machine, now: compare two
//! versions in one run each, side by side. What instructions a call takes in the cores, which no neighbour changes,
//! `cargo xtask instructions` counts.

use std::hint::black_box;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use protocol::message::{BeginBallot, ToAcceptor};
use protocol::{
    Ballot, ClusterId, Command, CommandBody, CommandId, CommandNumber, Effect, Fingerprint, Forget, Key, Message,
    NodeId, RequestId, Timestamp, Verdict, Vote,
};
use storage::rocksdb::{Options, Stores, open};
use storage::{Identity, LogRecord, LogStore as _, StateStore as _};
use tempfile::TempDir;

const WAREHOUSES: u64 = 1_000;
/// Of one client, of many, and of many in bulk.
const SHARING: [u64; 3] = [1, 16, 256];

fn ballot() -> Ballot {
    Ballot::new(1, NodeId(1))
}

/// The transfer with this number.
fn transfer(number: u64) -> Command {
    let stock = |warehouse: u64| Effect::Put {
        key: Key::new(format!("inventory/goods/w{}", warehouse % WAREHOUSES)).expect("a key"),
        value: Bytes::from(number.to_string()),
    };
    // Neighbours are far apart, as those that are drawn.
    let body = CommandBody {
        time: Timestamp(1_000 * number),
        request: RequestId::Gateway(u128::from(number)),
        fingerprint: Fingerprint([7; 16]),
        function: "inventory.transfer".to_owned(),
        verdict: Verdict::Changed(Bytes::from_static(br#"{"from":999999,"to":1000001}"#)),
        effects: vec![stock(number.wrapping_mul(2_654_435_761)), stock(number.wrapping_mul(40_503) + 1)],
        forget: Forget::default(),
    };
    let id = |number| CommandId::new(if number == 0 { Ballot::default() } else { ballot() }, CommandNumber(number));
    Command { id: id(number), precedent: id(number - 1), body: body.encode() }
}

/// The next so many of them.
fn next(last: &mut u64, count: u64) -> Vec<Command> {
    let first = *last + 1;
    *last += count;
    (first..=*last).map(transfer).collect()
}

fn stores() -> (TempDir, Stores) {
    // On a disk: what is temporary is often in memory, where a sync costs nothing.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory");
    let identity = Identity {
        cluster: ClusterId([1; 16]),
        cluster_name: "bench".to_owned(),
        node: NodeId(1),
        node_name: "bench".to_owned(),
    };
    let stores = open(directory.path(), &identity, &Options::default()).expect("a data directory");
    (directory, stores)
}

/// The learner: commands become a state, on disk, not synced.
fn apply(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply to the state");
    for count in SHARING {
        let ((_directory, stores), mut last) = (stores(), 0);
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("{count} at once"), |bench| {
            let commands = || next(&mut last, count);
            let apply = |commands: &mut Vec<Command>| stores.state.apply(commands).expect("applied");
            bench.iter_batched_ref(commands, apply, BatchSize::PerIteration);
        });
    }
}

/// The acceptor: votes are written and synced.
fn vote(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("write votes and sync");
    for count in SHARING {
        let ((_directory, stores), mut last) = (stores(), 0);
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("{count} at once"), |bench| {
            let votes = || {
                let vote = |command| LogRecord::Vote(Vote { ballot: ballot(), command });
                next(&mut last, count).into_iter().map(vote).collect::<Vec<_>>()
            };
            let write = |votes: &mut Vec<LogRecord>| stores.log.write(votes).expect("written");
            bench.iter_batched_ref(votes, write, BatchSize::PerIteration);
        });
    }
}

/// The transport: a message is written, and read.
fn wire(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode and decode a BeginBallot");
    for count in SHARING {
        let commands = next(&mut 0, count);
        let begin = BeginBallot { ballot: ballot(), commands, round: 7, membership: CommandNumber(1) };
        let message = Message::Acceptor(ToAcceptor::BeginBallot(begin));
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("{count} commands"), |bench| {
            bench.iter(|| {
                let mut buffer = BytesMut::new();
                transport::wire::encode(black_box(&message), &mut buffer);
                transport::wire::decode(buffer.freeze()).expect("what was written is read")
            });
        });
    }
}

/// The body of a command, as each learner reads it.
fn body(criterion: &mut Criterion) {
    let command = transfer(1);
    criterion.bench_function("read the body of a command", |bench| {
        bench.iter(|| CommandBody::decode(black_box(&command.body)).expect("a body"));
    });
}

criterion_group! {
    name = hot_pieces;
    config = Criterion::default().measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
    targets = apply, vote, wire, body
}
criterion_main!(hot_pieces);
