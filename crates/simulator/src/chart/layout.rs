//! Where everything stands: facts become rows, rows become shapes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use protocol::{Ballot, Message, NodeId, Now};

use super::{Chart, Item, Lane, change, label};
use crate::fact::Fact;
use crate::fault::Fault;
use crate::words::{Broken, Device, Devices, Happened, Said, Seconds, Stops};

/// From one row with a label to the next, in pixels, so that labels do not lie on each other.
const LABELLED: i64 = 17;
/// The height of a label above its row.
const ABOVE: i64 = 15;
/// Labels of marks stand so much lower than those of arrows.
const BELOW: i64 = 4;
/// From any row to the next.
const BARE: i64 = 9;
/// How far a lost message comes down at least.
const LOST: i64 = 12;
/// A longer time without events adds a pixel for so many microseconds, up to [`GAP_MAX`].
const MICROS_OF_A_PIXEL: u64 = 5_000;
/// The longest gap that time alone makes.
const GAP_MAX: u64 = 20;
/// Times that differ by less, in microseconds, are written once.
const TIME_STEP: u64 = 100;

/// All shapes. Lanes are counted from the left; `y` runs down from 0 in pixels.
#[derive(Debug, Default)]
pub(super) struct Drawing {
    pub(super) title: String,
    /// So many facts came before the first one that is shown.
    pub(super) dropped: u64,
    pub(super) lanes: Vec<NodeId>,
    /// All ballots, in order: the place of one is its colour.
    pub(super) ballots: BTreeSet<Ballot>,
    pub(super) segments: Vec<Segment>,
    pub(super) arrows: Vec<Arrow>,
    pub(super) marks: Vec<Mark>,
    pub(super) times: Vec<Text>,
    pub(super) remarks: Vec<Text>,
    pub(super) clients: Vec<Client>,
    pub(super) spans: Vec<Span>,
    /// The last row.
    pub(super) bottom: i64,
}

/// A piece of a lane that looks the same all along.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) lane: usize,
    pub(super) from: i64,
    pub(super) until: i64,
    pub(super) look: Lane,
}

/// A message.
#[derive(Debug)]
pub(super) struct Arrow {
    pub(super) from: usize,
    pub(super) to: usize,
    /// Where it left; none when that was before the first row.
    pub(super) left: Option<i64>,
    pub(super) end: End,
    /// Empty when another arrow from the same place bears it.
    pub(super) label: String,
    pub(super) title: String,
    pub(super) ballot: Option<Ballot>,
    /// How many times it was sent.
    pub(super) copies: u32,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It arrived, in this row.
    Arrives(i64),
    /// It was lost, at the latest in this row.
    Lost(i64),
    /// Nobody knows yet.
    UnderWay,
}

/// Something on a lane.
#[derive(Debug)]
pub(super) struct Mark {
    pub(super) lane: usize,
    pub(super) y: i64,
    pub(super) sign: Sign,
    pub(super) text: String,
    pub(super) title: String,
}

/// What a mark looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    Applied,
    Leads(Option<Ballot>),
    Down,
    Up,
    Fault,
}

/// Something in a row, beside the lanes.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) y: i64,
    pub(super) text: String,
}

/// What a client asks, or is told.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) y: i64,
    /// The lane of the node asked, if that is known.
    pub(super) lane: Option<usize>,
    pub(super) asks: bool,
    pub(super) text: String,
    pub(super) title: String,
}

/// Rows in which links are cut.
#[derive(Debug)]
pub(super) struct Span {
    pub(super) from: i64,
    pub(super) until: Option<i64>,
    pub(super) title: String,
}

/// A link and a message on it, to find the arrow again.
type Key = (NodeId, NodeId, u64);

/// A row from which several equal messages leave.
struct Burst {
    from: NodeId,
    label: String,
    now: Now,
    y: i64,
    /// Whether a label stands at the right, at the left.
    labelled: [bool; 2],
}

/// What becomes of a message in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Arrives,
    Lost,
}

/// Commands applied in a row, shown by one dot.
struct Applying {
    node: NodeId,
    first: u64,
    now: Now,
}

struct Layout<'a> {
    chart: &'a Chart,
    drawing: Drawing,
    y: i64,
    labelled: i64,
    /// Remarks for the next row.
    remarks: Vec<String>,
    remarked: i64,
    timed: Option<(Now, i64)>,
    now: Option<Now>,
    /// Since which row each lane looks like this.
    looks: BTreeMap<NodeId, (i64, Lane)>,
    under_way: BTreeMap<Key, VecDeque<usize>>,
    /// The last arrow of each message.
    drawn: BTreeMap<Key, usize>,
    /// What became of each message that was sent, by its place among what is kept.
    fates: BTreeMap<usize, Fate>,
    /// The last message on each link, for merging.
    last: BTreeMap<(NodeId, NodeId), (Key, Option<Fate>)>,
    burst: Option<Burst>,
    applying: Option<Applying>,
    asked: BTreeMap<u64, NodeId>,
}

pub(super) fn layout(chart: &Chart) -> Drawing {
    let drawing = Drawing {
        title: chart.settings.title.clone(),
        dropped: chart.dropped,
        lanes: chart.lanes().into_iter().collect(),
        ..Drawing::default()
    };
    let mut layout = Layout {
        chart,
        drawing,
        y: 0,
        labelled: 0,
        remarks: Vec::new(),
        remarked: -LABELLED,
        timed: None,
        now: None,
        looks: chart.before.iter().map(|(node, lane)| (*node, (0, *lane))).collect(),
        under_way: BTreeMap::new(),
        drawn: BTreeMap::new(),
        fates: fates(chart),
        last: BTreeMap::new(),
        burst: None,
        applying: None,
        asked: BTreeMap::new(),
    };
    for (place, (now, item)) in chart.kept.iter().enumerate() {
        layout.pass_time(*now);
        match item {
            Item::Fact(fact) if let Fact::Sent { from, to, message } = fact.as_ref() => {
                layout.sent(place, *now, (*from, *to), message);
            }
            Item::Fact(fact) => layout.fact(*now, fact),
            Item::Remark(text) => layout.remarks.push(text.clone()),
        }
    }
    layout.finish()
}

impl Layout<'_> {
    fn finish(mut self) -> Drawing {
        if let Some(now) = self.now.filter(|_| !self.remarks.is_empty()) {
            self.labelled_row(now);
        }
        self.drawing.bottom = self.y + LABELLED;
        for (node, (from, look)) in std::mem::take(&mut self.looks) {
            self.segment(node, from, self.drawing.bottom, look);
        }
        let looks = self.drawing.segments.iter().filter_map(|segment| segment.look.leads);
        let ballots = looks.chain(self.drawing.arrows.iter().filter_map(|arrow| arrow.ballot));
        self.drawing.ballots = ballots.collect();
        self.drawing
    }

    fn lane(&self, node: NodeId) -> Option<usize> {
        self.drawing.lanes.iter().position(|lane| *lane == node)
    }

    fn pass_time(&mut self, now: Now) {
        let micros = self.now.map_or(0, |before| now.tick.0.saturating_sub(before.tick.0));
        self.now = Some(now);
        let gap = (micros / MICROS_OF_A_PIXEL).min(GAP_MAX);
        self.y += i64::try_from(gap).unwrap_or(0);
    }

    fn bare_row(&mut self, now: Now) -> i64 {
        self.row(now, self.y + BARE)
    }

    fn labelled_row(&mut self, now: Now) -> i64 {
        self.labelled = self.row(now, (self.y + BARE).max(self.labelled + LABELLED));
        self.labelled
    }

    /// A row whose label stands above it, and hides no arrow that ends in the row before.
    fn row_below_label(&mut self, now: Now) -> i64 {
        self.y += ABOVE - BARE;
        self.labelled_row(now)
    }

    /// A new row, at `y` or somewhat below.
    fn row(&mut self, now: Now, y: i64) -> i64 {
        self.burst = None;
        self.applying = None;
        self.y = y;
        if !self.remarks.is_empty() {
            self.y = y.max(self.remarked + LABELLED);
            self.remarked = self.y;
            let text = std::mem::take(&mut self.remarks).join("; ");
            self.drawing.remarks.push(Text { y: self.y, text });
        }
        let is_due = self
            .timed
            .is_none_or(|(before, y)| now.tick.0.saturating_sub(before.tick.0) >= TIME_STEP && self.y - y >= LABELLED);
        if self.chart.settings.times && is_due {
            self.timed = Some((now, self.y));
            self.drawing.times.push(Text { y: self.y, text: Seconds(now).to_string() });
        }
        self.y
    }

    fn fact(&mut self, now: Now, fact: &Fact) {
        match fact {
            Fact::Delivered { from, to, message } => {
                let y = self.bare_row(now);
                self.ends(*from, *to, message, End::Arrives(y));
            }
            Fact::Lost { from, to, message } => self.ends(*from, *to, message, End::Lost(self.y)),
            Fact::Applied { node, command, .. } => self.applied(now, *node, command.number().0, fact),
            Fact::Installed { node, id } => {
                self.mark(now, *node, Sign::Applied, &format!("state {}", id.at.number), fact);
            }
            Fact::Leads { node, ballot } => self.leads(now, *node, *ballot, fact),
            Fact::Started { node, life, .. } => {
                let known = self.looks.get(node);
                let was_up = known.is_none_or(|(_, lane)| lane.up);
                if known.is_some() && (*life > 1 || !was_up) {
                    self.mark(now, *node, Sign::Up, "is up again", fact);
                }
                self.change(fact);
            }
            Fact::Stopped { node, why } => {
                self.mark(now, *node, Sign::Down, &Stops(*why).to_string(), fact);
                self.change(fact);
            }
            Fact::Asked { client, ticket, via, question } => {
                self.asked.insert(*ticket, *via);
                let text = format!("client {client} asks {}: {}", Device(*via), label::question(question));
                self.client(now, Some(*via), true, text, fact);
            }
            Fact::Told { client, ticket, answer } => {
                let via = self.asked.remove(ticket);
                self.client(now, via, false, format!("client {client} is told: {}", label::answer(answer)), fact);
            }
            Fact::Fault(fault) => self.fault(now, fault, fact),
            Fact::Healed { core } => {
                self.mend(now);
                self.remarks.push(format!("healed: {}", Devices(core)));
                self.labelled_row(now);
            }
            // Taken before, or not kept.
            Fact::Sent { .. }
            | Fact::Written { .. }
            | Fact::Synced { .. }
            | Fact::Executed { .. }
            | Fact::Noted { .. }
            | Fact::Ignored { .. } => {}
        }
    }

    fn sent(&mut self, place: usize, now: Now, (from, to): (NodeId, NodeId), message: &Message) {
        let (Some(from_lane), Some(to_lane)) = (self.lane(from), self.lane(to)) else { return };
        let key = (from, to, digest(message));
        // One that was lost and one that arrived are two things.
        let last = (key, self.fates.get(&place).copied());
        if self.chart.settings.merge
            && self.last.insert((from, to), last) == Some(last)
            && let Some(arrow) = self.drawn.get(&key)
        {
            self.drawing.arrows[*arrow].copies += 1;
            self.under_way.entry(key).or_default().push_back(*arrow);
            return;
        }
        let mut text = label::label(message);
        let side = usize::from(to_lane < from_lane);
        let shared = self.burst.take().filter(|burst| (burst.from, &burst.label, burst.now) == (from, &text, now));
        let mut burst = shared.unwrap_or_else(|| {
            let y = self.row_below_label(now);
            Burst { from, label: text.clone(), now, y, labelled: [false, false] }
        });
        if std::mem::replace(&mut burst.labelled[side], true) {
            text.clear();
        }
        let title = format!("{} {} -> {} {}", Seconds(now), Device(from), Device(to), Said(message));
        let index = self.drawing.arrows.len();
        self.drawing.arrows.push(Arrow {
            from: from_lane,
            to: to_lane,
            left: Some(burst.y),
            end: End::UnderWay,
            label: text,
            title,
            ballot: label::ballot(message),
            copies: 1,
        });
        self.burst = Some(burst);
        self.under_way.entry(key).or_default().push_back(index);
        self.drawn.insert(key, index);
    }

    fn ends(&mut self, from: NodeId, to: NodeId, message: &Message, end: End) {
        let key = (from, to, digest(message));
        if let Some(index) = self.under_way.get_mut(&key).and_then(VecDeque::pop_front) {
            let arrow = &mut self.drawing.arrows[index];
            let end = match (arrow.end, end) {
                (End::Arrives(_) | End::Lost(_), _) => arrow.end,
                (_, End::Lost(y)) => End::Lost(y.max(arrow.left.unwrap_or(y) + LOST)),
                (_, end) => end,
            };
            arrow.end = end;
            return;
        }
        let (Some(from_lane), Some(to_lane)) = (self.lane(from), self.lane(to)) else { return };
        // Another copy of a message, or one that was sent before the first row.
        let left = self.drawn.get(&key).and_then(|index| self.drawing.arrows[*index].left);
        let said = if left.is_some() { "another copy" } else { "sent earlier" };
        let title = format!("{} -> {} {} ({said})", Device(from), Device(to), Said(message));
        let ballot = label::ballot(message);
        let label = String::new();
        self.drawing.arrows.push(Arrow { from: from_lane, to: to_lane, left, end, label, title, ballot, copies: 1 });
    }

    fn applied(&mut self, now: Now, node: NodeId, number: u64, fact: &Fact) {
        if self.lane(node).is_none() {
            return;
        }
        let applying = self.applying.take().filter(|applying| (applying.node, applying.now) == (node, now));
        let first = applying.as_ref().map_or(number, |applying| applying.first);
        if applying.is_none() {
            self.mark(now, node, Sign::Applied, "", fact);
        }
        if let Some(mark) = self.drawing.marks.last_mut().filter(|mark| mark.sign == Sign::Applied) {
            mark.text = label::range(first, number);
        }
        self.applying = Some(Applying { node, first, now });
    }

    fn leads(&mut self, now: Now, node: NodeId, ballot: Option<Ballot>, fact: &Fact) {
        let before = self.looks.get(&node).map(|(_, lane)| *lane);
        if before.is_some_and(|lane| lane.leads == ballot) {
            return;
        }
        let text = ballot.map_or_else(|| "leads no more".to_owned(), |ballot| format!("leads {ballot}"));
        self.mark(now, node, Sign::Leads(ballot), &text, fact);
        self.change(fact);
    }

    fn mark(&mut self, now: Now, node: NodeId, sign: Sign, text: &str, fact: &Fact) {
        let Some(lane) = self.lane(node) else { return };
        let y = self.labelled_row(now);
        self.labelled += BELOW;
        let title = format!("{} {}", Seconds(now), Happened(fact));
        self.drawing.marks.push(Mark { lane, y, sign, text: text.to_owned(), title });
    }

    fn client(&mut self, now: Now, via: Option<NodeId>, asks: bool, text: String, fact: &Fact) {
        let y = self.labelled_row(now);
        self.labelled += BELOW;
        let title = format!("{} {}", Seconds(now), Happened(fact));
        let lane = via.and_then(|node| self.lane(node));
        self.drawing.clients.push(Client { y, lane, asks, text, title });
    }

    /// The lane of a node looks otherwise from the present row on.
    fn change(&mut self, fact: &Fact) {
        let Some((node, change)) = change(fact) else { return };
        let Some((from, before)) = self.looks.get(&node).copied() else {
            // It has joined: its lane begins here.
            self.looks.insert(node, (self.y, change.of(Lane { up: false, leads: None })));
            return;
        };
        let after = change.of(before);
        if after != before {
            self.segment(node, from, self.y, before);
            self.looks.insert(node, (self.y, after));
        }
    }

    fn segment(&mut self, node: NodeId, from: i64, until: i64, look: Lane) {
        if let Some(lane) = self.lane(node) {
            self.drawing.segments.push(Segment { lane, from, until, look });
        }
    }

    fn fault(&mut self, now: Now, fault: &Fault, fact: &Fact) {
        let text = Broken(fault).to_string();
        match fault {
            Fault::Partition { .. } => {
                self.mend(now);
                self.remarks.push(text.clone());
                let y = self.labelled_row(now);
                self.drawing.spans.push(Span { from: y, until: None, title: text });
            }
            Fault::Heal => self.mend(now),
            Fault::Crash(node)
            | Fault::Kill(node)
            | Fault::Restart(node)
            | Fault::Pause(node)
            | Fault::ClockJump(node, _)
            | Fault::ClockRate(node, _)
            | Fault::LostUnsynced(node, _)
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
            | Fault::DownInChange(node) => self.mark(now, *node, Sign::Fault, &text, fact),
            // Not kept.
            Fault::Message { .. } | Fault::PartitionInChange => {}
        }
    }

    /// The links that were cut work again from here on, or others are cut.
    fn mend(&mut self, now: Now) {
        if self.drawing.spans.last().is_some_and(|span| span.until.is_none()) {
            let y = self.bare_row(now);
            for span in self.drawing.spans.iter_mut().filter(|span| span.until.is_none()) {
                span.until = Some(y);
            }
        }
    }
}

/// Finds out what became of each message that was sent; equal ones arrive in order.
fn fates(chart: &Chart) -> BTreeMap<usize, Fate> {
    let mut under_way: BTreeMap<Key, VecDeque<usize>> = BTreeMap::new();
    let mut fates = BTreeMap::new();
    for (place, (_, item)) in chart.kept.iter().enumerate() {
        let Item::Fact(fact) = item else { continue };
        let (key, fate) = if let Fact::Sent { from, to, message } = fact.as_ref() {
            under_way.entry((*from, *to, digest(message))).or_default().push_back(place);
            continue;
        } else if let Fact::Delivered { from, to, message } = fact.as_ref() {
            ((*from, *to, digest(message)), Fate::Arrives)
        } else if let Fact::Lost { from, to, message } = fact.as_ref() {
            ((*from, *to, digest(message)), Fate::Lost)
        } else {
            continue;
        };
        if let Some(sent) = under_way.get_mut(&key).and_then(VecDeque::pop_front) {
            fates.insert(sent, fate);
        }
    }
    fates
}

/// Tells messages apart; the same in every run.
fn digest(message: &Message) -> u64 {
    let mut hasher = DefaultHasher::new();
    message.hash(&mut hasher);
    hasher.finish()
}
