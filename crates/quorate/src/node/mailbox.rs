//! The mailboxes of the roles: how a message gets in, how many wait there, and for how long.
//!
//! The library does not say how many wait. But a mailbox is a queue: when a message is handled, those wait that were sent after
//! it. So one that changes nothing is sent now and then ([`Mailbox::measure`]), and what is sent is counted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler};

/// The mailbox of a role, once that runs.
pub(super) struct Mailbox<A: Actor> {
    role: &'static str,
    address: OnceLock<Addr<A>>,
    /// Messages that were sent to it.
    sent: AtomicU64,
}

impl<A: Actor> Mailbox<A> {
    pub(super) fn of(role: &'static str) -> Self {
        Self { role, address: OnceLock::new(), sent: AtomicU64::new(0) }
    }

    /// The role runs.
    pub(super) fn set(&self, address: Addr<A>) {
        // It starts once.
        _ = self.address.set(address);
    }

    pub(super) fn get(&self) -> Option<&Addr<A>> {
        self.address.get()
    }

    /// Never waits: a full mailbox loses the message, which every protocol step allows, and counts.
    pub(super) fn tell<M>(&self, message: M)
    where
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
        M: actix::Message + Send + 'static,
        M::Result: Send,
    {
        let Some(address) = self.get() else { return };
        match address.try_send(message) {
            Ok(()) => _ = self.sent.fetch_add(1, Ordering::Relaxed),
            Err(_) => metrics::counter!("quorate_mailbox_refused_total", "role" => self.role).increment(1),
        }
    }

    /// Shows how long a message waits until this role has handled it and all that came before, and how many wait then.
    /// `others` have sent so many in all.
    pub(super) async fn measure<M>(&self, message: M, others: impl Fn() -> u64, unanswered: &Unanswered)
    where
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
        M: actix::Message + Send + 'static,
        M::Result: Send,
    {
        let Some(address) = self.get() else { return };
        let begun = clock();
        unanswered.begin(self.role, begun, self.sent(&others));
        let answered = address.send(message).await;
        self.show_depth(others, unanswered);
        unanswered.end(self.role);
        if answered.is_ok() {
            metrics::histogram!("quorate_mailbox_wait_seconds", "role" => self.role).record(begun.elapsed());
        }
    }

    /// The same of one that is being measured: as long as nothing is handled, all wait that were sent.
    pub(super) fn show_depth(&self, others: impl Fn() -> u64, unanswered: &Unanswered) {
        if let Some(depth) = unanswered.behind(self.role, self.sent(others)) {
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and a mailbox has a bound")]
            metrics::gauge!("quorate_mailbox_depth", "role" => self.role).set(depth as f64);
        }
    }

    fn sent(&self, others: impl Fn() -> u64) -> u64 {
        self.sent.load(Ordering::Relaxed) + others()
    }
}

/// What [`Mailbox::measure`] has sent, and when.
#[derive(Clone, Copy, Debug)]
struct Measured {
    since: Instant,
    /// How many were sent before.
    sent: u64,
}

/// Roles that have not handled what [`Mailbox::measure`] sent them.
#[derive(Debug, Default)]
pub(super) struct Unanswered(Mutex<BTreeMap<&'static str, Measured>>);

impl Unanswered {
    /// Who has answered nothing for longest.
    pub(super) fn longest(&self) -> Option<(&'static str, Duration)> {
        let measured = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = measured.iter().min_by_key(|(_, measured)| measured.since);
        first.map(|(role, measured)| (*role, measured.since.elapsed()))
    }

    /// How many were sent after it, of so many in all.
    fn behind(&self, role: &str, sent: u64) -> Option<u64> {
        let measured = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        measured.get(role).map(|measured| sent.saturating_sub(measured.sent))
    }

    fn begin(&self, role: &'static str, since: Instant, sent: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(role, Measured { since, sent });
    }

    fn end(&self, role: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(role);
    }
}

#[expect(clippy::disallowed_methods, reason = "waiting is timed for metrics")]
fn clock() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, channel};

    use actix::{Arbiter, Context};

    use super::*;

    struct Hangs(Receiver<()>);

    impl Actor for Hangs {
        type Context = Context<Self>;
    }

    struct Look;

    impl actix::Message for Look {
        type Result = ();
    }

    impl Handler<Look> for Hangs {
        type Result = ();

        fn handle(&mut self, _: Look, _: &mut Context<Self>) {
            // Nobody goes on, or the test has ended.
            _ = self.0.recv();
        }
    }

    /// Catches a role that hangs and is said to answer, one that is said to hang when it has answered, and messages that wait
    /// behind what it hangs on, from this node's roles or from others, and that nobody counts.
    #[actix::test]
    async fn who_has_not_answered_is_known_and_what_waits_behind() {
        let (go_on, waits) = channel();
        let thread = Arbiter::new();
        let mailbox = Arc::new(Mailbox::of("acceptor"));
        mailbox.tell(Look);
        mailbox.set(Hangs::start_in_arbiter(&thread.handle(), |_| Hangs(waits)));
        let unanswered = Arc::new(Unanswered::default());
        assert_eq!((unanswered.longest(), unanswered.behind("acceptor", 9)), (None, None));
        mailbox.tell(Look);
        let (known, measuring) = (Arc::clone(&unanswered), Arc::clone(&mailbox));
        let measured = actix::spawn(async move { measuring.measure(Look, || 5, &known).await });
        while unanswered.longest().is_none_or(|(role, since)| role != "acceptor" || since.is_zero()) {
            tokio::task::yield_now().await;
        }
        for _ in 0..3 {
            mailbox.tell(Look);
        }
        assert_eq!(unanswered.behind("acceptor", mailbox.sent(|| 5)), Some(3));
        assert_eq!(unanswered.behind("acceptor", mailbox.sent(|| 7)), Some(5), "two of others");
        for _ in 0..2 {
            go_on.send(()).expect("it waits");
        }
        measured.await.expect("no panic");
        assert_eq!((unanswered.longest(), unanswered.behind("acceptor", 9)), (None, None));
    }
}
