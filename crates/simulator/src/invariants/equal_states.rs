//! Replicas at one number have equal states, and a state from a disk, for another node, or from one, is that of a full
//! replay (DESIGN 14.7, RELIABILITY 3.6 and 3.13). That each command is the issued one of its number is looked at with every
//! command (`agreement`); the digest of a whole state is told with every 64th, and with each start and whole
//! state: the model computes its own from all records.
//!
//! The reference is a model to which the issued commands are applied one by one. Wherever a node tells a digest,
//! it is compared with the model's at the same number. The model moves forward; for a number that it has
//! passed it starts again at the last of the points that it keeps.

use std::collections::BTreeMap;

use protocol::message::{Snapshot, ToLearner};
use protocol::{CommandNumber, Message, NodeId, Now};
use storage::memory::{MemoryState, StateDisk};
use storage::{StateSnapshot as _, StateStore, StorageError};

use super::{Chain, History, Invariant, Violation, ensure};
use crate::fact::Fact;

/// How far apart the points are from which the model can start again: what one digest of the past costs,
/// against a copy of the whole state for each.
const POINTS: u64 = 1024;

/// See the module.
#[derive(Default)]
pub(super) struct EqualStates {
    model: MemoryState,
    points: BTreeMap<CommandNumber, StateDisk>,
    digests: BTreeMap<CommandNumber, [u8; 32]>,
}

impl Invariant for EqualStates {
    fn name(&self) -> &'static str {
        "equal states"
    }

    fn check(&mut self, _: Now, fact: &Fact, history: &History) -> Result<(), Violation> {
        match fact {
            Fact::Applied { node, command, digest: Some(digest) } => {
                self.compare(*node, command.number(), *digest, &history.chain)
            }
            Fact::Installed { node, id } => self.compare(*node, id.at.number, id.digest, &history.chain),
            Fact::Started { node, applied, digest, .. } => self.compare(*node, applied.number, *digest, &history.chain),
            // Where there is no piece, the sender has no such state.
            Fact::Sent {
                from,
                message: Message::Learner(ToLearner::Snapshot(Snapshot { id, piece: Some(_), .. })),
                ..
            } => self.compare(*from, id.at.number, id.digest, &history.chain),
            Fact::Sent { .. }
            | Fact::Delivered { .. }
            | Fact::Lost { .. }
            | Fact::Written { .. }
            | Fact::Applied { digest: None, .. }
            | Fact::Synced { .. }
            | Fact::Executed { .. }
            | Fact::Leads { .. }
            | Fact::Noted { .. }
            | Fact::Ignored { .. }
            | Fact::Stopped { .. }
            | Fact::Asked { .. }
            | Fact::Told { .. }
            | Fact::Fault(_)
            | Fact::Healed { .. } => Ok(()),
        }
    }
}

impl EqualStates {
    fn compare(
        &mut self,
        node: NodeId,
        number: CommandNumber,
        digest: [u8; 32],
        chain: &Chain,
    ) -> Result<(), Violation> {
        let ours = self.digest(number, chain).map_err(|error| format!("the model at {number}: {error}"))?;
        ensure(ours == Some(digest), || format!("node {node} at {number} has another state than a replay"))
    }

    /// The digest of the model at a number; none beyond the chain.
    fn digest(&mut self, number: CommandNumber, chain: &Chain) -> Result<Option<[u8; 32]>, StorageError> {
        if let Some(digest) = self.digests.get(&number) {
            return Ok(Some(*digest));
        }
        if self.model.applied().number > number {
            let point = self.points.range(..=number).next_back().map(|(_, disk)| disk.clone());
            self.model = MemoryState::from_disk(point.unwrap_or_default());
        }
        while self.model.applied().number < number {
            let next = self.model.applied().number.next();
            let Some(issued) = chain.at(next) else { return Ok(None) };
            self.model.apply(std::slice::from_ref(&issued.command))?;
            // What was not synced is kept a second time.
            self.model.sync()?;
            if next.0.is_multiple_of(POINTS) && !self.points.contains_key(&next) {
                self.points.insert(next, self.model.disk());
            }
        }
        let digest = self.model.image().digest()?;
        self.digests.insert(number, digest);
        Ok(Some(digest))
    }
}

#[cfg(test)]
mod tests {
    use protocol::{SnapshotId, SnapshotPiece};

    use super::super::testing::*;
    use super::*;

    /// A1l, A1o: catches a node whose state differs at a number, while it runs or when it starts, at the end of
    /// the chain and before it.
    #[test]
    fn a_digest_is_that_of_a_replay() {
        let commands = chain_of(&[1, 2, 3].map(|n| body(&format!("r{n}"), vec![put("a", &n.to_string())])));
        let with = |number: usize, digest: usize| {
            let digest = Some(digest_after(&commands[..digest]));
            Fact::Applied { node: NodeId(2), command: commands[number - 1].clone(), digest }
        };
        let all: Vec<Fact> = commands.iter().map(|command| applied(1, command)).collect();
        let run = |facts: &[Fact]| run(EqualStates::default(), &[&all, facts].concat());
        assert_eq!(run(&[with(3, 3), with(1, 1), with(2, 2), started_at(3, 2, &commands[..2])]), Ok(()));
        assert_fails(run(&[with(3, 2)]), "node 2 at 3 has another state");
        assert_fails(run(&[with(3, 3), with(2, 1)]), "node 2 at 2 has another state");
        let mut up = started_at(3, 2, &commands[..2]);
        if let Fact::Started { digest, .. } = &mut up {
            *digest = digest_after(&commands);
        }
        assert_fails(run(&[up]), "node 3 at 2 has another state");
    }

    /// A14: catches a whole state from another node that is not the one at its number, when it is sent and when it is in
    /// place.
    #[test]
    fn a_state_from_another_node_is_that_of_a_replay() {
        let commands = chain_of(&[1, 2].map(|n| body(&format!("r{n}"), vec![put("a", &n.to_string())])));
        let all: Vec<Fact> = commands.iter().map(|command| applied(1, command)).collect();
        let run = |fact: Fact| run(EqualStates::default(), &[&all[..], &[fact]].concat());
        assert_eq!(run(installed_at(2, &commands)), Ok(()));
        let mut other = installed_at(2, &commands);
        if let Fact::Installed { id, .. } = &mut other {
            id.digest = digest_after(&commands[..1]);
        }
        assert_fails(run(other), "node 2 at 2 has another state");
        let sends = |number: usize, digest: usize, piece| {
            let id = SnapshotId { at: commands[number - 1].id, digest: digest_after(&commands[..digest]) };
            run(sent(2, 3, Message::Learner(ToLearner::Snapshot(Snapshot { id, records: 1, piece }))))
        };
        assert_eq!(sends(2, 2, Some(SnapshotPiece::default())), Ok(()));
        assert_eq!(sends(1, 1, Some(SnapshotPiece::default())), Ok(()));
        assert_fails(sends(2, 1, Some(SnapshotPiece::default())), "node 2 at 2 has another state");
        assert_eq!(sends(2, 1, None), Ok(()), "it has none");
    }

    /// Catches a model that cannot go back behind a point that it keeps, or starts again at a later one.
    #[test]
    fn the_model_starts_again_at_a_point() {
        let bodies: Vec<_> = (1..=POINTS + 2).map(|n| body(&format!("r{n}"), vec![put("a", &n.to_string())])).collect();
        let commands = chain_of(&bodies);
        let mut facts: Vec<Fact> = commands.iter().map(|command| applied(1, command)).collect();
        for number in [commands.len(), 1024, 1025, 3, 1026] {
            facts.push(started_at(2, 2, &commands[..number]));
        }
        assert_eq!(run(EqualStates::default(), &facts), Ok(()));
    }
}
