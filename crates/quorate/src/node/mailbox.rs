//! The mailboxes of the roles: how a message gets in, and how long it waits there.

use std::sync::OnceLock;
use std::time::Instant;

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

/// Shows how long a message waits until this role has handled it and all that came before.
pub(super) async fn measure<A, M>(role: &'static str, address: Option<&Addr<A>>, message: M)
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: actix::Message + Send + 'static,
    M::Result: Send,
{
    let Some(address) = address else { return };
    let begun = clock();
    if address.send(message).await.is_ok() {
        metrics::histogram!("quorate_mailbox_wait_seconds", "role" => role).record(begun.elapsed());
    }
}

#[expect(clippy::disallowed_methods, reason = "waiting is timed for metrics")]
fn clock() -> Instant {
    Instant::now()
}
