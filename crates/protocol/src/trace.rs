//! Traces: what single calls go through, under one id on every node (ADR 0035).
//!
//! The id of a call's trace is worked out of its request id, which its gateway, the leader, and whoever holds its command
//! have. So messages and stored commands carry nothing for it. Whether a call is followed is worked out of that id, so
//! that all nodes follow the same calls. The shape of ids is that of W3C Trace Context and OpenTelemetry.
//!
//! Actors tell a [`Tracer`] how long the steps took that they time in any case; cores know nothing of it.

use std::fmt;
use std::time::Duration;

use crate::body;
use crate::call::RequestId;
use crate::command::{Command, CommandNumber};
use crate::node::NodeId;

/// Names a call's trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(pub [u8; 16]);

/// Names a span within a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(pub [u8; 8]);

/// A span, wherever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanContext {
    /// Its trace.
    pub trace: TraceId,
    /// Which one it is there.
    pub span: SpanId,
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl TraceId {
    /// The span of a call that a gateway without data passes on; `of` is a number that is drawn for it.
    #[must_use]
    pub fn forward(self, of: u64) -> SpanId {
        self.span(Stage::Forward, of)
    }

    /// The span of a call at the gateway of a node: the leader, which knows the gateway, names it as a parent.
    #[must_use]
    pub fn call(self, gateway: NodeId) -> SpanId {
        self.span(Stage::Call, gateway.0)
    }

    /// The span of the votes for the command that the call became: whoever holds the command names it as a parent.
    #[must_use]
    pub fn vote(self, number: CommandNumber) -> SpanId {
        self.span(Stage::Vote, number.0)
    }

    fn span(self, stage: Stage, of: u64) -> SpanId {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0).update(stage.name().as_bytes()).update(&of.to_be_bytes());
        SpanId(first(hasher.finalize().as_bytes()))
    }
}

/// How the calls of a cluster get their ids. Two clusters that are given the same key have two traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceIds([u8; 32]);

impl TraceIds {
    /// Those of the cluster of that name.
    #[must_use]
    pub fn new(cluster: &str) -> Self {
        Self(blake3::derive_key("quorate 2026 traces of calls", cluster.as_bytes()))
    }

    /// That of a call.
    #[must_use]
    pub fn of(&self, request: &RequestId) -> TraceId {
        self.of_bytes(&request.to_bytes())
    }

    fn of_bytes(&self, request: &[u8]) -> TraceId {
        TraceId(first(blake3::keyed_hash(&self.0, request).as_bytes()))
    }
}

fn first<const LENGTH: usize>(hash: &[u8; 32]) -> [u8; LENGTH] {
    *hash.first_chunk().expect("a hash is longer than an id")
}

/// Which share of all calls is followed. Who follows fewer follows some of those that the others follow.
///
/// The rule is OpenTelemetry's for consistent sampling, so that a collector can thin out further by the same one: the
/// last 56 bits of the id are a number, and those calls are followed whose number is not below a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling(u64);

/// One more than the greatest number.
const NUMBERS: u64 = 1 << 56;

impl Sampling {
    /// From 0, none, to 1, all; nothing for any other number.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "it lies between 0 and 2^56"
    )]
    pub fn new(share: f64) -> Option<Self> {
        (0.0..=1.0).contains(&share).then_some(Self(((1.0 - share) * NUMBERS as f64) as u64))
    }

    /// Whether the call of that trace is one of them.
    #[must_use]
    pub fn takes(self, TraceId(id): TraceId) -> bool {
        let number = id[9..].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        number >= self.0
    }
}

/// What a span is of. Those of the roles are the stages of the histograms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// A node that is only a gateway passes a call on.
    Forward,
    /// A gateway has a call, from taking it to its outcome.
    Call,
    /// A leader executes the function of a call, or keeps the call for later.
    Execute,
    /// From then on until the command is sent to be voted for.
    Queue,
    /// From then on until a majority set has voted.
    Vote,
    /// An answer without a command waits until all that it shows is issued.
    Gate,
    /// An acceptor writes and syncs its vote.
    Sync,
    /// A learner applies the command.
    Apply,
}

impl Stage {
    /// The name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Call => "call",
            Self::Execute => "execute",
            Self::Queue => "queue",
            Self::Vote => "vote",
            Self::Gate => "gate",
            Self::Sync => "sync",
            Self::Apply => "apply",
        }
    }
}

/// One step of a call that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Of which call.
    pub trace: TraceId,
    /// Which step.
    pub stage: Stage,
    /// Its id, where others name it as their parent; nothing: any that no other span has.
    pub id: Option<SpanId>,
    /// The span that it is a part, or a consequence, of.
    pub parent: Option<SpanId>,
    /// A span of another trace that it belongs with: the caller's.
    pub link: Option<SpanContext>,
    /// How long it took.
    pub took: Duration,
    /// How long ago it ended.
    pub ago: Duration,
    /// What else is known of it.
    pub attributes: Vec<(&'static str, Value)>,
    /// Whether it failed, for a reason that is the cluster's and not the caller's.
    pub failed: bool,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(u64),
}

impl Span {
    /// A step that ends now.
    #[must_use]
    pub fn new(trace: TraceId, stage: Stage, took: Duration) -> Self {
        let (id, parent, link, attributes) = (None, None, None, Vec::new());
        Self { trace, stage, id, parent, link, took, ago: Duration::ZERO, attributes, failed: false }
    }

    /// The same, below another one.
    #[must_use]
    pub fn below(self, parent: SpanId) -> Self {
        Self { parent: Some(parent), ..self }
    }

    /// The same, and one thing more is known of it.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push((name, value.into()));
        self
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<CommandNumber> for Value {
    fn from(number: CommandNumber) -> Self {
        Self::Number(number.0)
    }
}

/// What actors tell of the calls that are followed. A node that follows none has no tracer.
pub struct Tracer {
    /// How calls get their ids.
    pub ids: TraceIds,
    /// Which are followed.
    pub sampling: Sampling,
    /// Takes a span. It must not block, and may drop it.
    pub record: Box<dyn Fn(Span) + Send + Sync>,
}

impl Tracer {
    /// The trace of a call, if it is followed.
    #[must_use]
    pub fn follows(&self, request: &RequestId) -> Option<TraceId> {
        self.taken(self.ids.of(request))
    }

    /// Records one step that many commands took together, below the votes of each that is followed.
    pub fn shared<'a>(&self, stage: Stage, commands: impl Iterator<Item = &'a Command> + Clone, took: Duration) {
        let together = commands.clone().count() as u64;
        for command in commands {
            let trace = body::request_of(&command.body).and_then(|request| self.taken(self.ids.of_bytes(request)));
            if let Some(trace) = trace {
                let span = Span::new(trace, stage, took).below(trace.vote(command.number()));
                (self.record)(span.with("quorate.command", command.number()).with("quorate.together", together));
            }
        }
    }

    fn taken(&self, trace: TraceId) -> Option<TraceId> {
        self.sampling.takes(trace).then_some(trace)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::ballot::Ballot;
    use crate::body::{CommandBody, Forget};
    use crate::call::{Fingerprint, Verdict};
    use crate::command::CommandId;
    use crate::time::Timestamp;

    fn request(key: &str) -> RequestId {
        RequestId::caller(key).expect("a valid key")
    }

    /// Catches ids that change from one version to the next: while nodes are upgraded one after the other, a call would
    /// have two traces.
    #[test]
    fn ids_stay_as_they_are() {
        let ids = TraceIds::new("shop");
        let trace = ids.of(&request("order-17"));
        assert_eq!(trace.to_string(), "b82cdb8156e1aa58924cc1fecf35851f");
        assert_eq!(ids.of(&RequestId::Gateway(17)).to_string(), "40829d6a8d61a45df7934849ae1d2274");
        assert_eq!(trace.call(NodeId(3)).to_string(), "6d22e3c6c695d791");
        assert_eq!(trace.vote(CommandNumber(3)).to_string(), "97ec4eca73c540e2");
    }

    /// Catches two calls that share a trace, above all those of one key in two clusters that one collector sees.
    #[test]
    fn what_differs_has_another_trace() {
        let ids = TraceIds::new("shop");
        let traces = [
            ids.of(&request("a")),
            ids.of(&request("b")),
            ids.of(&RequestId::Gateway(1)),
            TraceIds::new("shop-2").of(&request("a")),
        ];
        let distinct: std::collections::BTreeSet<_> = traces.into_iter().collect();
        assert_eq!(distinct.len(), traces.len(), "{traces:?}");
    }

    /// Catches nodes that do not follow the same calls: a smaller share that is no part of a larger one, one that is
    /// far from what was asked for, and the ends.
    #[test]
    fn a_smaller_share_is_a_part_of_a_larger_one() {
        let ids = TraceIds::new("shop");
        let traces: Vec<TraceId> = (0..10_000).map(|number| ids.of(&RequestId::Gateway(number))).collect();
        let taken = |share| {
            let sampling = Sampling::new(share).expect("a share");
            traces.iter().copied().filter(|trace| sampling.takes(*trace)).collect::<Vec<_>>()
        };
        let (some, more) = (taken(0.01), taken(0.1));
        assert!((60..150).contains(&some.len()) && (850..1_150).contains(&more.len()), "{} {}", some.len(), more.len());
        assert!(some.iter().all(|trace| more.contains(trace)));
        assert_eq!((taken(0.0).len(), taken(1.0).len()), (0, traces.len()));
        for wrong in [-0.1, 1.1, f64::NAN] {
            assert_eq!(Sampling::new(wrong), None, "{wrong}");
        }
    }

    /// Catches a rule that is not OpenTelemetry's: the last seven bytes count, and the threshold itself is taken.
    #[test]
    fn the_last_56_bits_decide() {
        let half = Sampling::new(0.5).expect("a share");
        let at = |byte, before| TraceId([before, 0, 0, 0, 0, 0, 0, 0, before, byte, 0, 0, 0, 0, 0, 0]);
        assert!(half.takes(at(0x80, 0)) && !half.takes(at(0x7f, 0xff)));
    }

    /// Catches an acceptor or learner that gives a call another trace than its gateway does, for either kind of command,
    /// and one that stumbles over a command that it cannot read.
    #[test]
    fn a_command_has_the_trace_of_its_call() {
        let body = CommandBody {
            time: Timestamp(0),
            request: request("k"),
            fingerprint: Fingerprint::default(),
            function: "kv.put".into(),
            verdict: Verdict::Unchanged("{}".into()),
            effects: Vec::new(),
            forget: Forget::default(),
        };
        let put = crate::body::Effect::Put { key: crate::Key::new("a").expect("a key"), value: "1".into() };
        let changed = CommandBody { verdict: Verdict::Changed("{}".into()), effects: vec![put], ..body.clone() };
        let gateway = CommandBody { time: Timestamp(7), request: RequestId::Gateway(3), ..changed.clone() };
        let bodies = [body.encode(), changed.encode(), gateway.encode(), bytes::Bytes::from_static(&[0x0a, 0x7f])];
        let commands = bodies.map(|body| {
            let id = CommandId::new(Ballot::new(1, NodeId(1)), CommandNumber(9));
            Command { id, precedent: CommandId::NULL, body }
        });
        let seen = Arc::new(Mutex::new(Vec::new()));
        let spans = Arc::clone(&seen);
        let record = Box::new(move |span| spans.lock().expect("no panic").push(span));
        let ids = TraceIds::new("shop");
        let tracer = Tracer { ids: ids.clone(), sampling: Sampling::new(1.0).expect("a share"), record };
        tracer.shared(Stage::Sync, commands.iter(), Duration::from_millis(2));
        let expected = [request("k"), request("k"), RequestId::Gateway(3)].map(|request| {
            let trace = ids.of(&request);
            let span = Span::new(trace, Stage::Sync, Duration::from_millis(2)).below(trace.vote(CommandNumber(9)));
            span.with("quorate.command", 9_u64).with("quorate.together", 4_u64)
        });
        assert_eq!(*seen.lock().expect("no panic"), expected);
    }
}
