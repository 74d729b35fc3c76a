//! What an operator gets to see of a leader: metrics, and one log line an event.

use std::collections::{BTreeMap, VecDeque};

use metrics::{Counter, Gauge, Histogram};
use protocol::{CommandNumber, Now, Tick};
use tracing::{info, warn};

use crate::core::{IgnoreReason, Load, Note};

/// The metrics of every turn, looked up once.
pub(crate) struct Meters {
    unissued: Gauge,
    oldest_unissued: Gauge,
    kept_calls: Gauge,
    held_replies: Gauge,
    leads: Gauge,
    /// Of a function on this thread.
    pub(crate) execute: Histogram,
    vote: Histogram,
    /// Runs that were sent to be voted for: the last number of each, and when.
    runs: VecDeque<(CommandNumber, Tick)>,
    /// The highest number that was sent in this ballot.
    last: CommandNumber,
    /// Of `last_tried`.
    pub(crate) syncs: Counter,
    ignored: BTreeMap<IgnoreReason, Counter>,
}

impl Meters {
    pub(crate) fn new() -> Self {
        Self {
            unissued: metrics::gauge!("quorate_leader_unissued_commands"),
            oldest_unissued: metrics::gauge!("quorate_leader_oldest_unissued_age_seconds"),
            kept_calls: metrics::gauge!("quorate_leader_kept_calls"),
            held_replies: metrics::gauge!("quorate_leader_held_replies"),
            leads: metrics::gauge!("quorate_leader_leads"),
            execute: metrics::histogram!("quorate_leader_execute_seconds"),
            vote: metrics::histogram!("quorate_leader_vote_seconds"),
            runs: VecDeque::new(),
            last: CommandNumber::NULL,
            syncs: metrics::counter!("quorate_leader_syncs_total"),
            ignored: BTreeMap::new(),
        }
    }

    /// A run of commands was sent; repetitions are no news.
    pub(crate) fn proposed(&mut self, last: CommandNumber, now: Tick) {
        if last > self.last {
            self.last = last;
            self.runs.push_back((last, now));
        }
    }

    /// When the command of that number was sent, as long as its run is not issued.
    pub(crate) fn sent(&self, number: CommandNumber) -> Option<Tick> {
        let run = self.runs.partition_point(|(last, _)| *last < number);
        self.runs.get(run).map(|(_, sent)| *sent)
    }

    /// Times the runs that are issued: what was sent last, less what waits.
    fn issued(&mut self, load: &Load, leads: bool, now: Tick) {
        if !leads {
            self.runs.clear();
            self.last = CommandNumber::NULL;
        }
        let issued = self.last.0.saturating_sub(load.unissued as u64);
        while let Some((_, sent)) = self.runs.pop_front_if(|(last, _)| last.0 <= issued) {
            self.vote.record(now.since(sent));
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and these are small")]
    pub(crate) fn set(&mut self, load: &Load, leads: bool, now: Now) {
        self.issued(load, leads, now.tick);
        self.leads.set(f64::from(u8::from(leads)));
        self.unissued.set(load.unissued as f64);
        let age = load.oldest_unissued.map(|since| now.tick.since(since)).unwrap_or_default();
        self.oldest_unissued.set(age.as_secs_f64());
        self.kept_calls.set(load.kept_calls as f64);
        self.held_replies.set(load.held_replies as f64);
    }

    pub(crate) fn ignored(&mut self, reason: IgnoreReason) {
        let fresh = || metrics::counter!("quorate_leader_ignored_total", "reason" => reason.name());
        self.ignored.entry(reason).or_insert_with(fresh).increment(1);
    }
}

/// One line for each thing that an operator may want to read.
pub(crate) fn log(note: &Note) {
    match note {
        Note::Campaigns(ballot) => {
            metrics::counter!("quorate_leader_ballots_total").increment(1);
            info!(%ballot, "asks for promises to lead");
        }
        Note::Leads { ballot, history, issued } => {
            metrics::counter!("quorate_leader_elections_won_total").increment(1);
            info!(%ballot, history, %issued, "leads: a majority set promised; so many commands of earlier ballots are proposed again");
        }
        Note::Membership { number, nodes, acceptors } => {
            metrics::gauge!("quorate_membership_number").set(number.0 as f64);
            info!(%number, nodes, acceptors, "the membership has changed");
        }
        Note::HandsOver { ballot, to } => {
            handed_over("begun");
            info!(%ballot, %to, "hands the lead over, and takes no calls meanwhile");
        }
        Note::HandedOver { ballot, to } => {
            handed_over("done");
            info!(%ballot, %to, "has handed the lead over");
        }
        Note::NotHandedOver { ballot, to } => {
            handed_over("timed_out");
            warn!(%ballot, %to, "that node has not taken the lead over in time; its log and /readyz may say why");
        }
        Note::StepsDown { ballot, reason, superseded_by, unissued } => {
            metrics::counter!("quorate_leader_step_downs_total").increment(1);
            let by = superseded_by.map(|ballot| ballot.to_string()).unwrap_or_default();
            warn!(%ballot, reason, superseded_by = by, unissued, "does not lead any more, or gave up trying");
        }
    }
}

fn handed_over(outcome: &'static str) {
    metrics::counter!("quorate_leader_hand_overs_total", "outcome" => outcome).increment(1);
}
