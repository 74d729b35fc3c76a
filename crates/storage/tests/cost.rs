//! What applying a command costs. Not a check: `cargo test --release -p quorate-storage --test cost -- --ignored
//! --nocapture` prints microseconds for people, on an otherwise idle machine.

use std::time::Instant;

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
#[expect(clippy::disallowed_methods, reason = "it measures")]
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
        let begun = Instant::now();
        measured.chunks(batch).for_each(|batch| state.apply(batch).expect("applied"));
        let each = begun.elapsed().as_micros() as f64 / measured.len() as f64;
        println!("{each:6.2} us a command: {keys} keys, values of {value} bytes, {batch} commands a batch");
    }
}
