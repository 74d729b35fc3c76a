//! M(p) as the leader reaches it: the state that the learner of this node stores.

use functions::{Execution, ExecutionContext, Failure, Function, ReadSet};
use protocol::{Entry, Key, RequestId, StateError, StateView, StoredOutcome, Timestamp};
use storage::StateStore;

use crate::core::{LeaderView, Machine, PoolJob};

/// M(p) as the learner of this node stores it.
pub struct StoredMachine<'a>(pub &'a dyn StateStore);

impl StateView for StoredMachine<'_> {
    fn get(&self, key: &Key) -> Result<Option<Entry>, StateError> {
        self.0.get(key)
    }

    fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(Key, Entry)>, StateError> {
        self.0.scan(prefix, after, limit)
    }

    fn outcome(&self, request: &RequestId) -> Result<Option<StoredOutcome>, StateError> {
        self.0.outcome(request)
    }
}

impl Machine for StoredMachine<'_> {
    fn last_time(&self) -> Result<Timestamp, StateError> {
        Ok(self.0.time())
    }
}

/// Runs a function of the pool against LS(p), as it was when the job was made.
#[must_use]
pub fn run_on_snapshot(function: &dyn Function, job: &PoolJob, state: &dyn StateStore) -> Execution {
    match state.snapshot() {
        Ok(snapshot) => {
            let view = LeaderView::new(&job.overlay, snapshot.as_ref(), snapshot.at());
            functions::run(function, ExecutionContext::new(&view, job.now, job.entropy), &job.arguments)
        }
        Err(error) => without_result(Failure::State(StateError(error.to_string()))),
    }
}

/// An execution that did not take place, or not to its end.
pub(crate) fn without_result(failure: Failure) -> Execution {
    Execution { result: Err(failure), effects: Vec::new(), reads: ReadSet::default(), successor: None }
}
