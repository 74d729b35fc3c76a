//! Charts of hand-made facts.

use bytes::Bytes;
use protocol::message::{BeginBallot, Heartbeat, NextBallot, ToAcceptor, ToLeader, Voted};
use protocol::{
    Ballot, Call, Command, CommandId, CommandNumber, Fingerprint, Message, NodeId, Now, Outcome, RequestId, Run, Tick,
    Timestamp,
};

use super::{Chart, Settings};
use crate::fact::{Fact, Observer as _, Question, Stop, Told};
use crate::fault::{Fault, Shape};

const P: NodeId = NodeId(1);
const Q: NodeId = NodeId(2);
const R: NodeId = NodeId(3);
const BALLOT: Ballot = Ballot::new(17, P);

fn at(millis: u64) -> Now {
    Now { tick: Tick(millis * 1_000), wall: Timestamp(millis) }
}

fn next_ballot() -> Message {
    Message::Acceptor(ToAcceptor::NextBallot(NextBallot { ballot: BALLOT, first: CommandNumber(1) }))
}

fn begin(round: u64) -> Message {
    Message::Acceptor(ToAcceptor::BeginBallot(BeginBallot {
        ballot: BALLOT,
        commands: vec![],
        round,
        membership: CommandNumber::NULL,
    }))
}

fn voted(number: u64) -> Message {
    let run = Run { first: CommandNumber(number), last: CommandId::new(BALLOT, CommandNumber(number)) };
    Message::Leader(ToLeader::Voted(Voted {
        ballot: BALLOT,
        run: Some(run),
        round: 1,
        membership: CommandNumber::NULL,
    }))
}

fn sent(from: NodeId, to: NodeId, message: Message) -> Fact {
    Fact::Sent { from, to, message }
}

fn delivered(from: NodeId, to: NodeId, message: Message) -> Fact {
    Fact::Delivered { from, to, message }
}

fn applied(node: NodeId, number: u64) -> Fact {
    let id = CommandId::new(BALLOT, CommandNumber(number));
    let precedent = CommandId::new(BALLOT, CommandNumber(number - 1));
    Fact::Applied { node, command: Command { id, precedent, body: Bytes::new() }, digest: None }
}

fn chart(settings: Settings, facts: impl IntoIterator<Item = Fact>) -> String {
    let mut chart = Chart::new([P, Q, R], settings);
    for (index, fact) in facts.into_iter().enumerate() {
        chart.observe(at(index as u64), &fact);
    }
    chart.svg()
}

fn plain(facts: impl IntoIterator<Item = Fact>) -> String {
    chart(Settings::default(), facts)
}

fn count(svg: &str, what: &str) -> usize {
    svg.matches(what).count()
}

/// How many arrows of messages, whole ones and stubs.
fn arrows(svg: &str) -> usize {
    count(svg, "<path class=\"arrow")
}

/// Catches a chart without its lanes, with an arrow too few or too many, one whose message
/// cannot be read, and a node's own messages drawn.
#[test]
fn a_message_is_an_arrow_with_its_name() {
    let svg = plain([sent(P, P, next_ballot()), sent(P, Q, next_ballot()), delivered(P, Q, next_ballot())]);
    for name in ["p", "q", "r"] {
        assert_eq!(count(&svg, &format!(">{name}</text>")), 2, "{name} stands above and below");
    }
    assert_eq!(count(&svg, "<line class=\"lane\""), 3);
    assert_eq!(arrows(&svg), 1);
    assert_eq!(count(&svg, ">NextBallot 17.1 from 1<"), 1);
    assert!(svg.contains("p -&gt; q NextBallot(17.1, first 1)</title>"), "the title is the whole message");
    assert_eq!(count(&svg, "class=\"cross\""), 0);
}

/// Catches a lost message that looks like one that arrived, and one under way that looks like either.
#[test]
fn a_lost_message_ends_in_a_cross_and_one_under_way_in_a_stub() {
    let lost = plain([sent(P, R, voted(1)), Fact::Lost { from: P, to: R, message: voted(1) }]);
    assert_eq!((arrows(&lost), count(&lost, "class=\"cross\""), count(&lost, "marker-end")), (1, 1, 0));
    let under_way = plain([sent(P, R, voted(1))]);
    assert_eq!((arrows(&under_way), count(&under_way, "class=\"cross\"")), (1, 0));
    assert_eq!(count(&under_way, "class=\"arrow way\""), 1);
}

/// Catches copies that the network made being left out or taken for another sending, and an
/// arrival whose sending is not shown being forgotten.
#[test]
fn copies_leave_from_one_place() {
    let copies = plain([sent(P, Q, voted(1)), delivered(P, Q, voted(1)), delivered(P, Q, voted(1))]);
    assert_eq!((arrows(&copies), count(&copies, ">Voted 17.1: 1<")), (2, 1));
    assert!(copies.contains("(another copy)</title>"));
    let earlier = plain([delivered(P, Q, voted(1))]);
    assert!(earlier.contains("(sent earlier)</title>"));
}

/// Catches a message to all that bears its label once for each receiver.
#[test]
fn a_message_to_several_has_one_label() {
    let mut chart = Chart::new([P, Q, R], Settings::default());
    for to in [Q, R] {
        chart.observe(at(1), &sent(P, to, next_ballot()));
    }
    let svg = chart.svg();
    assert_eq!((arrows(&svg), count(&svg, ">NextBallot 17.1 from 1<")), (2, 1));
}

/// Catches repetitions that are not merged when asked for, merged when not, or merged over
/// another message in between.
#[test]
fn repetitions_are_merged_on_demand() {
    let facts = || {
        let (again, other) = (sent(P, Q, begin(1)), sent(P, Q, begin(2)));
        let arrives = delivered(P, Q, begin(1));
        [again.clone(), again.clone(), arrives.clone(), arrives, other, again]
    };
    let merged = chart(Settings { merge: true, ..Settings::default() }, facts());
    assert_eq!(arrows(&merged), 3);
    assert_eq!(count(&merged, "round 1 (2 times)"), 1);
    assert_eq!(arrows(&plain(facts())), 4);
}

/// Catches one copy that was lost and another that arrived later drawn as one arrow over all the
/// time between, and an arrow across pages.
#[test]
fn a_copy_that_arrives_is_not_merged_with_a_lost_one() {
    let again = sent(P, Q, voted(1));
    let lost = Fact::Lost { from: P, to: Q, message: voted(1) };
    let facts = [again.clone(), lost.clone(), again.clone(), lost, again, delivered(P, Q, voted(1))];
    let svg = chart(Settings { merge: true, ..Settings::default() }, facts);
    assert_eq!((arrows(&svg), count(&svg, "class=\"cross\""), count(&svg, "(2 times)")), (2, 1, 1));
    let others = (2..50).map(|number| sent(P, R, voted(number)));
    let long = [sent(P, Q, voted(1))].into_iter().chain(others).chain([delivered(P, Q, voted(1))]);
    let stubs = count(&plain(long), "p -&gt; q Voted(17.1, round 1, 1 to 1@17.1)</title></path>");
    assert_eq!(stubs, 2, "its beginning and its end");
}

/// Catches heartbeats that hide all else, or that cannot be had.
#[test]
fn heartbeats_are_drawn_on_demand() {
    let heartbeat = || [sent(P, Q, Message::FailureDetector(Heartbeat::default()))];
    assert_eq!(arrows(&plain(heartbeat())), 0);
    assert_eq!(arrows(&chart(Settings { heartbeats: true, ..Settings::default() }, heartbeat())), 1);
}

/// Catches a crash, a return, a lead or an applied command that the lane does not show.
#[test]
fn lanes_show_crashes_leads_and_commands() {
    let up = Fact::Started {
        node: P,
        life: 2,
        log: storage::LogImage::default(),
        applied: CommandId::NULL,
        digest: [0; 32],
    };
    let leads = Fact::Leads { node: P, ballot: Some(BALLOT) };
    let svg = plain([leads, Fact::Stopped { node: P, why: Stop::PowerCut }, up, applied(Q, 7)]);
    assert_eq!(count(&svg, "class=\"leads\""), 1, "the lead ends with the crash");
    assert_eq!(count(&svg, "class=\"lane down\""), 1);
    for text in ["leads 17.1", "power cut", "is up again", "7", "ballot 17.1"] {
        assert_eq!(count(&svg, &format!(">{text}</text>")), 1, "{text}");
    }
}

/// Catches a node that joins or comes back and has no lane, one whose lane begins before it does, and its messages left
/// out; also when its beginning came before the first row.
#[test]
fn a_node_that_joins_has_a_lane() {
    let (joined, returned) = (NodeId(4), NodeId(5));
    let up = |node| Fact::Started {
        node,
        life: 1,
        log: storage::LogImage::default(),
        applied: CommandId::NULL,
        digest: [0; 32],
    };
    let facts = || {
        let beginning = [sent(P, Q, voted(1)), delivered(P, Q, voted(1))];
        let joins = [Fact::Fault(Fault::Join(joined)), up(joined), Fact::Fault(Fault::Return(returned)), up(returned)];
        let talk = [sent(joined, P, voted(2)), delivered(joined, P, voted(2)), applied(returned, 1)];
        beginning.into_iter().chain(joins).chain(talk)
    };
    let svg = plain(facts());
    for name in ["s", "t"] {
        assert_eq!(count(&svg, &format!(">{name}</text>")), 2, "{name} stands above and below");
    }
    assert!(svg.contains("s -&gt; p Voted(17.1, round 1, 2 to 2@17.1)</title>"), "{svg}");
    let begin = |svg: &str| -> Vec<u32> {
        let lanes = svg.split("<line class=\"lane\"").skip(1);
        lanes.filter_map(|lane| lane.split("y1=\"").nth(1)?.split('"').next()?.parse().ok()).collect()
    };
    let from = begin(&svg);
    assert_eq!(from.len(), 5);
    assert!(from.iter().filter(|y| *y > from.iter().min().unwrap_or(y)).count() == 2, "two begin later: {from:?}");
    assert_eq!(count(&svg, ">is up again<"), 0);
    let cut = chart(Settings { facts: 3, ..Settings::default() }, facts());
    assert_eq!((count(&cut, "<line class=\"lane\""), arrows(&cut)), (5, 1));
}

/// Catches commands that are applied at once filling a page, and those of two nodes taken
/// together.
#[test]
fn commands_applied_at_once_share_a_dot() {
    let mut chart = Chart::new([P, Q, R], Settings::default());
    for fact in [applied(P, 1), applied(P, 2), applied(P, 3), applied(Q, 1)] {
        chart.observe(at(1), &fact);
    }
    let svg = chart.svg();
    assert_eq!((count(&svg, ">1 to 3<"), count(&svg, ">1<")), (1, 1));
}

/// Catches a picture that does not say that links are cut, or until when, and faults of nodes
/// left out.
#[test]
fn faults_and_partitions_are_seen() {
    let partition = Fault::Partition { shape: Shape::OneWay, cut: vec![(P, Q)] };
    let facts = [Fact::Fault(partition), Fact::Fault(Fault::Heal), Fact::Fault(Fault::TornWrite(R))];
    let svg = plain(facts.into_iter().chain([Fact::Healed { core: vec![P, Q] }]));
    assert_eq!(count(&svg, "class=\"span\""), 1);
    for text in [">partition one_way: p-&gt;q<", ">torn_write r<", ">healed: p q<"] {
        assert!(svg.contains(text), "{text}");
    }
}

/// Catches clients left out, and texts of a run that become markup.
#[test]
fn clients_stand_at_the_side_and_texts_are_escaped() {
    let request = RequestId::caller("<a&b>\"").expect("visible characters");
    let (fingerprint, patience) = (Fingerprint::default(), std::time::Duration::ZERO);
    let arguments = Bytes::from_static(b"{\"key\":\"<script>\\u0007\"}");
    let call = Call { request: request.clone(), fingerprint, function: "kv.put".into(), arguments, patience, copy: 0 };
    let outcome = Outcome::UnknownFunction;
    let mut chart = Chart::new([P, Q, R], Settings { title: "a < b".into(), ..Settings::default() });
    chart.observe(at(0), &Fact::Asked { client: 4, ticket: 1, via: Q, question: Question::Call(call) });
    chart.observe(
        at(1),
        &Fact::Told { client: 4, ticket: 1, answer: Told::Outcome { request, outcome, settled: true } },
    );
    chart.remark(at(2), "broken: x < y & z");
    let svg = chart.svg();
    assert!(svg.contains(">client 4 asks q: &lt;a&amp;b&gt;&quot; = put(&lt;script&gt; )<"), "{svg}");
    assert!(svg.contains(">client 4 is told: &lt;a&amp;b&gt;&quot; unknown function<"), "{svg}");
    assert!(svg.contains(">broken: x &lt; y &amp; z<"), "a remark behind everything is shown");
    assert!(svg.contains(">a &lt; b<"));
    assert!(!svg.contains("<script") && !svg.contains('\u{7}'));
}

/// Catches a picture that grows with the run, hides that it was cut, or forgets how a lane
/// looked before its first row.
#[test]
fn only_the_last_facts_are_drawn_and_the_picture_says_so() {
    let leads = Fact::Leads { node: P, ballot: Some(BALLOT) };
    let facts = [leads].into_iter().chain((1..=100).map(|number| sent(P, Q, voted(number))));
    let svg = chart(Settings { facts: 10, ..Settings::default() }, facts);
    assert_eq!(arrows(&svg), 10);
    assert!(svg.contains("Cut: 91 earlier events are not shown."));
    assert_eq!(count(&svg, "class=\"leads\""), 1, "p leads although its lead began before");
    let long = Settings { title: "t".repeat(100_000), ..Settings::default() };
    assert!(chart(long, [sent(P, Q, voted(1))]).len() < 10_000, "texts are cut");
}

/// Catches a window that lets other times in, or that forgets what happened before it.
#[test]
fn the_window_is_drawn_and_nothing_else() {
    let leads = Fact::Leads { node: P, ballot: Some(BALLOT) };
    let facts = [leads].into_iter().chain((1..10).map(|number| sent(P, Q, voted(number))));
    let svg = chart(Settings { window: at(3).tick..=at(5).tick, ..Settings::default() }, facts);
    assert_eq!(arrows(&svg), 3);
    assert_eq!(count(&svg, "class=\"leads\""), 1);
    assert!(svg.contains(">0.003000<"), "times stand at the left");
}
