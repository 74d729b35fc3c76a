//! A recorded backup of layout 1: every later version must restore it.
//!
//! It is of a cluster of three nodes that ran `inventory` and `kv` calls, some under a key, one refused, one deletion and
//! a change of the membership. To record one of a newer layout, make such calls and run `quorate backup`. Never change
//! one that is there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

const BACKUP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/backup-1.quorate");

fn restore(arguments: &[&str]) -> serde_json::Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    let output = command.args(["restore", BACKUP, "--output", "json"]).args(arguments).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// S-33, RELIABILITY 5 class 15: catches a version that cannot read a backup of an earlier one, or makes another state of
/// it: what is restored is compared with its digest.
#[test]
fn a_recorded_backup_is_restored() {
    let said = restore(&["--dry-run"]);
    let manifest = &said["manifest"];
    assert_eq!(manifest["command"], 7);
    assert_eq!(manifest["cluster"], "dev");
    assert_eq!(manifest["digest"], "693923225cc7c3a8e2f633e1022c54870533c10f0e937ac478bee1144b8a0192");
    let place = tempfile::tempdir().expect("a directory");
    let data = place.path().join("restored");
    let said = restore(&["--dev", data.to_str().expect("a plain path"), "--nodes", "2"]);
    assert_eq!(said["made"].as_array().map(Vec::len), Some(2), "{said}");
}

/// Catches a restored directory that every user of the machine may read: a backup is for its owner only, and so is all that is
/// made of it.
#[test]
fn what_is_restored_is_for_its_owner_only() {
    let place = tempfile::tempdir().expect("a directory");
    let path = |name: &str| place.path().join(name);
    restore(&["--set", &format!("node.data_dir={}", path("new/data").display())]);
    restore(&["--dev", path("dev").to_str().expect("a plain path"), "--nodes", "1"]);
    for name in ["new", "new/data", "dev", "dev/node-1/data"] {
        let mode = fs::metadata(path(name)).expect("it was made").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{name}");
    }
}
