//! The audit log over the lives of a node (RELIABILITY 6, row 15; ADR 0040). Each way to tamper with it, in both formats, is
//! tested where lines are sealed (`crates/quorate/src/audit.rs`).

use std::io::Write as _;
use std::process::Output;

use quorate_tests::cluster::{Cluster, quorate};
use serde_json::{Value, json};

/// What the check of a log says.
fn check(log: &str) -> (Output, Value) {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(log.as_bytes()).expect("written");
    let checked = quorate().args(["audit", "check", "--output", "json"]).arg(file.path()).output().expect("it runs");
    let said = serde_json::from_slice(&checked.stdout).unwrap_or_else(|_| panic!("{checked:?}"));
    (checked, said)
}

/// Catches lines that are not sealed as a node writes them, runs that do not follow each other, a number that Prometheus is
/// told wrongly, and a command line that finds nothing, or finds what it must and ends with 0.
#[tokio::test]
async fn an_audit_log_that_was_changed_is_found_out() {
    for format in ["text", "json"] {
        let mut cluster = Cluster::start("audited", 1, &[&format!("log.format={format}")]).await;
        for life in 0..2 {
            if life > 0 {
                cluster.terminate(0);
                assert!(cluster.ended(0).await.success());
                cluster.boot(0);
                cluster.wait_begun().await;
            }
            let arguments = json!({"node": "a", "weight": 1, "dry_run": true});
            assert_eq!(cluster.call(0, "cluster.set_acceptor", &arguments).await.status, 200);
        }
        // Beginning, and one call.
        assert!(cluster.metric(0, "quorate_audit_lines_total").await >= 2.0);
        let lines = cluster.metric(0, "quorate_audit_lines_total").await;
        cluster.terminate(0);
        assert!(cluster.ended(0).await.success());
        let log = cluster.log(0);
        let (checked, said) = check(&log);
        assert!(checked.status.success(), "{checked:?}");
        let runs: Vec<_> = said["runs"].as_array().expect("runs").iter().map(|run| run["start"].clone()).collect();
        assert_eq!(runs, [1, 2], "{said}");
        assert_eq!(said["runs"][1]["last"].as_f64(), Some(lines), "{said}");

        let (checked, said) = check(&log.replace("set_acceptor", "remove"));
        assert_eq!(checked.status.code(), Some(1), "{checked:?}");
        let faults = said["faults"].as_array().expect("faults");
        assert!(faults.len() == 2 && faults[0].to_string().contains("is not what was written"), "{said}");
        assert_eq!(check("nothing of it\n").0.status.code(), Some(1));
    }
}
