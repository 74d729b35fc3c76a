//! Whether the disk of this node takes a write and a sync: tried every few seconds beside all roles, so that a disk that hangs
//! shows at a node to which nobody has anything to say, too.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use protocol::Tick;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::outside::now;

/// Little enough to cost nothing, and often enough that a check is never far behind.
const EVERY: Duration = Duration::from_secs(5);
/// A disk that takes longer cannot be worked with.
pub(super) const SYNC_WAIT_MAX: Duration = Duration::from_secs(15);
/// Written over and over.
const FILE: &str = "PROBE";
const BYTES: [u8; 512] = [0; 512];

/// What was seen last; written by one task, read by those who ask for the node's health.
pub(super) struct Probe {
    file: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    under_way: Option<Tick>,
    failed: Option<String>,
}

impl Probe {
    pub(super) fn new(data: PathBuf) -> Self {
        Self { file: data.join(FILE), seen: Mutex::default() }
    }

    /// What is wrong with the disk, if anything is known to be.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble_at(now().tick)
    }

    fn trouble_at(&self, now: Tick) -> Option<String> {
        let (seen, file) = (self.seen.lock().unwrap_or_else(PoisonError::into_inner), self.file.display());
        let took = seen.under_way.map(|began| now.since(began)).filter(|took| *took >= SYNC_WAIT_MAX);
        match (took, &seen.failed) {
            (Some(took), _) => Some(format!("{file} is being written and synced for {} s", took.as_secs())),
            (None, Some(why)) => Some(format!("{file} cannot be written: {why}")),
            (None, None) => None,
        }
    }

    fn begin(&self) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).under_way = Some(now().tick);
    }

    fn end(&self, written: io::Result<()>) {
        let failed = written.err().map(|error| error.to_string());
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match (&seen.failed, &failed) {
            (None, Some(error)) => warn!(error, file = %self.file.display(), "the disk does not take a write"),
            (Some(_), None) => info!(file = %self.file.display(), "the disk takes writes again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        *seen = Seen { under_way: None, failed };
    }

    /// Blocks, if the disk does.
    fn write(&self) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.file)?;
        file.write_all(&BYTES)?;
        file.sync_data()
    }
}

/// Tries for as long as the node lives; while one write hangs there is no other.
pub(super) async fn watch(probe: Arc<Probe>) {
    let mut interval = tokio::time::interval(EVERY);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        probe.begin();
        let (writing, (done, written)) = (Arc::clone(&probe), oneshot::channel());
        // Not on a thread of the runtime, whose end waits for what hangs there.
        let begun = std::thread::Builder::new().name("probe".into()).spawn(move || _ = done.send(writing.write()));
        match (begun, written) {
            (Ok(_), written) => {
                let panicked = |_| Err(io::Error::other("the thread that writes it has panicked"));
                probe.end(written.await.unwrap_or_else(panicked));
            }
            (Err(error), _) => probe.end(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S-34: catches a write that fails or hangs and that nobody hears of, or that is told for ever; and a file that grows.
    #[test]
    fn a_write_that_fails_is_told_until_one_succeeds() {
        let above = tempfile::tempdir().expect("a directory");
        let data = above.path().join("data");
        let probe = Probe::new(data.clone());
        probe.begin();
        assert_eq!(probe.trouble(), None, "there is time");
        probe.end(probe.write());
        let trouble = probe.trouble().expect("there is no such directory");
        assert!(trouble.contains("data/PROBE cannot be written: No such file"), "{trouble}");
        std::fs::create_dir(&data).expect("writable");
        for _ in 0..2 {
            probe.begin();
            probe.end(probe.write());
            assert_eq!(probe.trouble(), None);
            assert_eq!(std::fs::metadata(data.join(FILE)).expect("it is there").len(), 512);
        }
        probe.begin();
        let after = |seconds| probe.trouble_at(now().tick + Duration::from_secs(seconds));
        assert_eq!(after(14), None);
        let trouble = after(16).expect("it hangs");
        assert!(trouble.ends_with("data/PROBE is being written and synced for 16 s"), "{trouble}");
    }
}
