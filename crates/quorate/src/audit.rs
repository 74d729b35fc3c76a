//! The chain of the audit log (ADR 0040): each of its lines has a number and a hash of itself and of the line before, so that
//! who has the lines can tell whether one was changed, taken out or put in since.
//!
//! Lines of the target `audit` are sealed where they are written, whatever the format of the log ([`Sealing`]); [`check`] reads
//! them again. A run of a node is a chain of its own, which begins with what says which start of which disk it is.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use blake3::Hash;
use protocol::NodeId;
use protocol::token::hexadecimal;
use serde_json::Value;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The target of lines of the audit log.
const TARGET: &str = "audit";
/// What hashes are for.
const CONTEXT: &str = "quorate 2026 lines of the audit log";

/// The hash of a line, after the one with that hash.
fn link(before: &Hash, number: u64, body: &str) -> Hash {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(before.as_bytes()).update(&number.to_be_bytes()).update(body.as_bytes());
    hasher.finalize()
}

/// Where a chain has got to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chain {
    number: u64,
    last: Hash,
}

impl Chain {
    fn new() -> Self {
        Self { number: 0, last: Hash::from_bytes([0; 32]) }
    }

    /// A line with its number and its hash, which are its last two fields.
    fn seal(&mut self, line: &str) -> String {
        let json = line.strip_suffix('}').filter(|_| line.starts_with('{'));
        let body = json.unwrap_or(line);
        self.number += 1;
        self.last = link(&self.last, self.number, body);
        let (number, chain) = (self.number, self.last);
        if json.is_some() {
            format!("{body},\"number\":{number},\"chain\":\"{chain}\"}}")
        } else {
            format!("{body} number={number} chain={chain}")
        }
    }
}

/// Writes lines as `F` does, and seals those of the audit log.
pub(crate) struct Sealing<F> {
    lines: F,
    chain: Mutex<Chain>,
}

impl<F> Sealing<F> {
    pub(crate) fn new(lines: F) -> Self {
        Self { lines, chain: Mutex::new(Chain::new()) }
    }
}

impl<S, N, F> FormatEvent<S, N> for Sealing<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if event.metadata().target() != TARGET {
            return self.lines.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.lines.format_event(context, Writer::new(&mut line), event)?;
        let sealed = self.chain.lock().unwrap_or_else(PoisonError::into_inner).seal(line.trim_end());
        metrics::counter!("quorate_audit_lines_total").increment(1);
        writeln!(writer, "{sealed}")
    }
}

/// The first line of a run: when one is missing between two others, so are these numbers.
pub(crate) fn begin(node: NodeId, name: &str, disk: &[u8], start: u64) {
    tracing::info!(target: TARGET, %node, name, disk = hexadecimal(disk), start, "begins");
}

/// A line that was sealed.
struct Sealed<'a> {
    body: &'a str,
    is_json: bool,
    number: u64,
    chain: Hash,
}

impl<'a> Sealed<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let json = line.strip_suffix("\"}").filter(|_| line.starts_with('{'));
        let (body, seal) = match json {
            Some(inner) => inner.rsplit_once(",\"number\":")?,
            None => line.rsplit_once(" number=")?,
        };
        let (number, chain) = seal.split_once(if json.is_some() { ",\"chain\":\"" } else { " chain=" })?;
        let (number, chain) = (number.parse().ok()?, Hash::from_hex(chain).ok()?);
        Some(Self { body, is_json: json.is_some(), number, chain })
    }

    /// Which disk, and which start on it, where this line is the first of a run.
    fn start(&self) -> Option<(String, u64)> {
        if self.is_json {
            let fields: Value = serde_json::from_str(&format!("{}}}", self.body)).ok()?;
            return Some((fields["disk"].as_str()?.to_owned(), fields["start"].as_u64()?));
        }
        let field = |name: &str| self.body.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        Some((field("disk")?.trim_matches('"').to_owned(), field("start")?.parse().ok()?))
    }
}

/// Whether a line of a log, of either format, is one of the audit log.
fn is_audit(line: &str) -> bool {
    if line.starts_with('{') {
        // Within a text the quotes would be escaped.
        return line.contains("\"target\":\"audit\"");
    }
    line.split_whitespace().nth(2) == Some("audit:")
}

/// The lines of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Which disk, and which start on it; nothing where its beginning is not there.
    pub(crate) start: Option<(String, u64)>,
    /// The numbers of the first and the last line that are there.
    pub(crate) numbers: (u64, u64),
    /// The hash of the last one.
    pub(crate) chain: Hash,
}

/// What became of the lines of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checked {
    pub(crate) runs: Vec<Run>,
    /// What is wrong, for people.
    pub(crate) faults: Vec<String>,
}

/// Checks the lines of the audit log among those of a log, in the order of the runs that wrote it. Within a run they may have
/// changed places: several threads write.
pub(crate) fn check<'a>(log: impl Iterator<Item = &'a str>) -> Checked {
    let mut checked = Checked::default();
    let mut run = BTreeMap::new();
    for (line, at) in log.map(str::trim_end).zip(1..).filter(|(line, _)| is_audit(line)) {
        let Some(sealed) = Sealed::read(line) else {
            checked.faults.push(format!("line {at}: has no number and no chain: it was put there, or was cut"));
            continue;
        };
        // No two lines of a run have one number.
        if sealed.number == 1 || run.contains_key(&sealed.number) {
            checked.take(std::mem::take(&mut run));
        }
        run.insert(sealed.number, (at, sealed));
    }
    checked.take(run);
    checked
}

impl Checked {
    /// Takes the lines of one run, by number, each with where it stands.
    fn take(&mut self, lines: BTreeMap<u64, (usize, Sealed<'_>)>) {
        let Some((&first, (at, begins))) = lines.first_key_value() else { return };
        let start = begins.start().filter(|_| first == 1);
        self.follows(*at, start.as_ref());
        let mut chain = Chain::new();
        for (number, (at, sealed)) in lines {
            let next = chain.number.saturating_add(1);
            let is_next = number == next;
            if !is_next && number != first {
                let last = number - 1;
                self.faults.push(format!("line {at}: is number {number}, and {next} to {last} are missing before it"));
            }
            if is_next && link(&chain.last, number, sealed.body) != sealed.chain {
                self.faults
                    .push(format!("line {at}: number {number} is not what was written, or follows another line"));
            }
            // What comes next is judged by itself.
            chain = Chain { number, last: sealed.chain };
        }
        self.runs.push(Run { start, numbers: (first, chain.number), chain: chain.last });
    }

    /// Whether a run follows the one before. The first one may begin anywhere: older lines of a log are elsewhere.
    fn follows(&mut self, at: usize, start: Option<&(String, u64)>) {
        let Some(before) = self.runs.last() else { return };
        let fault = match (&before.start, start) {
            (_, None) => "begins a run that does not say which start of the node it is".to_owned(),
            (Some((disk, before)), Some((same, start))) if disk == same && start.checked_sub(1) != Some(*before) => {
                format!("begins start {start} of the node, after start {before}: those between are missing")
            }
            (_, Some(_)) => return,
        };
        self.faults.push(format!("line {at}: {fault}"));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use tracing::subscriber::with_default;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("whole").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What a run of a node logs.
    fn run(json: bool, start: u64) -> Vec<String> {
        let written = Written::default();
        let writer = written.clone();
        let lines = tracing_subscriber::fmt().with_writer(move || writer.clone());
        let say = || {
            tracing::info!("the node runs");
            begin(NodeId(1), "a", &[10, 11], start);
            tracing::info!(target: "audit", who = "root", path = "/ number=9 chain=x", status = 200, "request");
            tracing::warn!(who = "x", "{} \"target\":\"audit\" audit: number=3", "{");
            tracing::warn!(target: "audit", who = "x\ny", what = "kv.put", "denied");
            tracing::info!(target: "audit", who = "root", command = 7, "call");
        };
        if json {
            with_default(lines.json().flatten_event(true).map_event_format(Sealing::new).finish(), say);
        } else {
            with_default(lines.with_ansi(true).map_event_format(Sealing::new).finish(), say);
        }
        let bytes = written.0.lock().expect("whole").clone();
        String::from_utf8(bytes).expect("text").lines().map(str::to_owned).collect()
    }

    fn checked(lines: &[String]) -> Checked {
        check(lines.iter().map(String::as_str))
    }

    /// Catches lines that the check does not know again, of either format or of several runs, and other lines that it takes
    /// for some of the audit log.
    #[test]
    fn what_was_written_is_as_it_was() {
        for json in [true, false] {
            let log = [run(json, 3), run(json, 4)].concat();
            assert_eq!(log.len(), 12);
            let Checked { runs, faults } = checked(&log);
            assert_eq!(faults, Vec::<String>::new(), "{log:#?}");
            let starts: Vec<_> = runs.iter().map(|run| (run.start.clone(), run.numbers)).collect();
            assert_eq!(starts, [(Some(("0a0b".into(), 3)), (1, 4)), (Some(("0a0b".into(), 4)), (1, 4))]);
            assert!(log[11].contains(runs[1].chain.to_hex().as_str()), "{log:#?}");
            let mut swapped = log.clone();
            swapped.swap(4, 5);
            assert_eq!(checked(&swapped).faults, Vec::<String>::new(), "threads write in any order");
            assert_eq!(checked(&log[4..]).runs[0].numbers, (3, 4), "older lines are elsewhere");
            assert_eq!(checked(&log[4..]).faults, Vec::<String>::new());
        }
    }

    type Change<'a> = &'a dyn Fn(&mut Vec<String>);

    /// Each way to tamper with a log, but to cut its end: that takes the number that a metric has, or a hash kept elsewhere.
    /// Catches one that is not noticed, or for which another line is blamed.
    #[test]
    fn what_was_tampered_with_is_found() {
        for json in [true, false] {
            let log = [run(json, 3), run(json, 4)].concat();
            let faults = |change: Change<'_>| {
                let mut changed = log.clone();
                change(&mut changed);
                checked(&changed).faults.join("\n")
            };
            let cases: [(&str, Change<'_>); 9] = [
                ("line 5: number 3 is not", &|log| log[4] = log[4].replace("kv.put", "kv.get")),
                ("line 6: number 4 is not", &|log| log[5] = log[5].replacen('2', "3", 1)),
                ("line 3: number 2 is not", &|log| {
                    log[2] = log[2].replace("status=200", "status=403").replace("status\":200", "status\":403");
                }),
                ("line 5: is number 4, and 3 to 3", &|log| drop(log.remove(4))),
                ("line 6: has no number", &|log| log[5] = log[5].replace("number", "other")),
                ("line 4: begins a run that does not say", &|log| log.insert(2, log[2].clone())),
                ("line 8: begins a run that does not say", &|log| drop(log.remove(7))),
                ("line 8: begins start 5 of the node, after start 3", &|log| {
                    log.truncate(6);
                    log.extend(run(json, 5));
                }),
                ("line 7: begins a run that does not say", &|log| {
                    log.truncate(6);
                    log.push(Chain::new().seal(&log[4].replace("number", "n")));
                }),
            ];
            for (fault, change) in cases {
                let found = faults(change);
                assert!(found.starts_with(fault) && !found.contains('\n'), "{fault}\n{found}");
            }
        }
    }
}
