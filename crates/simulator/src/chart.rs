//! A time chart of a run, in the manner of the patent's FIG. 8, as an SVG text.
//!
//! A lane for each node, time runs down. Arrows are messages, with their name and the little that
//! tells them apart; the whole message is the arrow's title, which a browser shows under the
//! pointer. A lost one ends in a cross, one that is still under way in a stub. A thick lane
//! leads; its colour, and that of the messages of its ballot, is the ballot's. A dashed lane is
//! down. Of a long arrow only the ends are drawn. A dot is an applied command, with its number. Clients stand at the right, faults and
//! remarks at the left, partitions are shaded.
//!
//! ```text
//! Fact -> Chart (keeps) -> layout (rows and shapes) -> draw (text)
//! ```
//!
//! - Rows, not a scale: each thing with a label has a row of its own, so that labels never lie
//!   on each other. A longer time without events is a somewhat larger gap; times stand at the left.
//! - Left out: what a node sends to itself, as in the patent, writes, and heartbeats unless asked for.
//! - Bounded: it keeps the last facts only, and the picture says so when there were more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;

use protocol::{Ballot, NodeId, Now, Tick};
use storage::LogImage;

use crate::fact::{Fact, Observer};
use crate::fault::Fault;
use crate::trace::is_heartbeat;

mod draw;
mod label;
mod layout;
#[cfg(test)]
mod tests;

/// What is drawn, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Stands above the picture.
    pub title: String,
    /// Facts of this time only.
    pub window: RangeInclusive<Tick>,
    /// Heartbeats too.
    pub heartbeats: bool,
    /// A message that is sent again, with no other one between on its link, and fares alike, is
    /// drawn once, with a count.
    pub merge: bool,
    /// Times at the left.
    pub times: bool,
    /// So many of the last facts are kept.
    pub facts: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let window = Tick(0)..=Tick(u64::MAX);
        Self { title: String::new(), window, heartbeats: false, merge: false, times: true, facts: Self::FACTS }
    }
}

impl Settings {
    /// How many facts a picture shows unless told otherwise: some twenty screens.
    pub const FACTS: usize = 1_500;
}

/// Draws the facts that it is told.
#[derive(Clone, Debug)]
pub struct Chart {
    settings: Settings,
    /// The lanes, from left to right, as they were before the first thing that is kept.
    before: BTreeMap<NodeId, Lane>,
    kept: VecDeque<(Now, Item)>,
    dropped: u64,
}

/// How a lane looks at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lane {
    up: bool,
    leads: Option<Ballot>,
}

/// What is drawn.
#[derive(Clone, Debug)]
enum Item {
    Fact(Box<Fact>),
    Remark(String),
}

impl Chart {
    /// A chart of these nodes, all up, and of those that join later.
    #[must_use]
    pub fn new(nodes: impl IntoIterator<Item = NodeId>, settings: Settings) -> Self {
        let before = nodes.into_iter().map(|node| (node, Lane { up: true, leads: None })).collect();
        Self { settings, before, kept: VecDeque::new(), dropped: 0 }
    }

    /// Writes something at the left, such as what broke.
    pub fn remark(&mut self, now: Now, text: &str) {
        if self.settings.window.contains(&now.tick) {
            self.keep(now, Item::Remark(text.to_owned()));
        }
    }

    /// The picture.
    #[must_use]
    pub fn svg(&self) -> String {
        draw::svg(&layout::layout(self))
    }

    /// The nodes that were there before the first row, and those that join in what is kept.
    fn lanes(&self) -> BTreeSet<NodeId> {
        let joins = |item: &Item| {
            let Item::Fact(fact) = item else { return None };
            if let Fact::Started { node, .. } | Fact::Fault(Fault::Join(node) | Fault::Return(node)) = fact.as_ref() {
                Some(*node)
            } else {
                None
            }
        };
        self.before.keys().copied().chain(self.kept.iter().filter_map(|(_, item)| joins(item))).collect()
    }

    fn keep(&mut self, now: Now, item: Item) {
        self.kept.push_back((now, item));
        if self.kept.len() > self.settings.facts {
            self.dropped += 1;
            if let Some((_, Item::Fact(fact))) = self.kept.pop_front() {
                self.pass(&fact);
            }
        }
    }

    /// A fact that is not drawn still says how the lanes look afterwards.
    fn pass(&mut self, fact: &Fact) {
        if let Some((node, change)) = change(fact) {
            let lane = self.before.entry(node).or_insert(Lane { up: false, leads: None });
            *lane = change.of(*lane);
        }
    }
}

impl Observer for Chart {
    fn observe(&mut self, now: Now, fact: &Fact) {
        if now.tick < *self.settings.window.start() {
            self.pass(fact);
        }
        if self.settings.window.contains(&now.tick)
            && is_drawn(fact)
            && (self.settings.heartbeats || !is_heartbeat(fact))
        {
            let mut fact = fact.clone();
            if let Fact::Started { log, .. } = &mut fact {
                *log = LogImage::default();
            }
            self.keep(now, Item::Fact(Box::new(fact)));
        }
    }
}

/// What a fact does to a lane.
#[derive(Clone, Copy, Debug)]
enum Change {
    Up,
    Down,
    Leads(Option<Ballot>),
}

impl Change {
    fn of(self, lane: Lane) -> Lane {
        match self {
            Self::Up => Lane { up: true, leads: None },
            Self::Down => Lane { up: false, leads: None },
            Self::Leads(leads) => Lane { leads, ..lane },
        }
    }
}

fn change(fact: &Fact) -> Option<(NodeId, Change)> {
    match fact {
        Fact::Started { node, .. } => Some((*node, Change::Up)),
        Fact::Stopped { node, .. } => Some((*node, Change::Down)),
        Fact::Leads { node, ballot } => Some((*node, Change::Leads(*ballot))),
        Fact::Sent { .. }
        | Fact::Delivered { .. }
        | Fact::Lost { .. }
        | Fact::Written { .. }
        | Fact::Applied { .. }
        | Fact::Installed { .. }
        | Fact::Synced { .. }
        | Fact::Executed { .. }
        | Fact::Noted { .. }
        | Fact::Ignored { .. }
        | Fact::Asked { .. }
        | Fact::Told { .. }
        | Fact::Fault(_)
        | Fact::Healed { .. } => None,
    }
}

/// Whether a chart shows it: not what the disk does, nor what other facts show as well.
fn is_drawn(fact: &Fact) -> bool {
    match fact {
        Fact::Sent { from, to, .. } | Fact::Delivered { from, to, .. } | Fact::Lost { from, to, .. } => from != to,
        Fact::Applied { .. }
        | Fact::Installed { .. }
        | Fact::Leads { .. }
        | Fact::Started { .. }
        | Fact::Stopped { .. }
        | Fact::Asked { .. }
        | Fact::Told { .. }
        | Fact::Healed { .. } => true,
        Fact::Fault(fault) => match fault {
            // The arrows, crosses and starts show these.
            Fault::Message { .. }
            | Fault::Crash(_)
            | Fault::Kill(_)
            | Fault::Restart(_)
            | Fault::DiskLost(_)
            | Fault::DownInTransfer(_)
            | Fault::DownInChange(_)
            | Fault::PartitionInChange => false,
            Fault::StateLost(_) | Fault::StateRot(_) => true,
            Fault::Join(_) | Fault::Return(_) | Fault::Leave(_) | Fault::GivenUp(_) => true,
            Fault::Partition { .. }
            | Fault::Heal
            | Fault::Pause(_)
            | Fault::ClockJump(..)
            | Fault::ClockRate(..)
            | Fault::LostUnsynced(..)
            | Fault::TornWrite(_)
            | Fault::BitRot(_)
            | Fault::Misdirected(_)
            | Fault::WriteError(_)
            | Fault::SyncError(_)
            | Fault::DiskFull(_)
            | Fault::DiskLow(_)
            | Fault::DiskOut(_)
            | Fault::Suspicion(_) => true,
        },
        Fact::Written { .. }
        | Fact::Synced { .. }
        | Fact::Executed { .. }
        | Fact::Noted { .. }
        | Fact::Ignored { .. } => false,
    }
}
