//! The gateway actor: gives the core its inputs and carries out its effects.
//!
//! Nothing here is durable, so an effect is carried out as soon as its input is handled; reads
//! still share questions, because the core has only one under way at a time.
//!
//! It lives on the arbiter (thread) of the node's leader actor. On the node that leads, each
//! call then goes from gateway to leader and back without waking another thread, which costs
//! more than executing a short function.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use metrics::{Counter, Gauge};
use protocol::message::ToGateway;
use protocol::trace::SpanContext;
use protocol::{Call, CommandNumber, Message as PeerMessage, NodeId, Now, RequestId, Tick, Tracer};
use tokio::sync::oneshot;

use crate::core::{Answer, Effect, Gateway, IgnoreReason, Input};
use crate::door::Door;
use crate::meters::{self, Calls, Waiting};
use crate::traces::{Ended, Followers};

/// How often deadlines and repetitions are looked at while something is in flight: well below
/// the shortest of them (25 ms), and nothing beside the cost of a call.
const TICK: Duration = Duration::from_millis(20);

/// Messages that may wait for the actor: all calls that may be in flight (10,000) with their
/// answers in the worst turn. Senders use `try_send`, and a caller refused here is told 503.
pub const MAILBOX: usize = 16_384;

/// Execute a function; the answer goes to `reply`. A caller who drops the other end goes away,
/// its call does not. The result says whether the call was taken in.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct Submit {
    /// What to execute.
    pub call: Call,
    /// How long the caller waits, from now.
    pub wait: Duration,
    /// What this node has applied before the call is sent.
    pub applied: CommandNumber,
    /// The caller's span, if it named one.
    pub caller: Option<SpanContext>,
    /// Where the answer goes; exactly one, unless the node stops.
    pub reply: oneshot::Sender<Answer>,
}

/// Ask which command number a read that arrives now must reach.
#[derive(Message)]
#[rtype(result = "()")]
pub struct AskBarrier {
    /// How long the reader waits, from now.
    pub wait: Duration,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Answer>,
}

/// A message for the role `gateway`, from this node's leader or another's.
#[derive(Message)]
#[rtype(result = "()")]
pub struct FromLeader {
    /// The sender.
    pub from: NodeId,
    /// What it says.
    pub message: ToGateway,
}

/// Who leads now, as far as this node knows.
#[derive(Message)]
#[rtype(result = "()")]
pub struct LeaderIs(pub Option<NodeId>);

/// Whether a call is in flight at this gateway.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct IsInFlight(pub RequestId);

/// Answer everybody in flight now with what is true now, and take nothing in any more. For a
/// node that must close its connections shortly.
#[derive(Message)]
#[rtype(result = "()")]
pub struct EndCalls;

/// See the module.
pub struct GatewayActor {
    core: Gateway,
    send: Box<dyn Fn(NodeId, PeerMessage) + Send>,
    clock: Box<dyn Fn() -> Now + Send>,
    replies: BTreeMap<u64, oneshot::Sender<Answer>>,
    /// Those of them that wait for a call, and not for a read.
    calls: BTreeMap<u64, Waiting>,
    next_ticket: u64,
    ticking: Option<SpawnHandle>,
    /// Reused between inputs.
    effects: Vec<Effect>,
    in_flight: Gauge,
    sent: Counter,
    counted: Calls,
    followers: Option<Followers>,
    door: Arc<Door>,
}

impl GatewayActor {
    /// An actor around `core`. `send` passes a message on to the leader of a node, this one
    /// included; it must not block, and may drop: the core sends again. `clock` shows both clocks.
    #[must_use]
    pub fn new(
        core: Gateway,
        send: Box<dyn Fn(NodeId, PeerMessage) + Send>,
        clock: Box<dyn Fn() -> Now + Send>,
    ) -> Self {
        Self {
            core,
            send,
            clock,
            replies: BTreeMap::new(),
            calls: BTreeMap::new(),
            next_ticket: 0,
            ticking: None,
            effects: Vec::new(),
            in_flight: metrics::gauge!("quorate_gateway_calls_in_flight"),
            sent: metrics::counter!("quorate_gateway_sent_total"),
            counted: Calls::new([]),
            followers: None,
            door: Arc::new(Door::new([])),
        }
    }

    /// Counts the calls of these functions by their names; without, all are counted together.
    #[must_use]
    pub fn counting(mut self, functions: impl IntoIterator<Item = String>) -> Self {
        let functions: Vec<String> = functions.into_iter().collect();
        self.door = Arc::new(Door::new(functions.iter().cloned()));
        self.counted = Calls::new(functions);
        self
    }

    /// Follows calls, as that of the gateway of this node.
    #[must_use]
    pub fn following(mut self, tracer: Option<Arc<Tracer>>, me: NodeId) -> Self {
        self.followers = tracer.map(|tracer| Followers::new(tracer, me));
        self
    }

    /// What shows other threads whether there is room.
    #[must_use]
    pub fn door(&self) -> Arc<Door> {
        Arc::clone(&self.door)
    }

    fn now(&self) -> Tick {
        (self.clock)().tick
    }

    fn take(&mut self, reply: oneshot::Sender<Answer>) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.replies.insert(ticket, reply);
        ticket
    }

    /// One input through the core, and its effects.
    fn turn(&mut self, input: Input, ctx: &mut Context<Self>) {
        let mut effects = std::mem::take(&mut self.effects);
        let now = self.now();
        self.core.handle(input, now, &mut effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Send { to, message } => {
                    self.sent.increment(1);
                    (self.send)(to, message);
                }
                Effect::Answer { ticket, answer } => {
                    self.count(ticket, meters::outcome(&answer), meters::command(&answer), now);
                    if let Some(reply) = self.replies.remove(&ticket) {
                        // A caller who has gone needs no answer.
                        let _ = reply.send(answer);
                    }
                }
                Effect::Ignored(reason) => ignored(reason),
            }
        }
        self.effects = effects;
        self.door.shut(self.core.is_full());
        #[expect(clippy::cast_precision_loss, reason = "at most some thousands")]
        self.in_flight.set(self.core.calls_in_flight() as f64);
        if self.core.is_idle() {
            if let Some(handle) = self.ticking.take() {
                ctx.cancel_future(handle);
            }
        } else if self.ticking.is_none() {
            self.ticking = Some(ctx.run_interval(TICK, Self::tick));
        }
    }

    fn count(&mut self, ticket: u64, outcome: &'static str, command: Option<CommandNumber>, now: Tick) {
        let Some(call) = self.calls.remove(&ticket) else { return };
        let (function, took) = self.counted.end(&call, outcome, now);
        if let (Some(followers), Some(followed)) = (&self.followers, call.followed) {
            followers.ended(followed, &Ended { function, outcome, command, took });
        }
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        let gone: Vec<u64> =
            self.replies.iter().filter(|(_, reply)| reply.is_closed()).map(|(&ticket, _)| ticket).collect();
        for ticket in gone {
            self.replies.remove(&ticket);
            self.count(ticket, meters::ABANDONED, None, self.now());
            self.turn(Input::Abandon { ticket }, ctx);
        }
        self.turn(Input::Tick, ctx);
    }
}

impl Actor for GatewayActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Handler<Submit> for GatewayActor {
    type Result = bool;

    fn handle(&mut self, message: Submit, ctx: &mut Self::Context) -> bool {
        let Submit { call, wait, applied, caller, reply } = message;
        let (ticket, now) = (self.take(reply), self.now());
        let deadline = now + wait;
        let followed = self.followers.as_ref().and_then(|followers| followers.follow(&call.request, caller));
        self.calls.insert(ticket, Calls::begin(&call.function, now, followed));
        self.turn(Input::Submit { ticket, call, deadline, applied }, ctx);
        self.replies.contains_key(&ticket)
    }
}

impl Handler<AskBarrier> for GatewayActor {
    type Result = ();

    fn handle(&mut self, message: AskBarrier, ctx: &mut Self::Context) {
        let (ticket, deadline) = (self.take(message.reply), self.now() + message.wait);
        self.turn(Input::Barrier { ticket, deadline }, ctx);
    }
}

impl Handler<FromLeader> for GatewayActor {
    type Result = ();

    fn handle(&mut self, FromLeader { from, message }: FromLeader, ctx: &mut Self::Context) {
        self.turn(Input::FromLeader { from, message }, ctx);
    }
}

impl Handler<LeaderIs> for GatewayActor {
    type Result = ();

    fn handle(&mut self, LeaderIs(leader): LeaderIs, ctx: &mut Self::Context) {
        // It is said again and again, lest it be lost.
        if self.core.leader() != leader {
            let calls = self.core.calls_in_flight();
            match leader {
                Some(node) => tracing::info!(leader = node.0, calls, "node {node} leads; calls in flight go to it"),
                None => tracing::warn!(calls, "no leader is known; calls wait until one is"),
            }
            self.turn(Input::LeaderIs(leader), ctx);
        }
    }
}

impl Handler<IsInFlight> for GatewayActor {
    type Result = bool;

    fn handle(&mut self, IsInFlight(request): IsInFlight, _: &mut Self::Context) -> bool {
        self.core.is_in_flight(&request)
    }
}

impl Handler<EndCalls> for GatewayActor {
    type Result = ();

    fn handle(&mut self, EndCalls: EndCalls, ctx: &mut Self::Context) {
        let (calls, waiting) = (self.core.calls_in_flight(), self.replies.len());
        tracing::info!(calls, waiting, "the node ends; {waiting} callers and readers who still wait are told so");
        self.turn(Input::End, ctx);
    }
}

fn ignored(reason: IgnoreReason) {
    metrics::counter!("quorate_gateway_ignored_total", "reason" => reason.name()).increment(1);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use protocol::{Fingerprint, Outcome, Timestamp};

    use super::*;
    use crate::core::Settings;

    /// How often to look for what must come; together far longer than a tick.
    const LOOKS: usize = 200;

    fn clock() -> Box<dyn Fn() -> Now + Send> {
        let started = tokio::time::Instant::now();
        Box::new(move || Now { tick: Tick(0) + started.elapsed(), wall: Timestamp::default() })
    }

    fn call(key: &str) -> Call {
        Call {
            request: RequestId::caller(key).expect("a valid key"),
            fingerprint: Fingerprint::default(),
            function: "f".into(),
            arguments: Bytes::from_static(b"{}"),
            patience: Duration::ZERO,
            copy: 0,
        }
    }

    fn submit(key: &str, wait: Duration) -> (Submit, oneshot::Receiver<Answer>) {
        let (reply, answer) = oneshot::channel();
        (Submit { call: call(key), wait, applied: CommandNumber::NULL, caller: None, reply }, answer)
    }

    /// Catches callers who have gone and still count as waiting, and calls that go with them.
    #[actix::test]
    async fn a_caller_who_goes_away_makes_room_but_the_call_goes_on() {
        let core = Gateway::new(Settings { in_flight: 1, ..Settings::default() }, 0);
        let gateway = GatewayActor::new(core, Box::new(|_, _| {}), clock()).start();
        let long = Duration::from_secs(60);
        let (first, gone) = submit("k", long);
        assert!(gateway.send(first).await.expect("it lives"));
        let (second, mut refused) = submit("k", long);
        assert!(!gateway.send(second).await.expect("it lives"), "one may wait");
        let overloaded = Answer::Outcome { outcome: Outcome::Overloaded, settled: false, replayed: false };
        assert_eq!(refused.try_recv(), Ok(overloaded));
        drop(gone);
        for look in 0.. {
            let (again, _answer) = submit("k", long);
            if gateway.send(again).await.expect("it lives") {
                break;
            }
            assert!(look < LOOKS, "the caller who has gone still waits");
            actix::clock::sleep(Duration::from_millis(5)).await;
        }
        assert!(gateway.send(IsInFlight(call("k").request)).await.expect("it lives"));
    }

    /// Catches a clock that stands still once nothing was in flight for a while.
    #[actix::test]
    async fn deadlines_are_kept_after_an_idle_time() {
        let gateway = GatewayActor::new(Gateway::new(Settings::default(), 0), Box::new(|_, _| {}), clock()).start();
        for key in ["k", "l"] {
            let (submit, answer) = submit(key, Duration::from_millis(1));
            gateway.send(submit).await.expect("it lives");
            let answer = tokio::time::timeout(Duration::from_secs(5), answer).await.expect("in time");
            assert_eq!(answer, Ok(Answer::NotHere(crate::core::Unavailable::NoLeader)));
        }
    }
}
