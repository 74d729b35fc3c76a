//! Any legal run, delivered in any order, with loss and doubling and reboots.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use protocol::Run;
use protocol::message::{CatchUp, Commands};

use super::*;

const ACCEPTORS: u64 = 3;
const WINDOW: u64 = 8;

/// What one ballot did: of the commands not issued before it, it takes over `kept`, adds
/// `added`, and gets `issued` of them issued.
#[derive(Clone, Debug)]
struct Reign {
    node: u64,
    kept: usize,
    added: usize,
    issued: usize,
}

fn reign() -> impl Strategy<Value = Reign> {
    (1..=ACCEPTORS, 0..3usize, 0..4usize, 0..6usize).prop_map(|(node, kept, added, issued)| Reign {
        node,
        kept,
        added,
        issued,
    })
}

/// A history as the protocol allows it: the issued chain, and everything said on the way.
struct History {
    chain: Vec<Command>,
    said: Vec<Input>,
}

fn history(reigns: &[Reign]) -> History {
    let (mut chain, mut unissued, mut said) = (Vec::<Command>::new(), Vec::<Command>::new(), Vec::new());
    for (skip, reign) in reigns.iter().enumerate() {
        let ballot = Ballot::new(skip as u64 + 1, NodeId(reign.node));
        let mut run: Vec<Command> = unissued.drain(..).take(reign.kept).collect();
        for _ in 0..reign.added {
            let precedent = run.last().or(chain.last()).map_or(CommandId::NULL, |command| command.id);
            let id = CommandId::new(ballot, precedent.number.next());
            run.push(Command { id, precedent, body: Bytes::from(id.to_string()) });
        }
        let issued = reign.issued.min(run.len());
        for (index, command) in run.iter().enumerate() {
            said.push(Input::Proposed { ballot, commands: vec![command.clone()] });
            let last = command.id;
            let voters = if index < issued { 2 } else { 1 };
            for voter in (1..=ACCEPTORS).cycle().skip(skip).take(voters) {
                let run = Some(Run { first: last.number, last });
                let message = ToLearner::Voted(Voted { ballot, run, round: 1, membership: CommandNumber::NULL });
                said.push(Input::Message { from: NodeId(voter), message });
            }
            if index < issued {
                let commands = if index % 3 == 0 { vec![command.clone()] } else { vec![] };
                let message = ToLearner::Success(Success { ballot, issued: last, commands });
                said.push(Input::Message { from: ballot.node, message });
            }
        }
        said.push(Input::Proposed { ballot, commands: run.clone() });
        unissued = run.split_off(issued);
        chain.extend(run);
    }
    History { chain, said }
}

/// A node around the core: what it applied, and the clock.
struct Node {
    learner: Learner,
    applied: Vec<Command>,
    now: Now,
}

fn config(learn_from: LearnFrom) -> Config {
    let membership = Membership::of_equals(ACCEPTORS);
    Config { me: NodeId(1), membership, learn_from, window: WINDOW, timing: Timing::default() }
}

impl Node {
    fn new(learn_from: LearnFrom) -> Self {
        Self { learner: Learner::new(config(learn_from), CommandId::NULL), applied: vec![], now: Now::default() }
    }

    /// Hands over one input, applies, checks, and returns what is sent.
    fn take(&mut self, input: Input, chain: &[Command]) -> Vec<(NodeId, Message)> {
        self.now.tick = self.now.tick + Duration::from_millis(3);
        let (mut sent, before) = (Vec::new(), self.applied.len());
        for effect in self.learner.handle(input, self.now) {
            match effect {
                Effect::Apply(commands) => self.applied.extend(commands),
                Effect::Ask { to, first } => {
                    sent.push((to, Message::Learner(ToLearner::CatchUp(CatchUp { first }))));
                }
                Effect::Send { to, message } => sent.push((to, message)),
                Effect::Ignored(reason @ IgnoreReason::Contradiction { .. }) => panic!("{reason:?} in a legal history"),
                Effect::Ignored(_) => {}
                Effect::Serve { .. }
                | Effect::Digest { .. }
                | Effect::NoDigest { .. }
                | Effect::Forget { .. }
                | Effect::Reclaim(_)
                | Effect::MakeCheckpoint
                | Effect::ServePiece { .. }
                | Effect::CloseCheckpoint(_)
                | Effect::Stage { .. }
                | Effect::Install
                | Effect::DropStaged => panic!("nobody asked, and everybody keeps all: {effect:?}"),
            }
        }
        assert!(!self.learner.is_full() || self.applied.len() == before, "applied without room");
        assert_eq!(self.applied, chain[..self.applied.len()], "what is applied is a prefix of what is issued");
        assert_eq!(self.learner.issued(), self.applied.last().map_or(CommandId::NULL, |command| command.id));
        sent
    }

    /// A power cut that loses the last `lost` applied commands.
    fn reboot(&mut self, lost: usize, learn_from: LearnFrom) {
        self.applied.truncate(self.applied.len().saturating_sub(lost));
        let applied = self.applied.last().map_or(CommandId::NULL, |command| command.id);
        self.learner = Learner::new(config(learn_from), applied);
    }

    /// Peer 2 never answers, peer 3 knows everything and answers in pieces of two.
    fn catch_up(&mut self, chain: &[Command]) {
        let issued = chain.last().map_or(CommandId::NULL, |command| command.id);
        let mut inputs: Vec<Input> =
            (2..=3).map(|peer| Input::PeerIssued { peer: NodeId(peer), issued: issued.number }).collect();
        for _ in 0..2_000 {
            if self.applied.len() == chain.len() {
                return;
            }
            let input = inputs.pop().unwrap_or(Input::Tick);
            for (to, message) in self.take(input, chain) {
                let Message::Learner(ToLearner::CatchUp(CatchUp { first })) = message else {
                    panic!("{message:?} answers nothing")
                };
                if to == NodeId(3) {
                    let piece = chain.iter().filter(|command| command.number() >= first).take(2).cloned().collect();
                    let kept_from = CommandNumber(1);
                    let message = ToLearner::Commands(Commands { commands: piece, issued, kept_from });
                    inputs.push(Input::Message { from: to, message });
                }
            }
        }
        panic!("not caught up: {} of {}", self.applied.len(), chain.len());
    }
}

fn mode() -> impl Strategy<Value = LearnFrom> {
    prop_oneof![Just(LearnFrom::Leader), Just(LearnFrom::Voters)]
}

proptest! {
    /// A1h, A1n, A1o, A2, A3, A4, A12, S-04, S-06: catches a learner that ever applies something
    /// else than a prefix of the issued chain, or anything without room, or that does not catch up from one peer.
    #[test]
    fn any_delivery_of_a_legal_history_issues_a_prefix_and_asking_brings_the_rest(
        reigns in prop::collection::vec(reign(), 1..6),
        order in prop::collection::vec((any::<prop::sample::Index>(), 0..40u8), 0..160),
        learn_from in mode(),
    ) {
        let History { chain, said } = history(&reigns);
        let mut node = Node::new(learn_from);
        // Picking at random loses, doubles and reorders.
        for (pick, chance) in order {
            if !said.is_empty() {
                node.take(said[pick.index(said.len())].clone(), &chain);
            }
            match chance {
                0 => node.reboot(pick.index(4), learn_from),
                1..=3 => _ = node.take(Input::Space(if chance == 1 { Space::Out } else { Space::Low }), &chain),
                _ => {}
            }
        }
        node.take(Input::Space(Space::Ample), &chain);
        node.catch_up(&chain);
    }

    /// A2, A3: catches a learner that needs to ask although everything came, in order.
    #[test]
    fn everything_delivered_in_order_is_issued_without_asking(
        reigns in prop::collection::vec(reign(), 1..6),
        learn_from in mode(),
    ) {
        let History { chain, said } = history(&reigns);
        let mut node = Node::new(learn_from);
        for input in said {
            let uses = match &input {
                Input::Message { message: ToLearner::Success(_), .. } => learn_from == LearnFrom::Leader,
                Input::Message { message: ToLearner::Voted(_), .. } => learn_from == LearnFrom::Voters,
                Input::Message { .. }
                | Input::Proposed { .. }
                | Input::PeerIssued { .. }
                | Input::PeerDurable { .. }
                | Input::PeerLost(_)
                | Input::Kept { .. }
                | Input::CheckpointMade(_)
                | Input::Staged(_)
                | Input::Installed(_)
                | Input::DigestAt { .. }
                | Input::Space(_)
                | Input::Membership(_)
                | Input::Tick => true,
            };
            if uses {
                prop_assert_eq!(node.take(input, &chain), vec![]);
            }
        }
        prop_assert_eq!(node.applied, chain);
    }
}
