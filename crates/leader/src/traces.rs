//! The calls that are followed, and how far they are at this leader (ADR 0035).
//!
//! What a leader does for a call is three spans that follow each other: it *executes* the call or keeps it; the call, or
//! its command, is *queued* until the command is sent; the command is *voted* for. An answer without a command waits in
//! the output *gate* instead.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::message::{Executed, Stored, ToLeader};
use protocol::trace::{Span, SpanId, Stage};
use protocol::{CommandNumber, NodeId, RequestId, Tick, TraceId, Tracer};

use crate::core::Input;

/// The most calls that are followed at a time: far more than wait for an answer where a small share is. Of more, some
/// lose spans.
const CALLS_MAX: usize = 4_096;

/// See the module.
pub(crate) struct Traces {
    tracer: Option<Arc<Tracer>>,
    calls: BTreeMap<RequestId, Call>,
}

/// A call that has no answer yet.
struct Call {
    trace: TraceId,
    parent: SpanId,
    /// When its first turn was over.
    since: Tick,
}

/// A call that arrives.
pub(crate) struct Arrival {
    request: RequestId,
    trace: TraceId,
    gateway: NodeId,
}

impl Traces {
    pub(crate) fn new(tracer: Option<Arc<Tracer>>) -> Self {
        Self { tracer, calls: BTreeMap::new() }
    }

    /// The call that comes with an input, if it is followed; its copies are no news.
    pub(crate) fn arrival(&self, input: &Input) -> Option<Arrival> {
        let tracer = self.tracer.as_ref()?;
        let Input::Message { from, message: ToLeader::ExecuteFunction(call) } = input else { return None };
        let trace = tracer.follows(&call.request)?;
        let is_new = !self.calls.contains_key(&call.request);
        is_new.then(|| Arrival { request: call.request.clone(), trace, gateway: *from })
    }

    /// The first turn of a call is over, and took so long.
    pub(crate) fn executed(&mut self, arrival: Arrival, took: Duration, now: Tick) {
        let Arrival { request, trace, gateway } = arrival;
        let parent = trace.call(gateway);
        self.record(Span::new(trace, Stage::Execute, took).below(parent));
        if self.calls.len() >= CALLS_MAX {
            self.calls.pop_first();
        }
        self.calls.insert(request, Call { trace, parent, since: now });
    }

    /// An answer leaves. `sent` says when a command was sent to be voted for, as long as its run is under way.
    pub(crate) fn answered(&mut self, answer: &Executed, sent: impl Fn(CommandNumber) -> Option<Tick>, now: Tick) {
        let Some(Call { trace, parent, since }) = self.calls.remove(&answer.request) else { return };
        let Some(at) = answer.outcome.at() else { return };
        let becomes_command = answer.stored == Stored::Now;
        if !becomes_command && answer.stored == Stored::No {
            self.record(Span::new(trace, Stage::Gate, now.since(since)).below(parent).with("quorate.command", at));
        }
        let Some(sent) = sent(at).filter(|_| becomes_command) else { return };
        let queue = Span::new(trace, Stage::Queue, sent.since(since)).below(parent);
        self.record(Span { ago: now.since(sent), ..queue });
        let vote = Span::new(trace, Stage::Vote, now.since(sent)).below(parent).with("quorate.command", at);
        self.record(Span { id: Some(trace.vote(at)), ..vote });
    }

    /// This node does not lead: what it answers from now on says nothing of how long things take.
    pub(crate) fn forget(&mut self) {
        self.calls.clear();
    }

    fn record(&self, span: Span) {
        if let Some(tracer) = &self.tracer {
            (tracer.record)(span);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use protocol::trace::{Sampling, TraceIds};
    use protocol::{Call as Asked, Fingerprint, Outcome};

    use super::*;

    const GATEWAY: NodeId = NodeId(2);

    fn traces(share: f64) -> (Traces, Arc<Mutex<Vec<Span>>>) {
        let spans = Arc::new(Mutex::new(Vec::new()));
        let recorded = Arc::clone(&spans);
        let tracer = Tracer {
            ids: TraceIds::new("test"),
            sampling: Sampling::new(share).expect("a share"),
            record: Box::new(move |span| recorded.lock().expect("no panic").push(span)),
        };
        (Traces::new(Some(Arc::new(tracer))), spans)
    }

    fn call(number: u128) -> Input {
        let call = Asked {
            request: RequestId::Gateway(number),
            fingerprint: Fingerprint::default(),
            function: "f".into(),
            arguments: "{}".into(),
            patience: Duration::ZERO,
            copy: 0,
        };
        Input::Message { from: GATEWAY, message: ToLeader::ExecuteFunction(call) }
    }

    fn answer(outcome: Outcome, stored: Stored) -> Executed {
        let fingerprint = Fingerprint::default();
        Executed { request: RequestId::Gateway(1), copy: Some(0), fingerprint, outcome, stored }
    }

    /// The stages of a call that is answered so, 30 us after it was executed.
    fn stages(outcome: Outcome, stored: Stored, sent: Option<u64>) -> Vec<(Stage, Duration)> {
        let (mut traces, spans) = traces(1.0);
        let arrival = traces.arrival(&call(1)).expect("it is followed");
        traces.executed(arrival, Duration::from_micros(3), Tick(10));
        traces.answered(&answer(outcome, stored), |_| sent.map(Tick), Tick(40));
        assert!(traces.calls.is_empty(), "an answer ends it");
        spans.lock().expect("no panic").iter().map(|span| (span.stage, span.took)).collect()
    }

    /// Catches an answer of which a trace tells what did not happen: votes for what became no command, a wait in the gate
    /// of what did not wait, and steps of a call that another leader has executed.
    #[test]
    fn what_an_answer_waited_for_depends_on_what_it_is() {
        let executed = (Stage::Execute, Duration::from_micros(3));
        let us = Duration::from_micros;
        let unchanged = || Outcome::Unchanged { at: CommandNumber(7), result: "{}".into() };
        let issued = || Outcome::Issued { command: CommandNumber(7), result: "{}".into() };
        let voted = [executed, (Stage::Queue, us(5)), (Stage::Vote, us(25))];
        assert_eq!(stages(issued(), Stored::Now, Some(15)), voted);
        assert_eq!(stages(unchanged(), Stored::Now, Some(15)), voted, "a recorded answer is a command");
        assert_eq!(stages(unchanged(), Stored::No, Some(15)), [executed, (Stage::Gate, us(30))]);
        assert_eq!(stages(issued(), Stored::Before, Some(15)), [executed]);
        assert_eq!(stages(Outcome::Overloaded, Stored::No, Some(15)), [executed]);
        assert_eq!(stages(issued(), Stored::Now, None), [executed], "its run is not known here");
    }

    /// Catches a leader that follows what is not to be followed, or a copy as a call of its own; and calls without an
    /// answer that fill the memory.
    #[test]
    fn calls_that_are_followed_are_bounded() {
        let (none, _) = traces(0.0);
        assert!(none.arrival(&call(1)).is_none() && none.arrival(&Input::Tick).is_none());
        let (mut traces, _) = traces(1.0);
        for number in 0..2 * CALLS_MAX as u128 {
            let arrival = traces.arrival(&call(number)).expect("it is new");
            traces.executed(arrival, Duration::ZERO, Tick(1));
            assert!(traces.arrival(&call(number)).is_none(), "a copy is not");
        }
        assert_eq!(traces.calls.len(), CALLS_MAX);
        traces.forget();
        assert!(traces.calls.is_empty());
    }
}
