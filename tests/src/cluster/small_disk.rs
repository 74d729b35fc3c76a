//! Nodes whose data directory is a small file system of its own, which can be filled.
//!
//! An ext4 in a file, mounted through a loop device in a mount namespace of the node's process: it
//! is gone with the process, however that ends, and what is in it stays in the file for the next
//! start. That needs root, loop devices, `mkfs.ext4` and `unshare`.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::statvfs;

use super::Cluster;

/// Mounts the file `$0` at `$1` and becomes the rest.
const MOUNT: &str = r#"mount -o loop "$0" "$1" && shift && exec "$@""#;

/// Why there can be no small disks here.
///
/// # Errors
/// What went wrong when one was tried.
pub fn small_disks() -> Result<(), String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (image, at) = (directory.path().join("image"), directory.path().join("at"));
    std::fs::create_dir(&at).map_err(|error| error.to_string())?;
    make(&image, 4)?;
    let mut mount = in_own_namespace();
    succeeds(mount.arg(image).arg(at).arg("true"))
}

/// An empty file system in a file that takes no more room than is used of it.
fn make(image: &PathBuf, mebibytes: u64) -> Result<(), String> {
    let file = File::create_new(image).map_err(|error| error.to_string())?;
    file.set_len(mebibytes << 20).map_err(|error| error.to_string())?;
    succeeds(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(image))
}

fn in_own_namespace() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", MOUNT]);
    command
}

fn succeeds(command: &mut Command) -> Result<(), String> {
    let done = command.output().map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    let says = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    if done.status.success() { Ok(()) } else { Err(says) }
}

impl Cluster {
    /// Starts a node that does not run, on a disk of that many MiB, made when it has none yet; does
    /// not wait for it.
    pub fn boot_on_small_disk(&mut self, node: usize, mebibytes: u64) {
        let at = self.data_dir(node);
        let image = at.with_extension("ext4");
        if !image.exists() {
            make(&image, mebibytes).expect("`small_disks` has tried it");
        }
        std::fs::create_dir_all(&at).expect("a place for it");
        let serve = self.command(node);
        let mut command = in_own_namespace();
        command.arg(image).arg(at).arg(serve.get_program()).args(serve.get_args());
        for (name, _) in serve.get_envs() {
            command.env_remove(name);
        }
        self.spawn(node, command);
    }

    /// The root of the small disk of a node that runs, as its process sees it.
    fn small_disk(&self, node: usize) -> PathBuf {
        let process = self.nodes[node].process.as_ref().expect("the node runs");
        let at = self.data_dir(node);
        PathBuf::from(format!("/proc/{}/root", process.id())).join(at.strip_prefix("/").expect("a whole path"))
    }

    /// Fills the small disk of a node that runs, until about that many bytes are free.
    pub fn fill_disk(&self, node: usize, leave: u64) {
        let disk = self.small_disk(node);
        let found = statvfs(&disk).expect("it is mounted");
        let free = found.blocks_available() * found.fragment_size();
        let ballast = File::options().append(true).create(true).open(disk.join("ballast")).expect("a file");
        let length = ballast.metadata().expect("a file").len();
        let wanted = (length + free).checked_sub(leave).expect("the disk is larger than what is to be left");
        if wanted <= length {
            return ballast.set_len(wanted).expect("a file can shrink");
        }
        let signed = |bytes| i64::try_from(bytes).expect("a small disk");
        fallocate(&ballast, FallocateFlags::empty(), signed(length), signed(wanted - length)).expect("there is room");
    }

    /// Empties it again, of what [`Cluster::fill_disk`] put there.
    pub fn empty_disk(&self, node: usize) {
        std::fs::remove_file(self.small_disk(node).join("ballast")).expect("it was filled");
    }
}
