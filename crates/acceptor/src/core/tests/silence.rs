//! Silence, case by case: who is silent, what it says all the same, and what ends it.

use protocol::message::{Rejoin, Rejoined};
use storage::Standing;

use super::*;

const NONCE: u64 = 7;

/// A node whose log was damaged when its promise was `promise`.
fn damaged(promise: Ballot) -> Node {
    let log = LogImage { next_ballot: promise, standing: Standing::Damaged, ..LogImage::default() };
    Node { acceptor: Acceptor::new(config(), log.clone(), CommandId::NULL), log }
}

fn with_standing(standing: Standing) -> Node {
    let log = LogImage { standing, ..LogImage::default() };
    Node { acceptor: Acceptor::new(config(), log.clone(), CommandId::NULL), log }
}

fn rejoined(ballot: Ballot, nonce: u64, last: u64) -> Input {
    rejoined_under(0, ballot, nonce, last)
}

fn rejoined_under(membership: u64, ballot: Ballot, nonce: u64, last: u64) -> Input {
    let (last, membership) = (CommandNumber(last), CommandNumber(membership));
    let message = ToAcceptor::Rejoined(Rejoined { ballot, nonce, last, membership });
    Input::Message { from: ballot.node, message }
}

fn asks(ballot: Ballot) -> Effect {
    Effect::Send { to: ballot.node, message: Message::Leader(ToLeader::Rejoin(Rejoin { ballot, nonce: NONCE })) }
}

fn silent() -> Effect {
    Effect::Ignored(IgnoreReason::Silent)
}

fn sound() -> Effect {
    Effect::Persist(LogRecord::Standing(Standing::Sound))
}

fn forget(number: u64) -> Effect {
    Effect::Persist(LogRecord::Forget(CommandNumber(number)))
}

/// S-13, S-14: catches a damaged acceptor that promises, votes, keeps the bodies from its learner, or
/// speaks before its state is *durable* up to the last command that the leader proposed, or waits for more when
/// it is answered again; one that does not keep what it needs for a later loss of its state; and one that is silent
/// again after a reboot.
#[test]
fn damage_silences_until_the_state_is_durable_up_to_the_last_proposed_command() {
    let mut node = damaged(ballot(3));
    let commands = chain(ballot(4), CommandId::NULL, 4);
    assert_eq!(node.acceptor.silence(), Some(Silence::Damaged));
    assert_eq!(node.next_ballot(ballot(4), 1), [silent()]);
    let proposed = Effect::Proposed { ballot: ballot(4), commands: commands[..2].to_vec() };
    assert_eq!(node.begin(ballot(4), &commands[..2], 1), [proposed.clone(), asks(ballot(4))]);
    assert_eq!(node.begin(ballot(4), &commands[..2], 1), [proposed, asks(ballot(4))], "the question may be lost");
    assert_eq!(node.handle(rejoined(ballot(4), NONCE, 3)), []);
    assert_eq!(node.begin(ballot(4), &[], 2), [silent()], "nothing is left to ask of this leader");
    let late = [Effect::Ignored(IgnoreReason::NotAsked)];
    assert_eq!(
        node.handle(rejoined(ballot(4), NONCE, 4)),
        late,
        "the question was asked twice: the first answer is enough"
    );
    assert_eq!(node.handle(Input::Issued(commands[3].id)), [], "what is issued may still be lost with the power");
    assert_eq!(node.begin(ballot(4), &commands[3..], 2), [silent()], "its learner has these bodies");
    assert_eq!(node.handle(Input::Forget(CommandNumber(2))), [forget(2)]);
    assert_eq!(node.acceptor.silence(), Some(Silence::Damaged));
    let raised = Effect::Persist(LogRecord::NextBallot(ballot(4)));
    assert_eq!(node.handle(Input::Forget(CommandNumber(3))), [forget(3), raised, sound(), Effect::Speaks]);
    node.reboot(commands[3].id);
    assert_eq!(node.acceptor.silence(), None);
    let next = command(ballot(4), 5, commands[3].id);
    let effects = node.begin(ballot(4), std::slice::from_ref(&next), 3);
    assert_eq!(effects.last(), Some(&voted(ballot(4), Some((5, next.id)), 3)));
}

/// Catches answers being taken that prove nothing: to an earlier start (votes may have been lost since),
/// of a ballot below the promise (votes of the promised ballot are not covered), from a node that does
/// not own the ballot, or unasked.
#[test]
fn only_the_answer_to_its_own_question_counts() {
    let mut node = damaged(rival(3));
    let before = node.acceptor.clone();
    let (last, membership) = (CommandNumber::NULL, CommandNumber::NULL);
    let stolen = Rejoined { ballot: ballot(4), nonce: NONCE, last, membership };
    let cases = [
        rejoined(ballot(4), NONCE + 1, 0),
        rejoined(ballot(3), NONCE, 0),
        Input::Message { from: RIVAL, message: ToAcceptor::Rejoined(stolen) },
    ];
    for input in cases {
        assert_eq!(node.handle(input.clone()), [Effect::Ignored(IgnoreReason::NotAsked)], "{input:?}");
        assert_eq!(node.acceptor, before, "{input:?}");
    }
    let mut sound = fresh();
    assert_eq!(sound.handle(rejoined(ballot(4), NONCE, 0)), [Effect::Ignored(IgnoreReason::NotAsked)]);
}

/// Catches a promise that is forgotten together with the votes: it is exact, and lower ballots hear so.
/// Without that they could go on for as long as they liked beside an acceptor that cannot rejoin them.
#[test]
fn a_silent_acceptor_still_refuses_ballots_below_its_promise() {
    let mut node = damaged(rival(3));
    assert_eq!(node.next_ballot(ballot(3), 1), [refused(rival(3), ballot(3))]);
    assert_eq!(node.begin(ballot(3), &[], 1), [refused(rival(3), ballot(3))]);
}

/// Liveness: catches an acceptor that waits for ever for the commands of a leader that died with them.
/// The answer of a later leader, which proposed fewer, is as good; that of an earlier one is late.
#[test]
fn the_answer_of_the_highest_ballot_counts() {
    let mut node = damaged(ballot(3));
    node.handle(rejoined(ballot(3), NONCE, 9));
    assert_eq!(node.begin(rival(4), &[], 1), [asks(rival(4))]);
    assert_eq!(
        node.handle(rejoined(rival(4), NONCE, 0)),
        [Effect::Persist(LogRecord::NextBallot(rival(4))), sound(), Effect::Speaks]
    );
    assert_eq!(node.handle(rejoined(ballot(3), NONCE, 9)), [Effect::Ignored(IgnoreReason::NotAsked)]);
}

/// ADR 0026: this acceptor voted above the change with number 5, and lost that vote. Catches an answer that leaves it
/// out being taken: that of a leader which does not know the change, in whatever ballot; and one of such a leader that is
/// preferred to one under the change for its higher ballot, and may never come true.
#[test]
fn only_a_leader_under_no_earlier_membership_is_believed() {
    let mut node = damaged(ballot(3));
    node.log.voted_under = CommandNumber(5);
    node.reboot(CommandId::NULL);
    let earlier = Effect::Ignored(IgnoreReason::EarlierMembership);
    assert_eq!(node.handle(rejoined_under(0, rival(9), NONCE, 0)), std::slice::from_ref(&earlier));
    assert_eq!(node.handle(rejoined_under(4, rival(9), NONCE, 4)), [earlier]);
    assert_eq!(node.begin(rival(9), &[], 1), [asks(rival(9))], "it is still asked, since it may learn of the change");
    assert_eq!(node.handle(rejoined_under(5, rival(9), NONCE, 20)), []);
    assert_eq!(node.handle(rejoined_under(5, ballot(8), NONCE, 7)), [Effect::Ignored(IgnoreReason::NotAsked)]);
    assert_eq!(node.handle(rejoined_under(6, ballot(8), NONCE, 7)), [], "a later membership, and a lower ballot");
    node.handle(Input::Issued(id(ballot(8), 7)));
    let raised = Effect::Persist(LogRecord::NextBallot(ballot(8)));
    assert_eq!(node.handle(Input::Forget(CommandNumber(7))), [forget(7), raised, sound(), Effect::Speaks]);
    assert_eq!(node.acceptor.voted_under, CommandNumber(5), "it has not voted under another one");
}

/// Liveness: catches a damaged acceptor of an idle cluster that nobody asks, for its leader has had all the answers
/// that it needs from an earlier life of this node: it promised while the leader was still catching up, or its late vote
/// arrived after its new connection. It must ask by itself, and as often as it is told who leads until it is
/// answered; a leader below its promise must hear of that.
#[test]
fn an_idle_leader_is_asked_unasked() {
    let mut node = damaged(ballot(3));
    assert_eq!(node.handle(Input::Led(ballot(3))), [asks(ballot(3))]);
    assert_eq!(node.handle(Input::Led(ballot(3))), [asks(ballot(3))], "the question may be lost");
    assert_eq!(node.handle(Input::Led(rival(2))), [refused(ballot(3), rival(2))]);
    assert_eq!(node.handle(rejoined(ballot(3), NONCE, 1)), []);
    assert_eq!(node.handle(Input::Led(ballot(3))), [silent()], "it has its answer");
    node.handle(Input::Issued(id(ballot(3), 1)));
    assert_eq!(node.handle(Input::Forget(CommandNumber(1))), [forget(1), sound(), Effect::Speaks]);
    assert_eq!(node.handle(Input::Led(ballot(3))), []);
}

/// Catches a promise that goes down, or is written again, when the rejoined ballot is the promised one.
#[test]
fn rejoining_the_promised_ballot_leaves_the_promise() {
    let mut node = damaged(ballot(3));
    assert_eq!(node.handle(rejoined(ballot(3), NONCE, 0)), [sound(), Effect::Speaks]);
    assert_eq!(node.acceptor.next_ballot(), ballot(3));
}

/// Invariant 11: catches a node that answers for numbers whose votes it forgot because its state had them,
/// after the state was lost; and one that stays silent when the state has them again. Its votes above are
/// as they were.
#[test]
fn a_state_below_the_forgotten_votes_silences_until_it_is_back() {
    let above = vote(ballot(1), &command(ballot(1), 4, id(ballot(1), 3)));
    let log = LogImage {
        next_ballot: ballot(1),
        forgotten: CommandNumber(3),
        votes: vec![above.clone()],
        ..LogImage::default()
    };
    let mut node = Node { acceptor: Acceptor::new(config(), log.clone(), CommandId::NULL), log };
    assert_eq!(node.acceptor.silence(), Some(Silence::Behind));
    assert_eq!(node.next_ballot(rival(2), 1), [silent()]);
    assert_eq!(node.begin(ballot(1), &[], 1), [silent()], "no vote is lost: nothing to ask");
    node.handle(Input::Issued(id(ballot(1), 3)));
    assert_eq!(node.handle(Input::Forget(CommandNumber(2))), []);
    assert_eq!(node.handle(Input::Forget(CommandNumber(3))), [Effect::Speaks], "nothing is to be written");
    let expected = info(rival(2), 4, id(ballot(1), 3), vec![above]);
    assert_eq!(node.next_ballot(rival(2), 4).last(), Some(&expected));
}

/// Catches a damaged log together with a lost state that speaks when one of the two is mended.
#[test]
fn damage_and_a_lost_state_both_end_before_it_speaks() {
    let mut log = damaged(ballot(1)).log;
    log.forgotten = CommandNumber(3);
    let mut node = Node { acceptor: Acceptor::new(config(), log.clone(), CommandId::NULL), log };
    node.handle(rejoined(ballot(1), NONCE, 2));
    node.handle(Input::Issued(id(ballot(1), 5)));
    assert_eq!(node.handle(Input::Forget(CommandNumber(2))), []);
    assert_eq!(node.acceptor.silence(), Some(Silence::Damaged));
    assert_eq!(node.handle(Input::Forget(CommandNumber(4))), [forget(4), sound(), Effect::Speaks]);
}

/// S-16: catches a new disk that speaks before enough of the others have noted it (the one before it may
/// have promised anything), that counts itself, one peer twice or a stranger, and one that begins anew after
/// a reboot.
#[test]
fn a_fresh_disk_speaks_when_enough_of_the_others_have_noted_it() {
    let mut node = with_standing(Standing::Fresh);
    assert_eq!(node.acceptor.silence(), Some(Silence::Fresh));
    assert_eq!(node.next_ballot(ballot(1), 1), [silent()]);
    assert_eq!(node.begin(ballot(1), &[], 1), [silent()], "there is no promise to go by: nothing to ask");
    for peer in [NodeId(2), NodeId(9), LEADER, LEADER] {
        assert_eq!(node.handle(Input::Noted(peer)), [], "{peer}");
    }
    assert_eq!(node.handle(Input::Noted(RIVAL)), [sound(), Effect::Speaks]);
    assert_eq!(node.handle(Input::Noted(RIVAL)), [], "told at each connection");
    node.reboot(CommandId::NULL);
    assert_eq!(node.acceptor.silence(), None);
}

/// Catches a cluster of one node that waits for others, and one of two that does not.
#[test]
fn one_node_has_nobody_to_wait_for() {
    let of = |nodes: &[NodeId]| {
        let image = LogImage { standing: Standing::Fresh, ..LogImage::default() };
        let acceptors = MajoritySets::simple(nodes.iter().copied()).expect("nodes");
        Acceptor::new(
            Config { acceptors: acceptors.into(), learners: nodes.to_vec(), ..config() },
            image,
            CommandId::NULL,
        )
    };
    let mut one = of(&[NodeId(2)]);
    assert_eq!(one.silence(), None);
    // Catches one that votes while its disk says that it never has: damaged when there are others, it would be let in.
    let mut effects = Vec::new();
    one.handle(Input::Space(Space::Ample), &mut effects);
    assert_eq!(effects, [sound()]);
    let mut two = of(&[LEADER, NodeId(2)]);
    let mut effects = Vec::new();
    two.handle(Input::Noted(LEADER), &mut effects);
    assert_eq!(effects, [sound(), Effect::Speaks]);
}

/// S-16: so many disks as a cluster stands are lost at once, unknown to the operator, and those who did not start
/// before start now. Catches new disks that speak with notes of those only who know nothing of the lost ones,
/// while the others are cut off: a command could be issued at a number that has one.
#[test]
fn lost_disks_do_not_admit_each_other() {
    let simple = |count| MajoritySets::simple((1..=count).map(NodeId)).expect("nodes");
    let weighted = MajoritySets::weighted((1..=5).map(|node| (NodeId(node), if node == 1 { 3 } else { 1 })));
    let needed = |acceptors: &MajoritySets| notes_needed(acceptors, NodeId(2));
    assert_eq!([2, 3, 4, 5, 6, 7].map(|count| needed(&simple(count))), [1, 2, 2, 3, 4, 5]);
    for acceptors in (2..=9).map(simple).chain([weighted.expect("weights")]) {
        let learners: Vec<NodeId> = acceptors.nodes().iter().copied().collect();
        let config = Config { acceptors: acceptors.clone().into(), learners, ..config() };
        let log = LogImage { standing: Standing::Fresh, ..LogImage::default() };
        let speaks = |noted: &[NodeId]| {
            let mut acceptor = Acceptor::new(config.clone(), log.clone(), CommandId::NULL);
            noted.iter().for_each(|peer| acceptor.handle(Input::Noted(*peer), &mut Vec::new()));
            acceptor.silence().is_none()
        };
        let others: Vec<NodeId> = acceptors.nodes().iter().copied().filter(|node| *node != config.me).collect();
        assert!(speaks(&others) && speaks(&others[..needed(&acceptors)]));
        // The first disk was noted by no more than had to. Whoever of them has lost nothing knows it.
        let lost = acceptors.losses_max().saturating_sub(1);
        let knowing = &others[lost..needed(&acceptors)];
        let ignorant: Vec<NodeId> = others.iter().copied().filter(|node| !knowing.contains(node)).collect();
        assert!(!knowing.is_empty() && !speaks(&ignorant), "{ignorant:?} of {acceptors:?}");
    }
}

/// S-16: catches a disk that took the place of a lost one and speaks for the node, whoever notes it and
/// however much it learns.
#[test]
fn a_replaced_disk_is_silent_for_ever() {
    let mut node = with_standing(Standing::Replaced);
    let commands = chain(ballot(1), CommandId::NULL, 2);
    let proposed = Effect::Proposed { ballot: ballot(1), commands: commands.clone() };
    assert_eq!(node.begin(ballot(1), &commands, 1), [proposed, silent()], "its learner learns as any other");
    node.handle(Input::Issued(commands[1].id));
    for input in
        [Input::Noted(LEADER), Input::Noted(RIVAL), rejoined(ballot(1), NONCE, 0), Input::Forget(CommandNumber(2))]
    {
        assert!(!node.handle(input).contains(&Effect::Speaks));
    }
    assert_eq!(node.acceptor.silence(), Some(Silence::Replaced));
}

/// B1: catches a node that begins ballots beside a disk that may know of others, and one that leaves the cluster
/// without a leader although it knows all that it has begun.
#[test]
fn who_may_have_begun_unknown_ballots_is_barred() {
    let mut behind = with_standing(Standing::Sound).log;
    behind.forgotten = CommandNumber(3);
    let behind = Acceptor::new(config(), behind, CommandId::NULL);
    assert_eq!((behind.silence(), behind.is_barred()), (Some(Silence::Behind), false));
    let standings = [Standing::Sound, Standing::Damaged, Standing::Fresh, Standing::Replaced];
    assert_eq!(standings.map(|standing| with_standing(standing).acceptor.is_barred()), [false, false, true, true]);
}
