//! Everybody who watches a world: the invariants, which end a run, and others who only look.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use protocol::{CommandNumber, Membership, NodeId, Now};

use crate::fact::{Fact, Observer};
use crate::invariants::{Invariants, Kept};
use crate::tally::Tally;
use crate::trace::{Hasher, Log};

/// See the module.
pub struct Watchers {
    invariants: Invariants,
    /// Counts.
    pub tally: Tally,
    /// One number for all that happened.
    pub hasher: Hasher,
    /// The last of what happened.
    pub log: Log,
    others: Vec<Box<dyn Observer>>,
}

impl Watchers {
    /// The invariants, and the log of the last `lines` facts.
    #[must_use]
    pub fn new(invariants: Invariants, lines: usize) -> Self {
        Self { invariants, tally: Tally::default(), hasher: Hasher::new(), log: Log::new(lines), others: Vec::new() }
    }

    /// One more.
    pub fn add(&mut self, observer: Box<dyn Observer>) {
        self.others.push(observer);
    }

    /// Something happened. The log has it before the invariants can object to it.
    pub fn tell(&mut self, now: Now, fact: &Fact) {
        self.tally.observe(now, fact);
        self.hasher.observe(now, fact);
        self.log.observe(now, fact);
        for other in &mut self.others {
            other.observe(now, fact);
        }
        self.invariants.observe(now, fact);
    }

    /// The first broken invariant.
    #[must_use]
    pub fn broken(&self) -> Option<String> {
        self.invariants.broken().map(str::to_owned)
    }

    /// Whether these nodes hold a majority set, of each membership whose acceptors are needed.
    #[must_use]
    pub fn hold(&self, present: impl Fn(NodeId) -> bool) -> bool {
        self.invariants.history().disks.hold(present)
    }

    /// The membership in force, and how often it has changed.
    #[must_use]
    pub fn membership(&self) -> (&Arc<Membership>, u64) {
        self.invariants.history().disks.membership()
    }

    /// Whether a change of the membership is decided, and nothing above it.
    #[must_use]
    pub fn is_in_change(&self) -> bool {
        self.invariants.history().disks.is_in_change()
    }

    /// Whether a node is a member, or was one before such a change.
    #[must_use]
    pub fn is_needed(&self, node: NodeId) -> bool {
        self.invariants.history().disks.is_needed(node)
    }

    /// The highest decided number.
    #[must_use]
    pub fn last_decided(&self) -> CommandNumber {
        self.invariants.history().disks.last_decided()
    }

    /// Outcomes are kept for so long.
    pub fn keep_outcomes(&mut self, kept: Kept) {
        self.invariants.keep_outcomes(kept);
    }

    /// This node has not the role of a leader, whatever the membership says.
    pub fn never_leads(&mut self, node: NodeId) {
        self.invariants.never_leads(node);
    }

    /// In this world more may be damaged than a cluster stands.
    pub fn expect_ruin(&mut self) {
        self.invariants.expect_ruin();
    }

    /// Whether a majority set can speak, and somebody may lead.
    #[must_use]
    pub fn can_decide(&self) -> bool {
        self.invariants.history().disks.can_decide()
    }

    /// What it lacks when that is not so, of [`Disks::WHY_STUCK`].
    #[must_use]
    pub fn why_stuck(&self) -> usize {
        self.invariants.history().disks.why_stuck()
    }

    /// The same, were these the core.
    #[must_use]
    pub fn could_decide(&self, core: &BTreeSet<NodeId>) -> bool {
        self.invariants.history().disks.could_decide(Some(core))
    }

    /// The longest that an answer took after the faults, the patience of its caller aside.
    #[must_use]
    pub fn slowest_answer(&self) -> Duration {
        self.invariants.slowest_answer()
    }

    /// The run is over.
    pub fn end(&mut self, now: Now) {
        self.invariants.end(now);
        self.tally.outcomes = self.invariants.history().chain.forgotten();
    }
}

/// A watcher that somebody else keeps as well, to ask it afterwards.
impl<T: Observer> Observer for Rc<RefCell<T>> {
    fn observe(&mut self, now: Now, fact: &Fact) {
        self.borrow_mut().observe(now, fact);
    }
}
