//! What all routes of a server share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actix_web::http::header::HeaderValue;
use metrics_exporter_prometheus::PrometheusHandle;
use protocol::{RequestId, Tracer};
use tokio::sync::Semaphore;

use crate::audit::Refusals;
use crate::auth::Auth;
use crate::backend::{Backend, Limits};
use crate::reply::Room;
use crate::request::Arriving;
use crate::traces::Traces;

/// Pages that are made at a time: each keeps a processor busy, and some MiB; more would only take them from calls.
const PAGES_MAX: usize = 2;

/// Shared by all threads of the server.
pub(crate) struct Api {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) limits: Limits,
    pub(crate) prometheus: PrometheusHandle,
    /// Whether callers present tokens. Nothing: everybody may do everything.
    pub(crate) auth: Option<Auth>,
    /// Whether operators are answered here. If not, they are at a listener of their own.
    pub(crate) is_for_operators: bool,
    /// For pages that are made.
    pub(crate) pages: Arc<Semaphore>,
    /// For replies that are not taken yet.
    pub(crate) room: Room,
    /// For bodies that have not arrived whole.
    pub(crate) arriving: Arriving,
    /// The value of `Quorate-Node`.
    pub(crate) node_header: HeaderValue,
    pub(crate) traces: Traces,
    /// Who was refused lately, for the audit log.
    pub(crate) refusals: Refusals,
    entropy: u64,
    calls: AtomicU64,
}

impl Api {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        entropy: u64,
        prometheus: PrometheusHandle,
        auth: Option<Auth>,
        tracer: Option<Arc<Tracer>>,
    ) -> Self {
        let (id, name) = backend.node();
        // A name that is not visible ASCII cannot stand in a header; the id can.
        let node_header = HeaderValue::from_str(name).unwrap_or_else(|_| HeaderValue::from(id.0));
        let calls = AtomicU64::new(0);
        let traces = Traces::new(backend.cluster_name(), tracer, id);
        let (limits, pages, room) = (backend.limits(), Arc::new(Semaphore::new(PAGES_MAX)), Room::new());
        Self {
            backend,
            limits,
            prometheus,
            auth,
            is_for_operators: true,
            pages,
            room,
            arriving: Arriving::new(),
            node_header,
            traces,
            refusals: Refusals::default(),
            entropy,
            calls,
        }
    }

    /// The same where operators have a listener of their own.
    pub(crate) fn of_callers_only(self) -> Self {
        Self { is_for_operators: false, ..self }
    }

    /// An id for a call whose caller gave none: no other call of this gateway, its other lives or other gateways has it. It is no
    /// secret, `GET /v1/commands` shows it.
    pub(crate) fn request_id(&self) -> RequestId {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        RequestId::Gateway((u128::from(self.entropy) << 64) | u128::from(number))
    }

    /// A key for a caller who gave none and wants to ask later. Nobody can tell the next one, by keys or by ids: it would be
    /// taken for a call of its own, and the caller's would never be executed.
    pub(crate) fn caller_key(&self) -> RequestId {
        RequestId::Caller(self.backend.chance()[..16].iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// Letters made of a number, by which nobody finds the number, whose upper half nobody knows.
pub(crate) fn unforeseen(number: u128) -> String {
    blake3::derive_key("quorate 2026 keys of calls", &number.to_be_bytes())[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
