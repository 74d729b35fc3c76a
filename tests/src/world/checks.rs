//! The invariants of DESIGN 14, looked at after every step of a world.
//!
//! Each check panics with the text of the invariant that is broken. What is checked with a
//! *model*: a state to which each command is applied once, when it is first known to be issued
//! anywhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use functions::{ExecutionContext, Registry};
use protocol::message::{ToAcceptor, ToGateway, ToLeader};
use protocol::{
    Ballot, Call, Command, CommandBody, CommandId, CommandNumber, Membership, Message, NodeId, Outcome, RequestId,
    StateView, Vote,
};
use storage::memory::MemoryState;
use storage::{LogRecord, LogStore, StateStore};

use super::Settings;
use super::node::{Node, genesis};

/// See the module.
pub struct Checks {
    genesis: Arc<Membership>,
    functions: Registry,
    digests: bool,
    /// Issued commands, from number 1, and the digest of the state after each.
    issued: Vec<(CommandId, [u8; 32])>,
    /// Under which membership each was issued.
    memberships: Vec<Arc<Membership>>,
    model: MemoryState,
    calls: BTreeMap<RequestId, Call>,
    acknowledged: BTreeMap<CommandNumber, RequestId>,
    /// What each linearizable read must show: all that anyone could know when it was asked for.
    reads: BTreeMap<u64, CommandNumber>,
    /// Who began a ballot, and in which of its lives.
    begun: BTreeMap<Ballot, (NodeId, u32)>,
    /// The highest promise that each node told anyone.
    promised: BTreeMap<NodeId, Ballot>,
    /// The ballot in which each node told anyone that it voted, by number.
    told: BTreeMap<NodeId, BTreeMap<CommandNumber, Ballot>>,
    /// The last durable votes.
    votes: BTreeMap<NodeId, BTreeMap<CommandNumber, Vote>>,
}

impl Checks {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            genesis: genesis(settings),
            digests: settings.digests,
            functions: Registry::with_builtins(),
            issued: Vec::new(),
            memberships: Vec::new(),
            model: MemoryState::new(),
            calls: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            reads: BTreeMap::new(),
            begun: BTreeMap::new(),
            promised: BTreeMap::new(),
            told: BTreeMap::new(),
            votes: BTreeMap::new(),
        }
    }

    /// How often the membership has changed.
    #[must_use]
    pub fn changes(&self) -> u64 {
        let numbers: std::collections::BTreeSet<CommandNumber> =
            self.memberships.iter().map(|of| of.number()).collect();
        numbers.iter().filter(|number| **number > CommandNumber::NULL).count() as u64
    }

    /// How many commands are known to be issued somewhere.
    #[must_use]
    pub fn issued(&self) -> u64 {
        self.issued.len() as u64
    }

    /// The state after the last command that is known to be issued.
    #[must_use]
    pub fn state(&self) -> &MemoryState {
        &self.model
    }

    /// How many calls were acknowledged as issued.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// Invariant 10, at the end of a run: all that was acknowledged is issued.
    ///
    /// # Panics
    /// When it is not.
    pub fn assert_nothing_acknowledged_is_lost(&self) {
        let last = self.acknowledged.last_key_value().map_or(0, |(number, _)| number.0);
        assert!(last <= self.issued(), "invariant 10: command {last} was acknowledged and is nowhere applied");
    }

    pub(super) fn called(&mut self, call: &Call) {
        self.calls.entry(call.request.clone()).or_insert_with(|| call.clone());
    }

    /// Somebody asks for a linearizable read.
    pub(super) fn reads(&mut self, id: u64) {
        let acknowledged = self.acknowledged.last_key_value().map_or(0, |(number, _)| number.0);
        self.reads.insert(id, CommandNumber(acknowledged.max(self.issued())));
    }

    pub(super) fn written(&mut self, node: NodeId, records: &[LogRecord]) {
        for record in records {
            match record {
                LogRecord::Vote(vote) => {
                    self.votes.entry(node).or_default().insert(vote.command.number(), vote.clone());
                }
                LogRecord::LastTried(_)
                | LogRecord::NextBallot(_)
                | LogRecord::Forget(_)
                | LogRecord::Standing(_)
                | LogRecord::VotedUnder(_) => {}
            }
        }
    }

    pub(super) fn sent(&mut self, node: &Node, message: &Message) {
        match message {
            Message::Acceptor(ToAcceptor::NextBallot(next)) => {
                let life = (node.id, node.life);
                let begun = *self.begun.entry(next.ballot).or_insert(life);
                assert!(next.ballot.node == node.id && begun == life, "B1: ballot {} is begun again", next.ballot);
            }
            Message::Acceptor(ToAcceptor::BeginBallot(begin)) => {
                let life = self.begun.get(&begin.ballot);
                assert_eq!(life, Some(&(node.id, node.life)), "A1b: only its leader proposes in {}", begin.ballot);
            }
            Message::Leader(ToLeader::BallotInfo(info)) => self.promises(node.id, info.ballot),
            Message::Leader(ToLeader::MyNextBal(next)) => self.promises(node.id, next.ballot),
            Message::Leader(ToLeader::Voted(voted)) => {
                self.promises(node.id, voted.ballot);
                if let Some(run) = voted.run {
                    let told = self.told.entry(node.id).or_default();
                    told.extend((run.first.0..=run.last.number.0).map(|number| (CommandNumber(number), voted.ballot)));
                }
            }
            Message::Acceptor(ToAcceptor::Rejoined(_))
            | Message::Leader(ToLeader::Rejoin(_) | ToLeader::ExecuteFunction(_) | ToLeader::ReadBarrier(_))
            | Message::Learner(_)
            | Message::FailureDetector(_)
            | Message::Gateway(_) => {}
        }
    }

    fn promises(&mut self, node: NodeId, ballot: Ballot) {
        let promised = self.promised.entry(node).or_default();
        assert!(ballot >= *promised, "invariant 3: {node} promised {promised} and says {ballot}");
        *promised = ballot;
    }

    pub(super) fn answered(&mut self, reply: &ToGateway) {
        let executed = match reply {
            ToGateway::Executed(executed) => executed,
            ToGateway::BarrierPassed(passed) => {
                let must_show = self.reads.get(&passed.id).copied().unwrap_or_default();
                let at = passed.at.unwrap_or(must_show);
                assert!(at >= must_show, "S-20: read {} shows {at}, and {must_show} was known before", passed.id);
                return;
            }
        };
        let Outcome::Issued { command, .. } = executed.outcome else { return };
        let earlier = self.acknowledged.insert(command, executed.request.clone());
        assert!(
            earlier.is_none_or(|earlier| earlier == executed.request),
            "two calls are acknowledged as command {command}"
        );
        if let Some((id, _)) = self.issued.get(index(command)) {
            self.assert_acknowledged(*id);
        }
    }

    fn assert_acknowledged(&self, id: CommandId) {
        let commands = self.model.commands(id.number, 1, usize::MAX).expect("memory does not fail");
        let body = CommandBody::decode(&commands.expect("all are kept")[0].body).expect("a body");
        let acknowledged = self.acknowledged.get(&id.number);
        assert!(
            acknowledged.is_none_or(|request| *request == body.request),
            "invariant 10: command {id} was acknowledged to {acknowledged:?} and is another call's"
        );
    }

    /// A node has applied this command as its last one.
    pub(super) fn applied(&mut self, node: &Node, command: &Command) {
        let number = index(command.number());
        if number == self.issued.len() {
            self.first_issued(command);
        }
        let (id, digest) = *self.issued.get(number).expect("invariant 7: applied is a prefix of issued");
        assert_eq!(command.id, id, "invariant 1: two commands issued at number {}", id.number);
        let theirs = self.digest_of(&node.state);
        assert_eq!(theirs, digest, "invariant 7: replicas at number {} differ, on node {}", id.number, node.id);
    }

    /// All zeros where digests are not asked for.
    fn digest_of(&self, state: &MemoryState) -> [u8; 32] {
        let digest = || state.snapshot().and_then(|snapshot| snapshot.digest()).expect("memory does not fail");
        if self.digests { digest() } else { [0; 32] }
    }

    fn first_issued(&mut self, command: &Command) {
        let id = command.id;
        let last = self.issued.last().map_or(CommandId::NULL, |(last, _)| *last);
        assert!(command.follows(last), "invariant 2: {id} is issued after {last}, which is not its precedent");
        let membership = self.membership();
        assert!(
            self.has_majority(id, &membership),
            "invariant 11: {id} is issued without the votes of a majority set of the membership in force"
        );
        self.memberships.push(membership);
        let body = CommandBody::decode(&command.body).expect("a body");
        let earlier = self.model.outcome(&body.request).expect("memory does not fail");
        assert_eq!(earlier, None, "invariant 9: the call {} has a second effect, {id}", body.request);
        self.assert_executed_after_its_precedent(id, &body);
        self.model.apply(std::slice::from_ref(command)).expect("memory does not fail");
        self.issued.push((id, self.digest_of(&self.model)));
        self.assert_acknowledged(id);
    }

    /// Invariant 8: the function, run again on the state after the precedent, decides the same.
    /// Only for built-in functions, which depend on nothing else.
    fn assert_executed_after_its_precedent(&self, id: CommandId, body: &CommandBody) {
        let (Some(call), Some(function)) = (self.calls.get(&body.request), self.functions.get(&body.function)) else {
            return;
        };
        if body.function.starts_with("cluster.") {
            // They depend on who is heard, too.
            return;
        }
        let context = ExecutionContext::new(&self.model, body.time, 0);
        let again = functions::run(function.as_ref(), context, &call.arguments);
        assert_eq!(
            (again.verdict(), &again.effects),
            (Ok(body.verdict.clone()), &body.effects),
            "invariant 8: {id} was decided on another state than that after its precedent"
        );
    }

    /// The membership in force after all that is issued.
    #[must_use]
    pub fn membership(&self) -> Arc<Membership> {
        let last = self.memberships.last().unwrap_or(&self.genesis);
        let later = last.later_in(&self.model).expect("memory does not fail");
        let Some(later) = later else { return Arc::clone(last) };
        assert_eq!(later.check_follows(last), Ok(()), "S-19: an id is given out twice");
        later
    }

    fn has_majority(&self, id: CommandId, membership: &Membership) -> bool {
        membership.majority().holds(|node| {
            self.votes.get(&node).and_then(|votes| votes.get(&id.number)).is_some_and(|vote| vote.command.id == id)
        })
    }

    /// After every input of a node that is still up.
    pub(super) fn looked_at(&self, node: &Node) {
        let Some(roles) = &node.roles else { return };
        let promise = roles.acceptor.next_ballot();
        let told = self.promised.get(&node.id).copied().unwrap_or_default();
        assert!(promise >= told, "invariant 3: {} promised {told} and holds {promise}", node.id);
        assert!(roles.acceptor.votes().all(|vote| vote.ballot <= promise), "invariant 3: a vote above the promise");
        assert_eq!(roles.learner.issued(), node.state.applied(), "what is issued is applied");
    }

    /// A node is back: what it told anyone before is on its disk (claim 6), and every issued
    /// command is still in the votes of a majority set.
    pub(super) fn restarted(&self, node: &Node) {
        let image = node.log.load(CommandNumber::NULL).expect("memory does not fail");
        let promised = self.promised.get(&node.id).copied().unwrap_or_default();
        assert!(image.next_ballot >= promised, "A6: the promise {promised} of {} is lost", node.id);
        let stored: BTreeMap<_, _> = image.votes.iter().map(|vote| (vote.command.number(), vote.ballot)).collect();
        for (number, ballot) in self.told.get(&node.id).into_iter().flatten() {
            let vote = stored.get(number);
            assert!(vote.is_some_and(|vote| vote >= ballot), "A6: the vote of {} at {number} is lost", node.id);
        }
        for ((id, _), membership) in self.issued.iter().zip(&self.memberships) {
            assert!(self.has_majority(*id, membership), "invariant 11: {id} has lost its votes");
        }
        self.looked_at(node);
    }
}

fn index(number: CommandNumber) -> usize {
    usize::try_from(number.0.checked_sub(1).expect("a command has a number from 1")).expect("a short run")
}
