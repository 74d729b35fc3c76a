//! What applying a command costs. Not a check: `cargo test --release -p quorate-storage --test cost -- --ignored
//! --nocapture` prints microseconds for people: of this thread on a processor (Linux counts them), so other
//! work on the machine disturbs little, and the work of RocksDB in the background is not in them.

use protocol::{ClusterId, Command, NodeId, Timestamp};
use quorate_storage::conformance::{body, command, put};
use quorate_storage::rocksdb::{Options, open};
use quorate_storage::{Identity, StateStore as _};

/// How many commands are applied, and how many of them are warm-up.
const COMMANDS: u64 = 200_000;
const WARM_UP: u64 = 50_000;
/// Outcomes that are kept before they are forgotten: every command then adds one and forgets one.
const KEPT: u64 = 20_000;

fn commands(keys: u64, value: usize) -> Vec<Command> {
    let one = |number: u64| {
        // Spread over all keys in an order without a pattern.
        let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys;
        let mut body = body(number, vec![put(&format!("stock/{key:08}"), vec![number as u8; value])]);
        body.forget.callers = Timestamp(number.saturating_sub(KEPT));
        command(number, &body)
    };
    (1..=COMMANDS).map(one).collect()
}

#[test]
#[ignore = "prints what applying costs, for people"]
#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 commands")]
fn applying_a_command() {
    for (keys, value, batch) in [(10_000, 100, 64), (10_000, 100, 1), (1_000_000, 100, 64), (1_000, 4_096, 64)] {
        let commands = commands(keys, value);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let identity = Identity {
            cluster: ClusterId([1; 16]),
            cluster_name: "cost".into(),
            node: NodeId(1),
            node_name: "n1".into(),
        };
        let state = open(dir.path(), &identity, &Options::default()).expect("the stores open").state;
        let (warm, measured) = commands.split_at(usize::try_from(WARM_UP).expect("small"));
        warm.chunks(64).for_each(|batch| state.apply(batch).expect("applied"));
        let begun = on_processor();
        measured.chunks(batch).for_each(|batch| state.apply(batch).expect("applied"));
        let each = (on_processor() - begun) as f64 / 1_000.0 / measured.len() as f64;
        println!("{each:6.2} us a command: {keys} keys, values of {value} bytes, {batch} commands a batch");
    }
}

/// How long this thread has run, in nanoseconds.
fn on_processor() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts it");
    text.split(' ').next().and_then(|nanoseconds| nanoseconds.parse().ok()).expect("a number comes first")
}
