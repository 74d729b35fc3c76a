//! What is going to happen, in order of virtual time.
//!
//! Two events of one moment happen in the order in which they were scheduled, so a run depends on
//! nothing but its seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use leader::core::PoolJob;
use protocol::{CommandNumber, Message, NodeId, Position, Role, SnapshotId, Tick};

use crate::fact::Told;
use crate::fault::Mishap;

/// Something that is going to happen. What concerns one life of a node (`life`) does not happen
/// in the next.
#[derive(Debug)]
pub enum Event {
    /// A message arrives.
    Arrive {
        /// The sender.
        from: NodeId,
        /// The receiver.
        to: NodeId,
        /// The message.
        message: Message,
        /// What has happened to it on the way.
        mishaps: Vec<Mishap>,
        /// The life of the receiver in which it must arrive, if it must: that is so for the double of a call (ADR 0043).
        life: Option<u32>,
    },
    /// A role handles what its mailbox holds.
    Turn {
        /// The node.
        node: NodeId,
        /// Its life.
        life: u32,
        /// The role.
        role: Role,
    },
    /// A timer of a node.
    Timer {
        /// The node.
        node: NodeId,
        /// Its life.
        life: u32,
        /// Which.
        timer: Timer,
    },
    /// A thread of the pool begins with a function.
    PoolBegins {
        /// The node.
        node: NodeId,
        /// Its life.
        life: u32,
        /// The job.
        job: Box<PoolJob>,
    },
    /// A thread of the pool is done.
    PoolEnds {
        /// The node.
        node: NodeId,
        /// Its life.
        life: u32,
        /// What came of it.
        done: Box<leader::core::Input>,
    },
    /// Something is done that was begun beside a learner.
    Beside {
        /// The node.
        node: NodeId,
        /// Its life.
        life: u32,
        /// What.
        work: Beside,
    },
    /// A node tries to connect to a peer.
    Dial {
        /// The node.
        node: NodeId,
        /// Its life.
        life: u32,
        /// The peer.
        peer: NodeId,
        /// The pause before the next attempt.
        pause: Duration,
    },
    /// A node sees that a connection with a peer is closed.
    Closed {
        /// The node.
        node: NodeId,
        /// Its life.
        life: u32,
        /// The peer.
        peer: NodeId,
    },
    /// A paused node goes on.
    Resume(NodeId),
    /// A node that is down starts.
    Start(NodeId),
    /// The disk of a node has room again.
    Room(NodeId),
    /// A newcomer asks a member to take it in.
    Ask(u64),
    /// The member that was asked looks whether it can answer.
    Admit(Admission),
    /// Nobody waits for the answer to a question of a node's own any more.
    GiveUpAsking {
        /// The question.
        ticket: u64,
    },
    /// A node that was removed is stopped for good, if it is not needed any more.
    Depart(NodeId),
    /// Something bad happens because the membership changes.
    Strike,
    /// A question of a client arrives at the node.
    Question {
        /// Names it.
        ticket: u64,
    },
    /// An answer arrives at a client.
    Answer {
        /// The question.
        ticket: u64,
        /// The answer.
        answer: Told,
    },
    /// A client does something.
    Clients,
    /// Something bad is due.
    Nemesis,
    /// Flapping links change.
    Flap,
    /// The faults begin again, or rest.
    Spell,
    /// The faults are over.
    Heal,
    /// Something that a scenario planned happens.
    Plan,
    /// The run ends.
    End,
}

/// The cluster has decided to take in a newcomer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Which.
    pub newcomer: u64,
    /// The member that it has asked.
    pub via: NodeId,
    /// The life of that member.
    pub life: u32,
    /// The id of the newcomer.
    pub id: NodeId,
    /// The command that says so: the member must know it.
    pub number: CommandNumber,
    /// How often the member has looked.
    pub looked: u32,
}

/// What a learner has done beside its thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Commands are forgotten.
    Forget {
        /// Whatever takes too much space, up to here.
        durable: CommandNumber,
        /// What is merely old, up to here.
        in_touch: CommandNumber,
    },
    /// A checkpoint is made.
    Checkpoint,
    /// A piece of one is read for a peer.
    Piece {
        /// The peer.
        to: NodeId,
        /// Which checkpoint.
        id: SnapshotId,
        /// Where the piece begins.
        from: Position,
    },
    /// The next thing is done with what is staged.
    Staging,
}

/// The timers of a node, as its actors have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// The failure detector's tick.
    Detector,
    /// The leader's tick.
    Leader,
    /// The learner's tick.
    Learner,
    /// The learner's sync.
    Sync,
    /// The gateway's tick, while something is in flight.
    Gateway,
    /// Who leads is said again to the gateway.
    RepeatLeader,
    /// What a node does about its own membership.
    Seat,
}

/// Where an event stands in order of time: its moment, when it was scheduled, its place in `waiting`.
type Place = Reverse<(Tick, u64, usize)>;

/// See the module.
#[derive(Default)]
pub struct Schedule {
    order: BinaryHeap<Place>,
    /// Events are large, and a heap moves what it holds about.
    waiting: Vec<Option<Event>>,
    free: Vec<usize>,
    sequence: u64,
    happened: u64,
    now: Tick,
}

impl Schedule {
    /// The moment of the event that came out last.
    #[must_use]
    pub fn now(&self) -> Tick {
        self.now
    }

    /// How many events have happened so far.
    #[must_use]
    pub fn happened(&self) -> u64 {
        self.happened
    }

    /// Something happens after a while.
    pub fn after(&mut self, pause: Duration, event: Event) {
        self.at(self.now + pause, event);
    }

    /// Something happens at a moment; now, if that is past.
    pub fn at(&mut self, at: Tick, event: Event) {
        self.sequence += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.waiting.push(None);
            self.waiting.len() - 1
        });
        self.waiting[place] = Some(event);
        self.order.push(Reverse((at.max(self.now), self.sequence, place)));
    }

    /// What happens next; time moves on to it.
    pub fn pop(&mut self) -> Option<Event> {
        let Reverse((at, _, place)) = self.order.pop()?;
        self.now = at;
        self.happened += 1;
        self.free.push(place);
        self.waiting[place].take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches time that goes backwards, and events of one moment that change places.
    #[test]
    fn events_come_in_order_of_time_and_then_of_scheduling() {
        let mut schedule = Schedule::default();
        for (at, node) in [(5, 1), (3, 2), (5, 3), (3, 4)] {
            schedule.at(Tick(at), Event::Start(NodeId(node)));
        }
        let mut order = Vec::new();
        while let Some(event) = schedule.pop() {
            let Event::Start(node) = event else { panic!("nothing else was scheduled") };
            order.push((schedule.now().0, node.0));
            if node.0 == 4 {
                schedule.at(Tick(1), Event::Start(NodeId(5)));
            }
        }
        assert_eq!(order, [(3, 2), (3, 4), (3, 5), (5, 1), (5, 3)], "what is past happens now");
    }
}
