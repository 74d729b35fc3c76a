//! `quorate audit check`: whether the audit log in a log is as it was written.

use anyhow::{Context as _, anyhow};
use serde_json::json;

use crate::audit::{Checked, Run, check};
use crate::cli::{Audit, CheckAudit, Output};
use crate::client::show;
use crate::failure::Failure;

/// Reads the log, and says what it found.
///
/// # Errors
/// When the file cannot be read, has nothing of the audit log, or something in it is not as it was written.
pub(crate) fn run(Audit::Check(asked): &Audit) -> Result<(), Failure> {
    let CheckAudit { file, output } = asked;
    let log =
        if file.as_os_str() == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    let log = log.with_context(|| format!("{} cannot be read", file.display()))?;
    let checked = check(log.lines());
    match output {
        Output::Text => show(
            checked
                .runs
                .iter()
                .map(line)
                .chain(checked.faults.iter().map(|fault| format!("{fault}\n")))
                .collect::<String>(),
        )?,
        Output::Json => show(format!("{}\n", document(&checked)))?,
    }
    if checked.faults.is_empty() && !checked.runs.is_empty() {
        return Ok(());
    }
    let why = match checked.faults.len() {
        0 => {
            anyhow!("{} has no lines of the target audit: give the log of a node, as the node wrote it", file.display())
        }
        faults => anyhow!("the audit log in {} is not as it was written: {faults} faults", file.display()),
    };
    Err(Failure::Reported(why))
}

fn line(run: &Run) -> String {
    let Run { start, numbers: (first, last), chain } = run;
    let start = start.as_ref().map_or_else(
        || "a start whose beginning is not here".to_owned(),
        |(disk, start)| format!("start {start} on disk {disk}"),
    );
    format!("{start}: lines {first} to {last}, the last with chain {chain}\n")
}

fn document(Checked { runs, faults }: &Checked) -> serde_json::Value {
    let run = |Run { start, numbers: (first, last), chain }: &Run| {
        let (disk, start) = start.clone().unzip();
        json!({"disk": disk, "start": start, "first": first, "last": last, "chain": chain.to_hex().as_str()})
    };
    json!({"runs": runs.iter().map(run).collect::<Vec<_>>(), "faults": faults})
}
