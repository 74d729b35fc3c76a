//! How traces, charts and scripts put what happens: one line each, for a person.
//!
//! Nodes are the letters that the patent's figures would give them: p, q, r and so on. Commands
//! are `number@ballot`, ballots `round.node`.

use std::fmt;

use leader::core::Note;
use protocol::message::{Executed, Stored, ToAcceptor, ToGateway, ToLeader, ToLearner};
use protocol::{Command, CommandNumber, Message, NodeId, Now, Outcome, Run, Vote};

use crate::fact::{Consistency, Fact, Question, Read, Seen, Sought, Stop, Told};
use crate::fault::Fault;

/// A node by the letter that the patent would give it.
pub struct Device(pub NodeId);

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.0 {
            id @ 1..=11 => {
                let letter = b'p' + u8::try_from(id - 1).expect("at most 10");
                write!(f, "{}", char::from(letter))
            }
            id => write!(f, "node {id}"),
        }
    }
}

/// What became of a call, in words.
pub struct Became<'a>(pub &'a Executed);

impl fmt::Display for Became<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Came(&self.0.outcome))?;
        f.write_str(if self.0.stored == Stored::Before { ", as told before" } else { "" })
    }
}

/// What a call came to, in words.
pub struct Came<'a>(pub &'a Outcome);

impl fmt::Display for Came<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Outcome::Issued { command, result } => {
                write!(f, "is issued as {command}: {}", String::from_utf8_lossy(result))
            }
            Outcome::Unchanged { at, result } => {
                write!(f, "changes nothing at {at}: {}", String::from_utf8_lossy(result))
            }
            Outcome::Refused { at, code, .. } => write!(f, "is refused at {at}: {code}"),
            Outcome::InvalidArguments { message } => write!(f, "has invalid arguments: {message}"),
            Outcome::TooLarge { message } => write!(f, "is too large: {message}"),
            Outcome::UnknownFunction => f.write_str("names no function"),
            Outcome::RequestReused => f.write_str("uses the request id of another call"),
            Outcome::Failed { message } => write!(f, "failed: {message}"),
            Outcome::Overloaded => f.write_str("did not run: overloaded"),
            Outcome::DiskFull => f.write_str("did not run: no room on the disks"),
            Outcome::NotLeader => f.write_str("did not run: not the leader"),
            Outcome::LeadershipLost => f.write_str("is undecided: the lead is lost"),
        }
    }
}

/// A message in one line.
pub struct Said<'a>(pub &'a Message);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())?;
        match self.0 {
            Message::Acceptor(ToAcceptor::NextBallot(next)) => write!(f, "({}, first {})", next.ballot, next.first),
            Message::Acceptor(ToAcceptor::BeginBallot(begin)) => {
                let (ballot, round, under) = (begin.ballot, begin.round, Under(begin.membership));
                write!(f, "({ballot}{under}, round {round}, [{}])", ids(&begin.commands))
            }
            Message::Leader(ToLeader::BallotInfo(info)) => {
                let votes = votes(&info.votes);
                write!(f, "({}, first {}, issued {}, [{votes}])", info.ballot, info.first, info.issued)
            }
            Message::Leader(ToLeader::MyNextBal(next)) => write!(f, "({}, refused {})", next.ballot, next.refused),
            Message::Leader(ToLeader::Voted(voted)) | Message::Learner(ToLearner::Voted(voted)) => {
                let (ballot, round, under) = (voted.ballot, voted.round, Under(voted.membership));
                write!(f, "({ballot}{under}, round {round}, {})", Votes(voted.run))
            }
            Message::Acceptor(ToAcceptor::Rejoined(rejoined)) => {
                write!(f, "({}{}, last {})", rejoined.ballot, Under(rejoined.membership), rejoined.last)
            }
            Message::Leader(ToLeader::Rejoin(rejoin)) => write!(f, "({})", rejoin.ballot),
            Message::Leader(ToLeader::ExecuteFunction(call)) => {
                let arguments = String::from_utf8_lossy(&call.arguments);
                write!(f, "({} = {} {arguments})", call.request, call.function)
            }
            Message::Leader(ToLeader::ReadBarrier(barrier)) => write!(f, "({})", barrier.id),
            Message::Learner(ToLearner::Success(success)) => {
                write!(f, "({}, issued {}, {} bodies)", success.ballot, success.issued, success.commands.len())
            }
            Message::Learner(ToLearner::CatchUp(catch_up)) => write!(f, "(from {})", catch_up.first),
            Message::Learner(ToLearner::Commands(commands)) => {
                let (commands, issued, kept_from) = (ids(&commands.commands), commands.issued, commands.kept_from);
                write!(f, "([{commands}], issued {issued}, kept from {kept_from})")
            }
            Message::Learner(ToLearner::FetchSnapshot(fetch)) => match fetch.id {
                Some(id) => write!(f, "(more of {})", id.at),
                None => f.write_str("(any)"),
            },
            Message::Learner(ToLearner::Snapshot(snapshot)) => match &snapshot.piece {
                Some(piece) => {
                    let end = if piece.next.is_some() { "" } else { ", the end" };
                    write!(f, "({}, {} of {} records{end})", snapshot.id.at, piece.records.len(), snapshot.records)
                }
                None => write!(f, "({} is gone)", snapshot.id.at),
            },
            Message::FailureDetector(heartbeat) => {
                let hears: Vec<String> = heartbeat.hears.iter().map(|node| Device(*node).to_string()).collect();
                write!(f, "(hears {}, issued {}", hears.join(""), heartbeat.issued)?;
                heartbeat.leads.map_or(Ok(()), |ballot| write!(f, ", leads {ballot}"))?;
                heartbeat.follows.map_or(Ok(()), |ballot| write!(f, ", follows {ballot}"))?;
                f.write_str(")")
            }
            Message::Gateway(ToGateway::Executed(executed)) => {
                write!(f, "({} {})", executed.request, Became(executed))
            }
            Message::Gateway(ToGateway::BarrierPassed(passed)) => match passed.at {
                Some(at) => write!(f, "({} at {at})", passed.id),
                None => write!(f, "({} elsewhere)", passed.id),
            },
        }
    }
}

fn ids(commands: &[Command]) -> String {
    commands.iter().map(|command| command.id.to_string()).collect::<Vec<_>>().join(" ")
}

fn votes(votes: &[Vote]) -> String {
    votes.iter().map(|vote| format!("{} in {}", vote.command.id, vote.ballot)).collect::<Vec<_>>().join(", ")
}

struct Votes(Option<Run>);

impl fmt::Display for Votes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(run) => write!(f, "{} to {}", run.first, run.last),
            None => write!(f, "nothing"),
        }
    }
}

/// Under which membership a ballot is led, if it is not the genesis.
struct Under(CommandNumber);

impl fmt::Display for Under {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            CommandNumber::NULL => Ok(()),
            number => write!(f, " under {number}"),
        }
    }
}

/// What a leader says for operators, in words.
pub struct Notes<'a>(pub &'a Note);

impl fmt::Display for Notes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Note::Campaigns(ballot) => write!(f, "campaigns in {ballot}"),
            Note::Leads { ballot, history, issued } => {
                write!(f, "leads {ballot}: issued {issued}, history {history}")
            }
            Note::Membership { number, nodes, acceptors } => {
                write!(f, "knows membership {number}: {nodes} nodes, {acceptors} of them acceptors")
            }
            Note::HandsOver { ballot, to } => write!(f, "hands {ballot} over to {to}"),
            Note::HandedOver { ballot, to } => write!(f, "has handed {ballot} over to {to}"),
            Note::NotHandedOver { ballot, to } => write!(f, "could not hand {ballot} over to {to}"),
            Note::StepsDown { ballot, reason, unissued, .. } => {
                write!(f, "gives up {ballot}: {reason}, unissued {unissued}")
            }
        }
    }
}

/// What a client asks, in words.
pub struct Asks<'a>(pub &'a Question);

impl fmt::Display for Asks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Question::Call(call) => {
                write!(f, "{} = {} {}", call.request, call.function, String::from_utf8_lossy(&call.arguments))
            }
            Question::Read(Read { sought, consistency, least }) => {
                let how = match consistency {
                    Consistency::Linearizable => "linearizably",
                    Consistency::Local => "locally",
                };
                match sought {
                    Sought::Entry(key) => write!(f, "reads {key} {how}")?,
                    Sought::Page { prefix, after, limit } => {
                        write!(f, "reads {limit} keys of {prefix:?} {how}")?;
                        after.iter().try_for_each(|after| write!(f, ", after {after}"))?;
                    }
                    Sought::Call(request) => write!(f, "reads the outcome of {request} {how}")?,
                    Sought::Commands { from, limit } => write!(f, "reads {limit} commands from {from} on {how}")?,
                }
                if *least > CommandNumber::NULL { write!(f, ", at {least} or later") } else { Ok(()) }
            }
        }
    }
}

/// What a client is told, in words.
pub struct Hears<'a>(pub &'a Told);

impl fmt::Display for Hears<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Told::Outcome { request, outcome, settled } => {
                let settled = if *settled { "" } else { ", not settled" };
                write!(f, "{request} {}{settled}", Came(outcome))
            }
            Told::NotExecuted => f.write_str("not executed"),
            Told::Unknown => f.write_str("outcome unknown"),
            Told::Left { early: true } => f.write_str("nothing, and does not wait for it"),
            Told::Left { early: false } => f.write_str("nothing"),
            Told::Shown { at, seen } => write!(f, "{} at {at}", Sees(seen)),
        }
    }
}

/// What a read was shown, in words.
pub struct Sees<'a>(pub &'a Seen);

impl fmt::Display for Sees<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Seen::Entries(entries) if entries.is_empty() => f.write_str("nothing there"),
            Seen::Entries(entries) => {
                for (key, entry) in entries {
                    write!(f, "{key} = {} of {}, ", String::from_utf8_lossy(&entry.value), entry.version)?;
                }
                Ok(())
            }
            Seen::Call(None) => f.write_str("nothing known of it"),
            Seen::Call(Some(stored)) => write!(f, "stored by {}", stored.command),
            Seen::Commands(None) => f.write_str("not kept any more"),
            Seen::Commands(Some(commands)) => write!(f, "{} commands", commands.len()),
        }
    }
}

/// Why a node is down, in words.
pub struct Stops(pub Stop);

impl fmt::Display for Stops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Stop::PowerCut => "power cut",
            Stop::Killed => "killed",
            Stop::Disk => "stops: disk failed",
            Stop::DiskLost => "disk lost",
            Stop::Refused => "stops: another disk of it is known",
        })
    }
}

/// Nodes by their letters, without anything between.
pub struct Devices<'a>(pub &'a [NodeId]);

impl fmt::Display for Devices<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters: Vec<String> = self.0.iter().map(|node| Device(*node).to_string()).collect();
        f.write_str(&letters.join(" "))
    }
}

/// A fault, in words.
pub struct Broken<'a>(pub &'a Fault);

impl fmt::Display for Broken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Fault::KINDS[self.0.kind()];
        match self.0 {
            Fault::Message { .. } | Fault::Heal | Fault::PartitionInChange => f.write_str(name),
            Fault::Partition { shape, cut } => {
                let links: Vec<String> =
                    cut.iter().map(|(from, to)| format!("{}->{}", Device(*from), Device(*to))).collect();
                write!(f, "{name} {}: {}", shape.name(), links.join(" "))
            }
            Fault::Crash(node)
            | Fault::Kill(node)
            | Fault::Restart(node)
            | Fault::Pause(node)
            | Fault::TornWrite(node)
            | Fault::BitRot(node)
            | Fault::Misdirected(node)
            | Fault::WriteError(node)
            | Fault::SyncError(node)
            | Fault::DiskFull(node)
            | Fault::DiskLow(node)
            | Fault::DiskOut(node)
            | Fault::Suspicion(node)
            | Fault::DiskLost(node)
            | Fault::StateLost(node)
            | Fault::StateRot(node)
            | Fault::Join(node)
            | Fault::Return(node)
            | Fault::Leave(node)
            | Fault::GivenUp(node)
            | Fault::DownInTransfer(node)
            | Fault::DownInChange(node) => write!(f, "{name} {}", Device(*node)),
            Fault::ClockJump(node, millis) => write!(f, "{name} {} by {millis} ms", Device(*node)),
            Fault::ClockRate(node, rate) => write!(f, "{name} {} to {rate}/1000", Device(*node)),
            Fault::LostUnsynced(node, down_to) => write!(f, "{name} {} down to {down_to}", Device(*node)),
        }
    }
}

/// A fact in one line, without its time.
pub struct Happened<'a>(pub &'a Fact);

impl fmt::Display for Happened<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Fact::Sent { from, to, message } => write!(f, "{} -> {} {}", Device(*from), Device(*to), Said(message)),
            Fact::Delivered { from, to, message } => {
                write!(f, "{} <- {} {}", Device(*to), Device(*from), Said(message))
            }
            Fact::Lost { from, to, message } => write!(f, "{} -x {} {}", Device(*from), Device(*to), Said(message)),
            Fact::Written { node, records } => write!(f, "{} synced {} records", Device(*node), records.len()),
            Fact::Applied { node, command, .. } => write!(f, "{} applies {}", Device(*node), command.id),
            Fact::Installed { node, id } => write!(f, "{} has the state at {} from another node", Device(*node), id.at),
            Fact::Synced { node, durable } => write!(f, "{} has its state durable up to {durable}", Device(*node)),
            Fact::Executed { node, function } => write!(f, "{} runs {function}", Device(*node)),
            Fact::Leads { node, ballot: Some(ballot) } => write!(f, "{} leads {ballot}", Device(*node)),
            Fact::Leads { node, ballot: None } => write!(f, "{} leads no more", Device(*node)),
            Fact::Noted { node, note } => write!(f, "{} {}", Device(*node), Notes(note)),
            Fact::Ignored { node, role, reason } => write!(f, "{} ({role}) ignores: {reason}", Device(*node)),
            Fact::Started { node, life, log, applied, .. } => {
                write!(f, "{} is up, life {life}: applied {applied}, promised {}, ", Device(*node), log.next_ballot)?;
                write!(f, "tried {}, voted [{}]", log.last_tried, votes(&log.votes))
            }
            Fact::Stopped { node, why } => write!(f, "{} is down: {}", Device(*node), Stops(*why)),
            Fact::Asked { client, ticket, via, question } => {
                write!(f, "client {client} asks {} ({ticket}): {}", Device(*via), Asks(question))
            }
            Fact::Told { client, ticket, answer } => {
                write!(f, "client {client} is told ({ticket}): {}", Hears(answer))
            }
            Fact::Fault(fault) => write!(f, "fault: {}", Broken(fault)),
            Fact::Healed { core } => write!(f, "healed: {} stay connected and up", Devices(core)),
        }
    }
}

/// The time of the world, in seconds.
pub struct Seconds(pub Now);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.tick.0;
        write!(f, "{}.{:06}", micros / 1_000_000, micros % 1_000_000)
    }
}
