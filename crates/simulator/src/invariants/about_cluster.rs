//! Functions about the cluster, run again. What they decide depends on who is heard and how far each is, which nobody
//! else knows. But all that can do is refuse: where such a call was not refused, it decides the same when all members are
//! heard and well; a node that joins in the place of a member, when all but that one are.

use std::collections::BTreeMap;

use functions::{Cluster, Execution, ExecutionContext, Function, Heard};
use protocol::{Call, CommandNumber, Membership, NodeId, StateView, Timestamp, Verdict, membership};

/// Codes of refusals for the sake of what is heard.
const OF_HEARD: [&str; 9] = [
    "another_change",
    "may_not_lead",
    "no_room",
    "nobody_may_lead",
    "not_caught_up",
    "not_connected",
    "not_heard",
    "still_heard",
    "would_lose_majority",
];

/// Whether a function is one of these.
pub(super) fn is_about_cluster(function: &str) -> bool {
    function.starts_with("cluster.")
}

/// What it says when it is run again on a state.
pub(super) struct AboutCluster<'a> {
    pub(super) function: &'a dyn Function,
    pub(super) call: &'a Call,
    pub(super) state: &'a dyn StateView,
    /// In force where the state has no other one.
    pub(super) genesis: &'a Membership,
}

impl AboutCluster<'_> {
    /// Whether one of these nodes, leading, may have decided so; any member, when they are not known.
    pub(super) fn decides(&self, verdict: &Verdict, of: impl Fn(&Execution) -> bool, led_by: Option<NodeId>) -> bool {
        if matches!(verdict, Verdict::Refused { code, .. } if OF_HEARD.contains(&code.as_str())) {
            return true;
        }
        let entry = self.state.get(&membership::key()).ok().flatten();
        let later = entry.and_then(|entry| Membership::read(&entry).ok());
        let members: Vec<NodeId> = later.as_ref().unwrap_or(self.genesis).learners().collect();
        let leads = |me: &NodeId| led_by.is_none_or(|led_by| led_by == *me);
        let absent = members.iter().copied().filter(|_| self.call.function == "cluster.join").map(Some);
        let absent: Vec<Option<NodeId>> = [None].into_iter().chain(absent).collect();
        let leaders = members.iter().copied().chain(led_by).filter(leads);
        leaders.into_iter().any(|me| {
            absent.iter().any(|absent| {
                let again = self.again(me, &members, *absent);
                again.verdict().as_ref() == Ok(verdict) && of(&again)
            })
        })
    }

    fn again(&self, me: NodeId, members: &[NodeId], absent: Option<NodeId>) -> Execution {
        let all = || members.iter().copied().filter(|node| Some(*node) != absent);
        let heard: BTreeMap<NodeId, Heard> =
            all().map(|node| (node, Heard::well(CommandNumber(u64::MAX), all()))).collect();
        let cluster = Cluster { me, membership: self.genesis, heard: &|| heard.clone(), votes: &|_| true };
        let context = ExecutionContext::new(self.state, Timestamp(0), 0).of(cluster);
        functions::run(self.function, context, &self.call.arguments)
    }
}
