//! How reads agree on what they show.
//!
//! A read first waits until this node's own state is recent enough: *linearizable* asks the
//! leader which number that is (DESIGN 6, *Reads*), *local* takes what there is, and
//! `min_command` names a number itself. Then it reads one snapshot, and says which number and
//! time that shows. Time is that of a command at or before the number shown.
//!
//! The caller's wait is for all of this together: what the leader's answer took is not there to
//! wait for this node's own state.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::HeaderValue;
use actix_web::{HttpResponseBuilder, web};
use protocol::{CommandNumber, StateError, Timestamp};
use std::time::UNIX_EPOCH;
use tokio::sync::oneshot;

use crate::actor::AskBarrier;
use crate::api::Api;
use crate::backend::Consistency;
use crate::call::{refused, unavailable};
use crate::core::{Answer, must_reach};
use crate::names;
use crate::observe::clock;
use crate::problem::Problem;
use crate::request::Query;

/// The parameters that every read takes.
pub(crate) const PARAMETERS: [&str; 3] = ["consistency", "min_command", "at"];

/// The last millisecond of the year 9999, where RFC 3339 ends.
const TIME_MAX: u64 = 253_402_300_799_999;

/// A read whose wait is over: this node's state is recent enough.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    consistency: Consistency,
    time: Timestamp,
    /// What is left of the wait.
    left: Duration,
}

impl Ready {
    /// What was waited for.
    pub(crate) fn consistency(&self) -> Consistency {
        self.consistency
    }

    /// Makes a page of at most so many bytes, on a thread for blocking work; `make` hears how many there is room for, and may
    /// exceed them by its last entry. Few are made at a time, and who has waited long enough is turned away.
    pub(crate) async fn page<T: Send + 'static>(
        &self,
        api: &Api,
        most: usize,
        make: impl FnOnce(usize) -> Result<T, StateError> + Send + 'static,
    ) -> Result<T, Problem> {
        let turn = tokio::time::timeout(self.left, Arc::clone(&api.pages).acquire_owned()).await;
        let turn = turn.map_err(|_| Problem::overloaded())?;
        let bytes = api.room.for_page(most);
        let made = web::block(move || {
            // Until it is made, even if its caller has gone meanwhile.
            let _turn = turn;
            make(bytes)
        });
        Ok(made.await.map_err(|_| Problem::stopping())??)
    }

    /// The headers of a reply that shows the state at `at`.
    pub(crate) fn label(&self, at: CommandNumber, response: &mut HttpResponseBuilder) {
        for (name, value) in self.labels(at) {
            response.insert_header((name, value));
        }
    }

    /// The same on an error, such as a key that is not there.
    pub(crate) fn label_problem(&self, at: CommandNumber, problem: Problem) -> Problem {
        self.labels(at).into_iter().fold(problem, |problem, (name, value)| problem.header(name, value))
    }

    fn labels(&self, at: CommandNumber) -> [(actix_web::http::header::HeaderName, HeaderValue); 3] {
        let time = HeaderValue::from_str(&rfc3339(self.time)).expect("a time is visible ASCII");
        [
            (names::COMMAND, HeaderValue::from(at.0)),
            (names::TIME, time),
            (names::CONSISTENCY, HeaderValue::from_static(self.consistency.name())),
        ]
    }
}

/// Waits until this node can show what the query asks for.
pub(crate) async fn ready(api: &Api, query: &Query, wait: Option<Duration>) -> Result<Ready, Problem> {
    let not_yet = |what: &str| {
        let detail = format!("{what} is not available in this version; use consistency=linearizable or local");
        Problem::bad_request("unsupported_consistency", detail)
    };
    if query.text("at").is_some() {
        return Err(not_yet("reading at an earlier number or time"));
    }
    let consistency = match query.text("consistency") {
        None | Some("linearizable") => Consistency::Linearizable,
        Some("local") => Consistency::Local,
        Some("speculative") => return Err(not_yet("consistency=speculative")),
        Some(other) => {
            let detail = format!("consistency is linearizable or local, not {other:?}");
            return Err(Problem::bad_request("invalid_query", detail));
        }
    };
    let min_command = query.number("min_command")?.map(CommandNumber);
    let (begun, wait) = (clock(), wait.unwrap_or(api.limits.wait));
    let barrier = match consistency {
        Consistency::Linearizable => Some(barrier(api, wait).await?),
        Consistency::Local => None,
    };
    let number = must_reach(barrier, min_command.unwrap_or_default());
    if api.backend.applied() < number
        && !api.backend.wait_applied(number, wait.saturating_sub(clock().duration_since(begun))).await
    {
        if api.backend.stopping() {
            return Err(Problem::stopping());
        }
        let detail = format!("this node has not applied command {number} within the wait; ask again, or another node");
        return Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "not_applied_yet", detail).retry_later());
    }
    // Read before the snapshot is taken, so that it is never later than what is shown.
    let left = wait.saturating_sub(clock().duration_since(begun));
    Ok(Ready { consistency, time: api.backend.time_at(), left })
}

/// The number that a read that arrived now must reach.
async fn barrier(api: &Api, wait: Duration) -> Result<CommandNumber, Problem> {
    let (reply, answer) = oneshot::channel();
    api.backend.gateway().try_send(AskBarrier { wait, reply }).map_err(|error| refused(&error))?;
    api.backend.door().count();
    match answer.await {
        Ok(Answer::BarrierPassed(number)) => Ok(number),
        Ok(Answer::NotExecuted(why)) => Err(unavailable(why)),
        Ok(Answer::Outcome { .. } | Answer::NotHere(_) | Answer::Unknown) => {
            unreachable!("a read is not answered like a call")
        }
        Err(_) => Err(Problem::stopping()),
    }
}

/// A moment as RFC 3339 in UTC, to the millisecond.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    let since = Duration::from_millis(time.0.min(TIME_MAX));
    humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
}
