//! Nodes whose data directory is a small file system of its own, which can be filled, and whose power can be cut.
//!
//! An ext4 in a file, mounted through a loop device in a mount namespace of the node's process: it
//! is gone with the process, however that ends, and what is in it stays in the file for the next
//! start. That needs root, loop devices, `mkfs.ext4` and `unshare`.
//!
//! A power cut is `EXT4_IOC_SHUTDOWN` without a flush of the journal: from then on nothing reaches the file any more,
//! and what was written and not synced is lost. It is asked for by a line of Perl, since it takes an `ioctl`.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::statvfs;

use super::{Cluster, eventually};

/// Mounts the file `$0` at `$1` and becomes the rest.
const MOUNT: &str = r#"mount -o loop,errors=remount-ro "$0" "$1" && shift && exec "$@""#;

/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`, of each directory's file system, one right after the other.
const SHUTDOWN: &str = r#"
use Fcntl;
my @disks = map { sysopen(my $disk, $_, O_RDONLY | O_DIRECTORY) or die "$_: $!"; $disk } @ARGV;
my $how = pack("L", 2);
for my $disk (@disks) { ioctl($disk, 0x8004587d, $how) or die "shutdown: $!" }
"#;

/// Makes syncs do nothing, in whatever process loads it.
const NO_SYNCS: &str = "libeatmydata.so";

/// Why no power can be cut here; small disks are there.
///
/// # Errors
/// What is missing.
pub fn power_cuts() -> Result<(), String> {
    succeeds(Command::new("perl").args(["-c", "-e", SHUTDOWN])).map_err(|why| format!("perl: {why}"))?;
    succeeds(Command::new("losetup").arg("--list"))
}

/// Why syncs cannot be made to do nothing here.
///
/// # Errors
/// What is missing.
pub fn lying_disks() -> Result<(), String> {
    let tried = Command::new("true").env("LD_PRELOAD", NO_SYNCS).output().map_err(|error| error.to_string())?;
    // The loader says what it does not find, and goes on.
    let says = String::from_utf8_lossy(&tried.stderr).trim().to_owned();
    if says.is_empty() { Ok(()) } else { Err(says) }
}

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
        self.boot_on_disk(node, mebibytes, None);
    }

    /// The same on a disk that lies: what is synced is not safe from a power cut.
    pub fn boot_on_lying_disk(&mut self, node: usize, mebibytes: u64) {
        self.boot_on_disk(node, mebibytes, Some(NO_SYNCS));
    }

    fn boot_on_disk(&mut self, node: usize, mebibytes: u64, preload: Option<&str>) {
        let at = self.data_dir(node);
        let image = at.with_extension("ext4");
        if !image.exists() {
            make(&image, mebibytes).expect("`small_disks` has tried it");
        }
        std::fs::create_dir_all(&at).expect("a place for it");
        let serve = self.command(node);
        let mut command = in_own_namespace();
        command.arg(image).arg(at);
        if let Some(library) = preload {
            command.arg("env").arg(format!("LD_PRELOAD={library}"));
        }
        command.arg(serve.get_program()).args(serve.get_args());
        for (name, _) in serve.get_envs() {
            command.env_remove(name);
        }
        self.spawn(node, command);
    }

    /// Cuts the power of all living nodes, which are on small disks, at once; comes back when their disks can be mounted
    /// again.
    pub async fn cut_power(&mut self) {
        let nodes = self.living();
        nodes.iter().for_each(|node| self.give_up(*node));
        let disks = nodes.iter().map(|node| self.small_disk(*node));
        let mut shutdown = Command::new("perl");
        succeeds(shutdown.args(["-e", SHUTDOWN]).args(disks)).expect("`power_cuts` has tried it");
        for node in nodes {
            self.kill9(node);
            self.unmounted(node).await;
        }
    }

    /// Lets the file system of a node that runs meet an error of its own, at which it becomes read-only.
    pub fn disk_becomes_read_only(&self, node: usize) {
        let image = self.data_dir(node).with_extension("ext4");
        let devices =
            Command::new("losetup").args(["--noheadings", "--output", "NAME", "--associated"]).arg(image).output();
        let device = String::from_utf8(devices.expect("it was tried").stdout).expect("a name");
        let device = device.trim().strip_prefix("/dev/").expect("it is mounted");
        std::fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "1").expect("root may");
    }

    /// Waits until the disk of a node that has ended is only a file again; returns it.
    async fn unmounted(&self, node: usize) -> PathBuf {
        let image = self.data_dir(node).with_extension("ext4");
        eventually("an unmounted disk", async || {
            let devices = Command::new("losetup").arg("--associated").arg(&image).output().expect("it was tried");
            (devices.status.success() && devices.stdout.is_empty()).then_some(())
        })
        .await;
        image
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
    /// The same while the node does not run.
    pub async fn empty_disk_at_rest(&self, node: usize) {
        let image = self.unmounted(node).await;
        let mut removes = Command::new("debugfs");
        succeeds(removes.args(["-w", "-R", "rm ballast"]).arg(image).stderr(std::process::Stdio::null()))
            .expect("it comes with mkfs.ext4");
    }
}
