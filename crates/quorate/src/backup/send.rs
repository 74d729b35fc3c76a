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
use tracing::{info, warn};

use super::format::{Manifest, Writer};
use super::verify::hex;
use crate::config::Config;

/// Small beside memory, large beside a system call.
const PIECE_BYTES: usize = 1 << 20;
/// Pieces made ahead of whoever reads them.
const PIECES_AHEAD: usize = 2;
/// How long the reader may take for one piece: a checkpoint keeps files from being deleted.
const READER_WAIT: Duration = Duration::from_secs(60);

impl Manifest {
    /// What a node says of itself; the state's part comes with the state.
    pub(crate) fn of_node(config: &Config, made: Timestamp) -> Self {
        let made = UNIX_EPOCH + Duration::from_millis(made.0);
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster: config.cluster.name.clone(),
            cluster_id: config.cluster.id.to_string(),
            node: config.node.name.clone(),
            made: humantime::format_rfc3339_seconds(made).to_string(),
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
    give(to, begin).await?;
    let mut from = Some(Position::default());
    while let Some(position) = from {
        let checkpoint = Arc::clone(&checkpoint);
        let piece = blocking(move || checkpoint.piece(&position, PIECE_BYTES)).await.map_err(io::Error::other)?;
        from = piece.next.clone();
        let piece = Snapshot { id, records: manifest.records, piece: Some(piece) };
        give(to, writer.piece(piece)).await?;
    }
    give(to, writer.end()).await
}

async fn give(to: &mpsc::Sender<io::Result<Bytes>>, bytes: Bytes) -> io::Result<()> {
    match to.send_timeout(Ok(bytes), READER_WAIT).await {
        Ok(()) => Ok(()),
        Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
            Err(io::Error::new(io::ErrorKind::TimedOut, "whoever takes it stopped reading"))
        }
        Err(mpsc::error::SendTimeoutError::Closed(_)) => {
            Err(io::Error::new(io::ErrorKind::BrokenPipe, "whoever took it has left"))
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panicked| Err(StorageError::Failed(panicked.to_string())))
}
