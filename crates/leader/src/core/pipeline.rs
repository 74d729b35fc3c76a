//! The pipeline: commands proposed and not yet issued, in order of their numbers.
//!
//! Patent steps 3', 3" and 5. A command is issued when a majority set has voted for it in this
//! one ballot and its precedent is issued; since votes in a ballot are gap-free, the tally is
//! one number an acceptor, and issuing pops the front. There are no gaps and no no-op commands.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use protocol::{Command, CommandId, CommandNumber, Fingerprint, MajoritySets, NodeId, RequestId, Run, Tick, Verdict};

/// Who waits for a call, and whether it asked again for what somebody had asked before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Waiter {
    pub(crate) gateway: NodeId,
    /// The copy by which it asked.
    pub(crate) copy: u32,
    pub(crate) repeated: bool,
}

/// A proposed command and who waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Proposed {
    pub(crate) command: Command,
    pub(crate) request: RequestId,
    pub(crate) fingerprint: Fingerprint,
    /// What the function returned, for those who wait.
    pub(crate) verdict: Verdict,
    pub(crate) waiters: Vec<Waiter>,
    /// When this node proposed it.
    pub(crate) since: Tick,
}

/// How far one acceptor has come in this ballot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Progress {
    /// It is known to have promised this ballot. Until then it ignores what it is sent, perhaps
    /// because it was down when promises were asked for.
    promised: bool,
    /// It voted for everything up to here, or knows it issued.
    voted: CommandNumber,
    /// When to send again what it has not answered.
    resend_at: Tick,
    /// The pause before the next repetition; doubles while it stays silent.
    pause: Duration,
}

/// Bounds of what is sent at once and how it is repeated.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pacing {
    /// Commands begun past the last issued one, at most (claim 5).
    pub(crate) window: u64,
    /// Bytes of one run, beyond its first command.
    pub(crate) run_bytes: usize,
    /// The first pause before a repetition.
    pub(crate) resend: Duration,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pipeline {
    pacing: Pacing,
    /// The last issued command; the front of `proposed` follows it.
    issued: CommandId,
    proposed: VecDeque<Proposed>,
    bytes: usize,
    /// Everything up to here was sent in this ballot.
    sent: CommandNumber,
    progress: BTreeMap<NodeId, Progress>,
}

/// The longest pause before a repetition.
const RESEND_PAUSE_MAX: Duration = Duration::from_secs(2);

impl Pipeline {
    /// An empty pipeline above `issued`.
    pub(crate) fn new(pacing: Pacing, issued: CommandId, acceptors: &MajoritySets, now: Tick) -> Self {
        let fresh =
            Progress { promised: false, voted: issued.number, resend_at: now + pacing.resend, pause: pacing.resend };
        let progress = acceptors.nodes().iter().map(|node| (*node, fresh.clone())).collect();
        Self { pacing, issued, proposed: VecDeque::new(), bytes: 0, sent: issued.number, progress }
    }

    /// The last issued command.
    pub(crate) fn issued(&self) -> CommandId {
        self.issued
    }

    /// The last proposed command, the precedent of the next one.
    pub(crate) fn last(&self) -> CommandId {
        self.proposed.back().map_or(self.issued, |last| last.command.id)
    }

    /// Whether there is room for another command (claim 5, and memory).
    pub(crate) fn has_room(&self, bytes_max: usize) -> bool {
        (self.proposed.len() as u64) < self.pacing.window && self.bytes < bytes_max
    }

    /// Appends a command.
    ///
    /// # Panics
    /// When it does not follow the last one: the leader's own state is broken.
    pub(crate) fn push(&mut self, proposed: Proposed) {
        assert!(proposed.command.follows(self.last()), "each command's precedent is the one proposed before it");
        assert!(proposed.command.is_well_formed(), "commands are numbered consecutively");
        self.bytes += storage::weight(&proposed.command);
        self.proposed.push_back(proposed);
    }

    /// The command proposed for `number`, while it is not issued.
    pub(crate) fn get_mut(&mut self, number: CommandNumber) -> Option<&mut Proposed> {
        let index = number.0.checked_sub(self.issued.number.0)?.checked_sub(1)?;
        self.proposed.get_mut(usize::try_from(index).ok()?)
    }

    fn get(&self, number: CommandNumber) -> Option<&Proposed> {
        let index = number.0.checked_sub(self.issued.number.0)?.checked_sub(1)?;
        self.proposed.get(usize::try_from(index).ok()?)
    }

    /// Whether commands wait to be sent and the window allows it.
    pub(crate) fn has_unsent(&self) -> bool {
        self.sent < self.last().number && self.sent.0 < self.issued.number.0.saturating_add(self.pacing.window)
    }

    /// The next run to send to all acceptors, in order of numbers, within the window (claim 5)
    /// and the bytes of a run.
    pub(crate) fn take_unsent(&mut self) -> Vec<Command> {
        let run = self.run_from(self.sent.next());
        if let Some(last) = run.last() {
            self.sent = last.number();
        }
        run
    }

    fn run_from(&self, first: CommandNumber) -> Vec<Command> {
        let limit = self.issued.number.0.saturating_add(self.pacing.window);
        let mut bytes = 0;
        let mut run = Vec::new();
        let mut number = first;
        while let Some(proposed) = self.get(number).filter(|_| number.0 <= limit) {
            bytes += storage::weight(&proposed.command);
            if bytes > self.pacing.run_bytes && !run.is_empty() {
                break;
            }
            run.push(proposed.command.clone());
            number = number.next();
        }
        run
    }

    /// An acceptor has said anything in this ballot, so it has promised it, and the pauses before
    /// repetitions are short again. It may still lack a run, so a repetition that is due stays due.
    pub(crate) fn heard(&mut self, acceptor: NodeId, now: Tick) {
        if let Some(progress) = self.progress.get_mut(&acceptor) {
            progress.promised = true;
            progress.pause = self.pacing.resend;
            progress.resend_at = progress.resend_at.min(now + progress.pause);
        }
    }

    /// Whether an acceptor is known to have promised this ballot.
    pub(crate) fn has_promised(&self, acceptor: NodeId) -> bool {
        self.progress.get(&acceptor).is_some_and(|progress| progress.promised)
    }

    /// Takes note of an acceptor's vote in this ballot; says whether it is news. `None` when the
    /// vote names another command than the one proposed: a peer's error, or another cluster's.
    pub(crate) fn voted(&mut self, acceptor: NodeId, run: Run, now: Tick) -> Option<bool> {
        let ours = self.get(run.last.number);
        if ours.is_some_and(|ours| ours.command.id != run.last) || run.last.number > self.last().number {
            return None;
        }
        let progress = self.progress.get_mut(&acceptor)?;
        let news = run.last.number > progress.voted;
        if news {
            progress.voted = run.last.number;
            progress.resend_at = now + self.pacing.resend;
        }
        Some(news)
    }

    /// Pops what a majority set has voted for: in order, each after its precedent.
    pub(crate) fn issue(&mut self, acceptors: &MajoritySets) -> Vec<Proposed> {
        match acceptors.reached(|node| self.progress.get(&node).map(|progress| progress.voted)) {
            Some(reached) => self.issue_up_to(reached),
            None => Vec::new(),
        }
    }

    /// Pops all up to `number`: they are known to be issued.
    pub(crate) fn issue_up_to(&mut self, number: CommandNumber) -> Vec<Proposed> {
        let mut issued = Vec::new();
        while let Some(front) = self.proposed.pop_front_if(|front| front.command.number() <= number) {
            assert!(front.command.follows(self.issued), "a command is issued only after its precedent");
            self.bytes -= storage::weight(&front.command);
            self.issued = front.command.id;
            self.sent = self.sent.max(self.issued.number);
            issued.push(front);
        }
        issued
    }

    /// An acceptor can be reached again: send it at once what it has not answered.
    pub(crate) fn reconnected(&mut self, acceptor: NodeId, now: Tick) {
        if let Some(progress) = self.progress.get_mut(&acceptor) {
            progress.resend_at = now;
            progress.pause = self.pacing.resend;
        }
    }

    /// The acceptors that are due for a repetition, each with the oldest run that it has not
    /// answered (S-26), possibly empty when it only lags in rounds or has not promised.
    pub(crate) fn due(&mut self, now: Tick, behind_in_round: impl Fn(NodeId) -> bool) -> Vec<(NodeId, Vec<Command>)> {
        let mut due = Vec::new();
        for (node, progress) in &mut self.progress {
            let behind =
                !progress.promised || progress.voted.max(self.issued.number) < self.sent || behind_in_round(*node);
            if !behind {
                progress.resend_at = now + progress.pause;
            } else if now >= progress.resend_at {
                progress.pause = (progress.pause * 2).min(RESEND_PAUSE_MAX);
                progress.resend_at = now + progress.pause;
                due.push((*node, progress.voted.max(self.issued.number).next()));
            }
        }
        let sent = self.sent;
        due.into_iter()
            .map(|(node, first)| {
                (node, self.run_from(first).into_iter().take_while(|command| command.number() <= sent).collect())
            })
            .collect()
    }

    /// Everything proposed and not issued; empties the pipeline.
    pub(crate) fn drain(&mut self) -> Vec<Proposed> {
        self.bytes = 0;
        self.proposed.drain(..).collect()
    }

    /// Since when the oldest command waits to be issued.
    pub(crate) fn oldest(&self) -> Option<Tick> {
        self.proposed.front().map(|oldest| oldest.since)
    }

    /// How many commands are proposed and not issued.
    pub(crate) fn len(&self) -> usize {
        self.proposed.len()
    }
}
