//! What gateways ask of the learner: the state, waiting for a number, digests.

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use protocol::{CommandNumber, SnapshotId};
use storage::StateStore;
use tokio::sync::{oneshot, watch};

use crate::actor::{LearnerActor, WantDigest};
use crate::core::DigestRefusal;
use crate::ports::Progress;

/// A digest of the whole state at one command number; equal on all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StateDigest {
    /// The number.
    pub at: CommandNumber,
    /// The digest of all entries and stored outcomes, see [`StateStore::digest`].
    pub digest: [u8; 32],
}

/// Why there is no digest. None of these says anything about the state: a comparison of
/// replicas that meets one is not made, and must be reported as such (S-33).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoDigest {
    /// The learner refused.
    #[error("{}", refused(*.0))]
    Refused(DigestRefusal),
    /// The learner has more to do than its mailbox holds.
    #[error("the learner is overloaded; ask again later")]
    Overloaded,
    /// The node is stopping.
    #[error("this node is stopping; ask another one")]
    Stopped,
}

fn refused(reason: DigestRefusal) -> &'static str {
    match reason {
        DigestRefusal::Gone => "the state has moved past that number; ask for one a little ahead of what is applied",
        DigestRefusal::NotReached => "that number was not reached in time; ask for a lower one, or wait longer",
    }
}

/// The digest of the state as it is now.
pub(crate) fn digest_of(store: &dyn StateStore) -> StateDigest {
    let SnapshotId { at, digest } = store.digest();
    StateDigest { at: at.number, digest }
}

/// The learner, as seen by gateways. Cheap to clone.
#[derive(Clone)]
pub struct Queries {
    store: Arc<dyn StateStore>,
    progress: watch::Receiver<Progress>,
    learner: Addr<LearnerActor>,
}

impl Queries {
    /// Queries of the learner that has this store and publishes this progress.
    #[must_use]
    pub fn new(store: Arc<dyn StateStore>, progress: watch::Receiver<Progress>, learner: Addr<LearnerActor>) -> Self {
        Self { store, progress, learner }
    }

    /// The newest state that this node knows, for `local` reads and for others once
    /// [`Queries::wait_applied`] has said that it is new enough.
    #[must_use]
    pub fn state(&self) -> &Arc<dyn StateStore> {
        &self.store
    }

    /// How far the learner is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// The same, to be watched.
    #[must_use]
    pub fn progress_changes(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Waits until the command with this number is applied, for at most `patience`; says
    /// whether it is.
    pub async fn wait_applied(&self, number: CommandNumber, patience: Duration) -> bool {
        let mut progress = self.progress.clone();
        let reached = async { progress.wait_for(|progress| progress.applied >= number).await.is_ok() };
        tokio::time::timeout(patience, reached).await.unwrap_or(false)
    }

    /// The digest of the state at exactly `number`, for which it waits at most `patience`; of
    /// the newest state when `None`.
    ///
    /// # Errors
    /// [`NoDigest`]; `Refused(Gone)` when the state is past the number already.
    pub async fn digest_at(&self, number: Option<CommandNumber>, patience: Duration) -> Result<StateDigest, NoDigest> {
        let Some(number) = number else { return Ok(digest_of(&*self.store)) };
        let (answer, answered) = oneshot::channel();
        self.learner.try_send(WantDigest { number, patience, answer }).map_err(|refused| match refused {
            actix::prelude::SendError::Full(_) => NoDigest::Overloaded,
            actix::prelude::SendError::Closed(_) => NoDigest::Stopped,
        })?;
        answered.await.unwrap_or(Err(NoDigest::Stopped))
    }
}
