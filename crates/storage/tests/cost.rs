//! What applying a command costs, and copying a state. Not a check: `cargo test --release -p quorate-storage --test cost -- --ignored
//! --nocapture` prints microseconds for people: of this thread on a processor (Linux counts them), so other
//! work on the machine disturbs little, and the work of RocksDB in the background is not in them.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use protocol::{ClusterId, Command, NodeId, Position, Timestamp};
use quorate_storage::conformance::{body, command, put};
use quorate_storage::rocksdb::{Options, RocksState, open};
use quorate_storage::{Identity, Installation, StateStore as _};

/// How many commands are applied, and how many of them are warm-up.
const COMMANDS: u64 = 200_000;
const WARM_UP: u64 = 50_000;
/// Outcomes that are kept before they are forgotten: every command then adds one and forgets one.
const KEPT: u64 = 20_000;

fn commands(keys: u64, value: usize) -> Vec<Command> {
    let one = |number: u64| {
        // Spread over all keys in an order without a pattern.
        let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys;
        let mut body = body(number, vec![put(&format!("stock/{key:08}"), vec![1; value])]);
        body.forget.callers = Timestamp(number.saturating_sub(KEPT));
        command(number, &body)
    };
    (1..=COMMANDS).map(one).collect()
}

fn opened(dir: &Path) -> Arc<RocksState> {
    let identity =
        Identity { cluster: ClusterId([1; 16]), cluster_name: "cost".into(), node: NodeId(1), node_name: "n1".into() };
    open(dir, &identity, &Options::default()).expect("the stores open").state
}

#[test]
#[ignore = "prints what applying costs, for people"]
#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 commands")]
fn applying_a_command() {
    for (keys, value, batch) in [(10_000, 100, 64), (10_000, 100, 1), (1_000_000, 100, 64), (1_000, 4_096, 64)] {
        let commands = commands(keys, value);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let state = opened(dir.path());
        let (warm, measured) = commands.split_at(usize::try_from(WARM_UP).expect("small"));
        warm.chunks(64).for_each(|batch| state.apply(batch).expect("applied"));
        let begun = on_processor();
        measured.chunks(batch).for_each(|batch| state.apply(batch).expect("applied"));
        let each = (on_processor() - begun) as f64 / 1_000.0 / measured.len() as f64;
        println!("{each:6.2} us a command: {keys} keys, values of {value} bytes, {batch} commands a batch");
    }
}

/// What copying a state costs whom: the sender's thread and the receiver's; how long a checkpoint takes by the clock.
#[test]
#[ignore = "prints what copying costs, for people"]
#[expect(clippy::disallowed_methods, reason = "it measures")]
#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 records")]
fn copying_a_state() {
    let (dir, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let (source, target) = (opened(dir.path()), opened(other.path()));
    for batch in commands(1_000_000, 100).chunks(64) {
        source.apply(batch).expect("applied");
    }
    let begun = Instant::now();
    let checkpoint = source.checkpoint().expect("a checkpoint");
    println!("{:8.1} ms for a checkpoint, by the clock", begun.elapsed().as_secs_f64() * 1e3);
    let (mut records, mut read, mut staged) = (0, 0, 0);
    let mut next = Some(Position::default());
    while let Some(from) = next {
        let begun = on_processor();
        let piece = checkpoint.piece(&from, 1 << 20).expect("readable");
        let between = on_processor();
        target.stage(checkpoint.id(), &piece).expect("staged");
        (read, staged) = (read + between - begun, staged + on_processor() - between);
        records += piece.records.len();
        next = piece.next;
    }
    let begun = on_processor();
    assert_eq!(target.install(), Ok(Installation::Done(checkpoint.id().at)));
    let installed = on_processor() - begun;
    for (nanoseconds, what) in [(read, "read"), (staged, "stage"), (installed, "verify and install")] {
        println!("{:8.2} us a record to {what} it, {records} records", nanoseconds as f64 / 1e3 / records as f64);
    }
}

/// How long this thread has run, in nanoseconds.
fn on_processor() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts it");
    text.split(' ').next().and_then(|nanoseconds| nanoseconds.parse().ok()).expect("a number comes first")
}
