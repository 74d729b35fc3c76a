//! Every input in every state, in one table: the promise is 3.1, and command 1 is issued.
//!
//! A state is what the acceptor is silent about, or that it speaks and follows a ballot. An input that is not expected in a
//! state must still be taken in one, so all are there.

use std::fmt::Write as _;

use protocol::message::Rejoined;
use storage::Standing;

use super::*;

/// State, input, and what comes of it, in order.
const TABLE: &str = include_str!("table.txt");

fn states() -> [(&'static str, Node); 6] {
    let before = id(ballot(1), 1);
    let with = |standing, forgotten, applied: CommandId| {
        let forgotten = CommandNumber(forgotten);
        let log = LogImage { next_ballot: ballot(3), standing, forgotten, ..LogImage::default() };
        Node { acceptor: Acceptor::new(config(), log.clone(), applied), log }
    };
    let mut follows = with(Standing::Sound, 0, before);
    follows.begin(ballot(3), &chain(ballot(3), before, 1), 1);
    [
        ("promised", with(Standing::Sound, 0, before)),
        ("voted", follows),
        ("fresh", with(Standing::Fresh, 0, before)),
        ("replaced", with(Standing::Replaced, 0, before)),
        ("damaged", with(Standing::Damaged, 0, before)),
        ("behind", with(Standing::Sound, 1, CommandId::NULL)),
    ]
}

fn inputs() -> Vec<(&'static str, Input)> {
    let before = id(ballot(1), 1);
    let next = |ballot: Ballot| Input::Message {
        from: ballot.node,
        message: ToAcceptor::NextBallot(NextBallot { ballot, first: CommandNumber(2) }),
    };
    let begin = |ballot: Ballot, commands: Vec<Command>| Input::Message {
        from: ballot.node,
        message: ToAcceptor::BeginBallot(BeginBallot { ballot, commands, round: 2, membership: CommandNumber::NULL }),
    };
    let (last, membership) = (CommandNumber(1), CommandNumber::NULL);
    let rejoined = ToAcceptor::Rejoined(Rejoined { ballot: rival(4), nonce: 7, last, membership });
    vec![
        ("NextBallot 2.1, below the promise", next(ballot(2))),
        ("NextBallot 3.1, the promise", next(ballot(3))),
        ("NextBallot 4.3, above it", next(rival(4))),
        ("BeginBallot 2.1, below the promise", begin(ballot(2), chain(ballot(2), before, 1))),
        ("BeginBallot 3.1, the promise", begin(ballot(3), chain(ballot(3), before, 2))),
        ("BeginBallot 4.3, above it", begin(rival(4), chain(rival(4), before, 1))),
        ("BeginBallot 3.1, of a gap", begin(ballot(3), vec![command(ballot(3), 4, id(ballot(3), 3))])),
        ("BeginBallot 4.3, of a gap", begin(rival(4), vec![command(rival(4), 3, id(rival(4), 2))])),
        ("BeginBallot 4.3, of nothing", begin(rival(4), Vec::new())),
        ("Rejoined 4.3", Input::Message { from: RIVAL, message: rejoined }),
        ("Issued 1", Input::Issued(before)),
        ("Issued 2", Input::Issued(id(ballot(3), 2))),
        ("Forget 1", Input::Forget(CommandNumber(1))),
        ("Learners 1, 2", Input::Learners(vec![NodeId(1), NodeId(2)])),
        ("Noted by 1", Input::Noted(NodeId(1))),
        ("Noted by 1 and 3", Input::Noted(NodeId(3))),
        ("Led 4.3", Input::Led(rival(4))),
        ("Space out", Input::Space(Space::Out)),
    ]
}

fn words(effect: &Effect) -> String {
    match effect {
        Effect::Proposed { commands, .. } => format!("bodies of {}", commands.len()),
        Effect::Persist(record) => match record {
            LogRecord::NextBallot(ballot) => format!("persist promise {ballot}"),
            LogRecord::LastTried(ballot) => format!("persist lastTried {ballot}"),
            LogRecord::Vote(vote) => format!("persist vote {} in {}", vote.command.id, vote.ballot),
            LogRecord::Forget(number) => format!("persist forget {number}"),
            LogRecord::Standing(standing) => format!("persist {standing:?}"),
            LogRecord::VotedUnder(number) => format!("persist voted under {number}"),
        },
        Effect::Send { to, message: Message::Leader(ToLeader::Voted(voted)) } => {
            let run = voted.run.map_or("nothing".to_owned(), |run| format!("{} to {}", run.first, run.last));
            format!("Voted for {run} to {to}")
        }
        Effect::Send { to, message } => format!("{} to {to}", message.name()),
        Effect::Speaks => "speaks".to_owned(),
        Effect::Ignored(reason) => format!("ignored: {}", reason.name()),
    }
}

/// A1d, A1e, A1j, S-01, S-11, S-14, S-16: catches any change in what any input does in any state: a promise or vote of a silent acceptor, an
/// answer before its record, a vote over a gap, a state in which an input is not thought of.
#[test]
fn every_input_in_every_state() {
    let mut table = String::new();
    for (state, _) in states() {
        writeln!(table, "{state}").expect("a text");
        for (place, (name, input)) in inputs().into_iter().enumerate() {
            let (_, mut node) = states().into_iter().find(|(name, _)| *name == state).expect("it is one of them");
            if name == "Noted by 1 and 3" {
                node.handle(inputs()[place - 1].1.clone());
            }
            let effects = node.handle(input);
            let effects = effects.iter().map(words).collect::<Vec<_>>().join("; ");
            writeln!(table, "  {name}: {}", if effects.is_empty() { "nothing" } else { &effects }).expect("a text");
        }
    }
    assert_eq!(table, TABLE, "a rule has changed; if that is meant, this is the new table:\n{table}");
}
