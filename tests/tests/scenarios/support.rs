//! Short ways to say what the stories say again and again.

use protocol::message::Stored;
use protocol::{Ballot, CommandId, CommandNumber, NodeId, Outcome};
use quorate_tests::world::World;
use serde_json::{Value, json};

pub(crate) fn goods(warehouse: &str, amount: u64) -> Value {
    json!({"warehouse": warehouse, "amount": amount})
}

pub(crate) fn transfer(from: &str, to: &str, amount: u64) -> Value {
    json!({"from": from, "to": to, "amount": amount})
}

/// The command first proposed for `number` in the ballot of `round` and `node`.
pub(crate) fn id(number: u64, round: u64, node: NodeId) -> CommandId {
    CommandId::new(Ballot::new(round, node), CommandNumber(number))
}

/// A node leads, and everything that this causes has happened.
#[track_caller]
pub(crate) fn lead(world: &mut World, node: NodeId) -> Ballot {
    world.campaign(node);
    world.settle();
    world.leads(node).expect("nobody was in the way")
}

/// A stock arrives in a warehouse, and everything that this causes has happened.
#[track_caller]
pub(crate) fn stock_up(world: &mut World, leader: NodeId, name: &str, warehouse: &str, amount: u64) {
    world.call(leader, leader, name, "inventory.inbound", &goods(warehouse, amount));
    world.settle();
    assert!(matches!(world.outcomes(name).as_slice(), [Outcome::Issued { .. }]), "{:?}", world.outcomes(name));
}

/// The stocks of A, B and C on a node.
pub(crate) fn abc(world: &World, node: NodeId) -> [u64; 3] {
    ["A", "B", "C"].map(|warehouse| world.node(node).stock(warehouse))
}

pub(crate) fn issued(command: u64, result: &Value) -> Outcome {
    Outcome::Issued { command: CommandNumber(command), result: result.to_string().into() }
}

/// The last answer to a call tells again what was stored before it was asked.
pub(crate) fn assert_replayed(world: &World, name: &str, command: u64, result: &Value) {
    assert_eq!(world.answers(name).last(), Some(&(issued(command, result), Stored::Before)), "{name}");
}
