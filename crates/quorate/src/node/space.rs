//! How much room the disk of this node has: looked at every second, told by two marks.
//!
//! A full disk fails a write, which ends the node. So calls are refused below the soft mark, votes
//! wait below the hard one, and both go on by themselves when there is room again: a tenth more
//! than the mark, so that a disk at the mark does not change its mind every second.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http_api::backend::Check;
use nix::sys::statvfs::statvfs;
use protocol::Space;
use tracing::{error, info, warn};

use crate::config::Storage;
use crate::config::size::text;

/// What a fast disk takes in that time is far less than what lies between the usual marks.
const LOOK: Duration = Duration::from_secs(1);

/// What was seen last; written by one task, read by the actors.
pub(super) struct Room {
    marks: Storage,
    directory: PathBuf,
    free: AtomicU64,
    /// The place of a [`Space`] in [`Space::ALL`].
    space: AtomicU64,
    /// The file system does not say; said once.
    blind: AtomicBool,
}

impl Room {
    /// The room that there is now.
    pub(super) fn new(marks: Storage, directory: PathBuf) -> Self {
        let (free, space, blind) = (AtomicU64::new(u64::MAX), AtomicU64::new(0), AtomicBool::new(false));
        let room = Self { marks, directory, free, space, blind };
        room.look();
        room
    }

    pub(super) fn space(&self) -> Space {
        let place = usize::try_from(self.space.load(Ordering::Acquire)).unwrap_or(usize::MAX);
        Space::ALL.get(place).copied().unwrap_or(Space::Out)
    }

    /// Looks how much there is, and says what has changed. Blocks, if the disk does.
    fn look(&self) {
        match statvfs(&self.directory) {
            // What is kept for the superuser is not for us, whoever we are.
            Ok(found) => {
                self.blind.store(false, Ordering::Relaxed);
                self.found(found.blocks_available().saturating_mul(found.fragment_size()));
            }
            // The stores will say if the disk is gone; not to see it is no reason to stop.
            Err(error) if !self.blind.swap(true, Ordering::Relaxed) => {
                warn!(%error, data = %self.directory.display(), "cannot see how much room the disk has");
            }
            Err(_) => {}
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "gauges are floating-point numbers")]
    fn found(&self, free: u64) {
        let before = self.space();
        let space = judge(&self.marks, before, free);
        self.free.store(free, Ordering::Release);
        self.space.store(space as u64, Ordering::Release);
        metrics::gauge!("quorate_disk_free_bytes").set(free as f64);
        metrics::gauge!("quorate_disk_below_soft").set(f64::from(space >= Space::Low));
        metrics::gauge!("quorate_disk_below_hard").set(f64::from(space >= Space::Out));
        if space != before {
            self.tell(space, free);
        }
    }

    fn tell(&self, space: Space, free: u64) {
        let (free, data) = (text(free), self.directory.display());
        match space {
            Space::Ample => info!(free, %data, "the disk has room again"),
            Space::Low => {
                let mark = text(self.marks.soft_free);
                warn!(
                    free, mark, %data,
                    "the disk is almost full: below storage.soft_free this node takes no calls as a leader; make room, \
                     it goes on by itself"
                );
            }
            Space::Out => {
                let mark = text(self.marks.hard_free);
                error!(
                    free, mark, %data,
                    "the disk is all but full: below storage.hard_free this node neither votes nor applies; make room, \
                     it goes on by itself"
                );
            }
        }
    }

    /// For `/readyz`.
    pub(super) fn check(&self) -> Check {
        let (space, free) = (self.space(), text(self.free.load(Ordering::Acquire)));
        let Storage { soft_free, hard_free, .. } = self.marks;
        let detail = match space {
            Space::Ample => format!("{free} free"),
            Space::Low => format!(
                "the disk is almost full, {free} free, storage.soft_free is {}: no calls while this node leads; make room",
                text(soft_free)
            ),
            Space::Out => format!(
                "the disk is all but full, {free} free, storage.hard_free is {}: this node neither votes nor applies; make \
                 room",
                text(hard_free)
            ),
        };
        Check { name: "space", ok: space == Space::Ample, detail }
    }
}

/// Looks every second, for as long as the node lives.
pub(super) async fn watch(room: Arc<Room>) {
    let mut interval = tokio::time::interval(LOOK);
    loop {
        interval.tick().await;
        let looking = Arc::clone(&room);
        // An error is the end of the runtime.
        _ = tokio::task::spawn_blocking(move || looking.look()).await;
    }
}

fn judge(marks: &Storage, before: Space, free: u64) -> Space {
    let is_below = |mark: u64, space| free < if before >= space { mark.saturating_add(mark / 10) } else { mark };
    if is_below(marks.hard_free, Space::Out) {
        Space::Out
    } else if is_below(marks.soft_free, Space::Low) {
        Space::Low
    } else {
        Space::Ample
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a mark that is taken for another one, a disk at a mark that changes its mind with
    /// every command, and one from which nothing ever comes back.
    #[test]
    fn marks_hold_until_there_is_a_little_more() {
        let marks = Storage { soft_free: 1_000, hard_free: 100, receive_rate: 1 };
        let mut space = Space::Ample;
        for (free, expected) in [
            (1_000, Space::Ample),
            (999, Space::Low),
            (1_099, Space::Low),
            (1_100, Space::Ample),
            (99, Space::Out),
            (109, Space::Out),
            (110, Space::Low),
            (100, Space::Low),
            (0, Space::Out),
            (u64::MAX, Space::Ample),
        ] {
            space = judge(&marks, space, free);
            assert_eq!(space, expected, "{free} free");
        }
        let off = Storage { soft_free: 1, hard_free: 0, receive_rate: 1 };
        assert_eq!(judge(&off, Space::Ample, 1), Space::Ample);
    }

    /// Catches a check that does not say how much is missing of what, and one that is blind.
    #[test]
    fn the_check_says_what_is_so() {
        let directory = tempfile::tempdir().expect("a directory");
        let room = |soft_free, hard_free| {
            Room::new(Storage { soft_free, hard_free, receive_rate: 1 }, directory.path().to_owned())
        };
        let check = room(1, 0).check();
        assert!(check.ok && check.detail.ends_with(" free"), "{check:?}");
        let check = room(1 << 50, 0).check();
        assert!(!check.ok && check.detail.contains("storage.soft_free is 1.0 PiB: no calls"), "{check:?}");
        let check = room(1 << 50, 1 << 49).check();
        assert!(!check.ok && check.detail.contains("storage.hard_free is 512.0 TiB: this node neither"), "{check:?}");
    }
}
