//! How far a change of the membership has come, for operators: pure.

use std::collections::BTreeMap;

use failure_detector::core::View;
use functions::{Heard, is_in_force};
use http_api::backend::{ChangeView, MemberView};
use protocol::{CommandNumber, Membership, NodeId};

/// How far the change has come that made this membership; nothing where all members have applied it. Of who is not heard what it
/// said last counts; of who has said nothing since this node began, nothing, so it seems to wait. A leader may refuse the next change
/// for longer than this is not in force: it asks for promises, too.
pub(super) fn change(membership: &Membership, heard: &BTreeMap<NodeId, Heard>, view: &View) -> Option<ChangeView> {
    let last = |node: NodeId| view.peers.get(&node)?.last.as_ref().map(|last| last.applied);
    let applied = |node: NodeId| heard.get(&node).map(|heard| heard.applied).or_else(|| last(node)).unwrap_or_default();
    let waits = |node: &NodeId| applied(*node) < membership.number();
    if membership.number() == CommandNumber::NULL || !membership.learners().any(|node| waits(&node)) {
        return None;
    }
    let members = membership.nodes().iter().filter(|(id, _)| waits(id));
    let not_applied = members.map(|(id, member)| MemberView { id: id.0, name: member.name.clone() }).collect();
    Some(ChangeView { in_force: is_in_force(membership, heard), not_applied })
}

#[cfg(test)]
mod tests {
    use failure_detector::core::PeerView;
    use protocol::message::Heartbeat;

    use super::*;

    /// Catches a change that is called done while a member has not applied it, one that is called in force before the next one
    /// would be taken, and a first membership that waits for nodes which have applied nothing yet.
    #[test]
    fn a_change_is_over_when_all_have_applied_it() {
        let genesis = Membership::of_equals(3);
        let changed = genesis.weighing(NodeId(3), 2).expect("all vote").written_by(CommandNumber(17));
        let heard = |applied: [u64; 3]| {
            let all = (1..).map(NodeId).zip(applied);
            all.map(|(node, applied)| (node, Heard::well(CommandNumber(applied), []))).collect::<BTreeMap<_, _>>()
        };
        let now = |applied| change(&changed, &heard(applied), &View::default());
        let waits = |in_force, ids: &[u64]| {
            let not_applied = ids.iter().map(|id| MemberView { id: *id, name: format!("n{id}") }).collect();
            Some(ChangeView { in_force, not_applied })
        };
        assert_eq!(change(&genesis, &BTreeMap::new(), &View::default()), None);
        assert_eq!(now([17, 17, 17]), None);
        assert_eq!(now([17, 16, 18]), waits(true, &[2]));
        // Of four votes node 3 has two.
        assert_eq!(now([17, 17, 16]), waits(false, &[3]));
        let mut away = heard([17, 0, 17]);
        away.remove(&NodeId(2));
        let said = |applied| {
            let last = Some(Heartbeat { applied: CommandNumber(applied), ..Heartbeat::default() });
            View { peers: [(NodeId(2), PeerView { last, ..PeerView::default() })].into(), ..View::default() }
        };
        assert_eq!(change(&changed, &away, &said(16)), waits(true, &[2]), "it is not heard any more");
        assert_eq!(change(&changed, &away, &said(17)), None, "it had applied it");
        let mut silent = heard([17, 16, 17]);
        silent.get_mut(&NodeId(3)).expect("it is heard").speaks = false;
        assert_eq!(change(&changed, &silent, &View::default()), waits(false, &[2]));
    }
}
