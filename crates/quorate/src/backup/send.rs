//! The bytes of a backup, made piece by piece while somebody takes them.

use std::io;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::stream::{self, LocalBoxStream, StreamExt as _};
use protocol::message::Snapshot;
use protocol::{CommandNumber, Position, Timestamp};
use storage::{Checkpoint, StateStore, StorageError};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use tracing::{info, warn};

use super::format::{Manifest, Writer};
use super::verify::hex;
use crate::config::Config;

/// Small beside memory, large beside a system call.
const PIECE_BYTES: usize = 1 << 20;
/// Pieces made ahead of whoever reads them.
const PIECES_AHEAD: usize = 2;
/// How long the reader may keep us waiting: a checkpoint keeps files from being deleted, those too whose space is needed.
const READER_WAIT: Duration = Duration::from_secs(60);
/// What each piece that it takes adds to that again: so a backup takes a second for each mebibyte, and a minute, at most.
const PIECE_WAIT: Duration = Duration::from_secs(1);

impl Manifest {
    /// What a node says of itself; the state's part comes with the state.
    pub(crate) fn of_node(config: &Config, made: Timestamp, consistency: &str) -> Self {
        let made = UNIX_EPOCH + Duration::from_millis(made.0);
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster: config.cluster.name.clone(),
            cluster_id: config.cluster.id.to_string(),
            node: config.node.name.clone(),
            made: humantime::format_rfc3339_seconds(made).to_string(),
            consistency: consistency.to_owned(),
            command: 0,
            ballot: (0, 0),
            digest: String::new(),
            records: 0,
        }
    }
}

/// Takes a checkpoint and streams it. `manifest` comes without what the checkpoint says of itself.
/// The permit is given back when the stream has ended.
///
/// # Errors
/// When the disk fails.
pub(crate) async fn stream(
    store: Arc<dyn StateStore>,
    manifest: Manifest,
    permit: OwnedSemaphorePermit,
) -> Result<(CommandNumber, LocalBoxStream<'static, io::Result<Bytes>>), StorageError> {
    let checkpoint = blocking(move || store.checkpoint()).await?;
    let id = checkpoint.id();
    let manifest = Manifest {
        command: id.at.number.0,
        ballot: (id.at.ballot.round, id.at.ballot.node.0),
        digest: hex(&id.digest),
        records: checkpoint.records(),
        ..manifest
    };
    info!(command = %id.at.number, records = manifest.records, "a backup is being taken");
    let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
    actix::spawn(async move {
        match send(Arc::from(checkpoint), &manifest, &sender).await {
            Ok(()) => info!(command = manifest.command, "the backup was sent"),
            Err(error) => {
                warn!(command = manifest.command, %error, "the backup was not sent whole");
                // The reader, if there is one still, sees a cut file.
                _ = sender.try_send(Err(error));
            }
        }
        drop(permit);
    });
    let bytes = stream::unfold(receiver, async |mut receiver| receiver.recv().await.map(|bytes| (bytes, receiver)));
    Ok((id.at.number, bytes.boxed_local()))
}

async fn send(
    checkpoint: Arc<dyn Checkpoint>,
    manifest: &Manifest,
    to: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let id = checkpoint.id();
    let (mut writer, begin) = Writer::begin(manifest);
    let mut patience = Patience::default();
    patience.give(to, begin).await?;
    let mut from = Some(Position::default());
    while let Some(position) = from {
        let checkpoint = Arc::clone(&checkpoint);
        let piece = blocking(move || checkpoint.piece(&position, PIECE_BYTES)).await.map_err(io::Error::other)?;
        from = piece.next.clone();
        let piece = Snapshot { id, records: manifest.records, piece: Some(piece) };
        patience.give(to, writer.piece(piece)).await?;
    }
    patience.give(to, writer.end()).await
}

/// How long the reader may still keep us waiting.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Patience(Duration);

impl Default for Patience {
    fn default() -> Self {
        Self(READER_WAIT)
    }
}

impl Patience {
    async fn give(&mut self, to: &mpsc::Sender<io::Result<Bytes>>, bytes: Bytes) -> io::Result<()> {
        let begun = Instant::now();
        match to.send_timeout(Ok(bytes), self.0).await {
            Ok(()) => {
                *self = self.after(begun.elapsed());
                Ok(())
            }
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "whoever takes it reads too slowly, or stopped reading"))
            }
            Err(mpsc::error::SendTimeoutError::Closed(_)) => {
                Err(io::Error::new(io::ErrorKind::BrokenPipe, "whoever took it has left"))
            }
        }
    }

    /// What is left after it took so long for a piece.
    fn after(self, waited: Duration) -> Self {
        Self((self.0 + PIECE_WAIT).saturating_sub(waited).min(READER_WAIT))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panicked| Err(StorageError::Failed(panicked.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a reader that keeps a checkpoint, and with it the space of files that are not needed, without end; and one
    /// that reads steadily, or stops once, and is cut off.
    #[test]
    fn patience_with_a_reader_has_an_end() {
        // What is left after so many pauses, in seconds; none when one was too long.
        let left = |pauses: &[u64], times: usize| {
            let mut pauses = pauses.iter().cycle().take(times).map(|seconds| Duration::from_secs(*seconds));
            let left = pauses
                .try_fold(Patience::default(), |patience, pause| (pause <= patience.0).then(|| patience.after(pause)));
            left.map(|patience| patience.0.as_secs())
        };
        assert_eq!(left(&[1], 100_000), Some(60), "a piece each second");
        assert_eq!(left(&[2], 59), Some(1));
        assert_eq!(left(&[2], 100), None);
        assert_eq!(left(&[59], 1), Some(2));
        assert_eq!(left(&[59], 2), None);
        assert_eq!(left(&[50, 0], 3), None, "again, and too soon");
        let once = [vec![0; 99], vec![50], vec![0; 99]].concat();
        assert_eq!(left(&once, 100), Some(11), "what it was quick with before is not saved up");
        assert_eq!(left(&once, 199), Some(60));
    }
}
