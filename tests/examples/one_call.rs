//! Calls through all cores of three nodes, for a count of instructions: `cargo xtask instructions` runs it under callgrind,
//! which counts inside of the `handle` of one core at a time.
//!
//! Each is a transfer between two of a hundred warehouses, comes to its end before the next one, and is written and applied in
//! memory. The gateway stands beside the world of the scenarios, which has none.

use std::time::Duration;

use bytes::BytesMut;
use http_api::core::{Effect, Gateway, Input, Settings};
use protocol::message::{Executed, Stored, ToGateway, ToLeader};
use protocol::{Call, CommandNumber, Message, Outcome, Tick};
use quorate_tests::world::{Event, P, Settings as WorldSettings, World, call};
use serde_json::{Value, json};

const WAREHOUSES: u64 = 100;
/// After so many calls learners hear how far the others are, and acceptors forget.
const PAUSE: u64 = 50;

fn main() {
    let calls = std::env::args().nth(1).and_then(|calls| calls.parse().ok()).expect("usage: one_call CALLS");
    let mut world = World::new(WorldSettings { digests: false, ..WorldSettings::default() });
    world.campaign(P);
    world.settle();
    for warehouse in 0..WAREHOUSES {
        world.call(P, P, &format!("in-{warehouse}"), "inventory.inbound", &inbound(warehouse));
        world.settle();
    }
    world.run(2);
    let before = world.events().len();
    for number in 0..calls {
        world.call(P, P, &format!("call-{number}"), "inventory.transfer", &transfer(number));
        world.settle();
        if number % PAUSE == PAUSE - 1 {
            world.run(1);
        }
    }
    let sent = world.events()[before..].iter().filter_map(|event| {
        let Event::Sent { from, to, message } = event else { return None };
        (from != to).then_some(message)
    });
    let bytes: usize = sent.map(over_the_wire).sum();
    let last = world.checks().issued();
    assert_eq!(last, WAREHOUSES + calls, "each call is one command");
    gateway(calls);
    println!("{calls} calls: {last} commands issued, {bytes} bytes of messages");
}

fn inbound(warehouse: u64) -> Value {
    json!({"warehouse": format!("w{warehouse:04}"), "amount": 1_000_000})
}

fn transfer(number: u64) -> Value {
    let (from, to) = (number * 7 % WAREHOUSES, (number * 13 + 1) % WAREHOUSES);
    let to = if from == to { (to + 1) % WAREHOUSES } else { to };
    json!({"from": format!("w{from:04}"), "to": format!("w{to:04}"), "amount": 1})
}

/// What two transports do with a message; not inlined, so that it can be counted.
#[inline(never)]
fn over_the_wire(message: &Message) -> usize {
    let mut buffer = BytesMut::new();
    transport::wire::encode(message, &mut buffer);
    let bytes = buffer.len();
    transport::wire::decode(buffer.freeze()).expect("what was written is read");
    bytes
}

/// The same calls at a gateway whose leader answers each at once.
fn gateway(calls: u64) {
    let mut gateway = Gateway::new(Settings::default(), 1);
    let mut effects = Vec::new();
    let mut now = Tick(1);
    gateway.handle(Input::LeaderIs(Some(P)), now, &mut effects);
    for ticket in 0..calls {
        effects.clear();
        let call = call(&format!("call-{ticket}"), "inventory.transfer", &transfer(ticket), Duration::ZERO);
        let deadline = now + Duration::from_secs(10);
        gateway.handle(Input::Submit { ticket, call, deadline, applied: CommandNumber(ticket) }, now, &mut effects);
        now = now + Duration::from_millis(1);
        let sent = effects.drain(..).find_map(|effect| {
            let Effect::Send { message: Message::Leader(ToLeader::ExecuteFunction(call)), .. } = effect else {
                return None;
            };
            Some(call)
        });
        let Call { request, fingerprint, copy, .. } = sent.expect("the call is sent");
        let outcome = Outcome::Issued { command: CommandNumber(ticket + 1), result: "{}".into() };
        let executed = Executed { request, copy: Some(copy), fingerprint, outcome, stored: Stored::Now };
        gateway.handle(Input::FromLeader { from: P, message: ToGateway::Executed(executed) }, now, &mut effects);
        assert!(matches!(effects[..], [Effect::Answer { .. }]), "the caller is told: {effects:?}");
    }
}
