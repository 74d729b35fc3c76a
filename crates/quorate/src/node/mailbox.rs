//! The mailboxes of the roles: how a message gets in, and how long it waits there.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler};

/// Never waits: a full mailbox loses the message, which every protocol step allows, and counts.
pub(super) fn tell<A, M>(address: &OnceLock<Addr<A>>, message: M, role: &'static str)
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: actix::Message + Send + 'static,
    M::Result: Send,
{
    if let Some(address) = address.get()
        && address.try_send(message).is_err()
    {
        metrics::counter!("quorate_mailbox_refused_total", "role" => role).increment(1);
    }
}

/// Roles that have not handled what [`measure`] sent them, and since when.
#[derive(Debug, Default)]
pub(super) struct Unanswered(Mutex<BTreeMap<&'static str, Instant>>);

impl Unanswered {
    /// Who has answered nothing for longest.
    pub(super) fn longest(&self) -> Option<(&'static str, Duration)> {
        let since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.iter().min_by_key(|(_, since)| **since).map(|(role, since)| (*role, since.elapsed()))
    }

    fn begin(&self, role: &'static str, now: Instant) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(role, now);
    }

    fn end(&self, role: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(role);
    }
}

/// Shows how long a message waits until this role has handled it and all that came before.
pub(super) async fn measure<A, M>(role: &'static str, address: Option<&Addr<A>>, message: M, unanswered: &Unanswered)
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: actix::Message + Send + 'static,
    M::Result: Send,
{
    let Some(address) = address else { return };
    let begun = clock();
    unanswered.begin(role, begun);
    let answered = address.send(message).await;
    unanswered.end(role);
    if answered.is_ok() {
        metrics::histogram!("quorate_mailbox_wait_seconds", "role" => role).record(begun.elapsed());
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

    /// Catches a role that hangs and is said to answer, and one that is said to hang when it has answered.
    #[actix::test]
    async fn who_has_not_answered_is_known() {
        let (go_on, waits) = channel();
        let thread = Arbiter::new();
        let address = Hangs::start_in_arbiter(&thread.handle(), |_| Hangs(waits));
        let unanswered = Arc::new(Unanswered::default());
        assert_eq!(unanswered.longest(), None);
        let known = Arc::clone(&unanswered);
        let measured = actix::spawn(async move { measure("acceptor", Some(&address), Look, &known).await });
        while unanswered.longest().is_none_or(|(role, since)| role != "acceptor" || since.is_zero()) {
            tokio::task::yield_now().await;
        }
        go_on.send(()).expect("it waits");
        measured.await.expect("no panic");
        assert_eq!(unanswered.longest(), None);
    }
}
