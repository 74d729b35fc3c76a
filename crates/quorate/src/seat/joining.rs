//! A newcomer asks for its seat, of one member after the other, until it has one.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use storage::rocksdb::{may_exist, write_whole};
use transport::join::{Admission, Application, Join, NoAdmission};
use transport::tls::Tls;

use super::{Came, Seat, read_membership};
use crate::config::{Config, NodeRole};
use crate::failure::Failure;
use crate::sealed;

/// While it asks: the key under which it does, so that a newcomer that is stopped in the middle is still the same one.
const ASKING: &str = "JOINING";
/// Of that file; 1 had no line that says so, 2 no checksum.
const FORMAT: u32 = 3;
/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_secs(1);
/// How often it is said again whom it waits for.
const SAID_AGAIN: Duration = Duration::from_secs(30);

/// Whether a node without a seat is to ask for one: by its configuration, or because it was recovered.
///
/// # Errors
/// A data directory that is that of a node which did not join.
pub(crate) fn joins(config: &Config) -> Result<bool, Failure> {
    let dir = &config.node.data_dir;
    let has_data = has_data(dir);
    if has_data && !config.cluster.join.is_empty() {
        return Err(Failure::Usage(format!(
            "cluster.join: node.data_dir = {dir:?} is that of a node which did not join (then leave out cluster.join), or its \
             file MEMBERSHIP is missing (then put it back, or name an empty directory)"
        )));
    }
    Ok(!has_data && (!config.cluster.join.is_empty() || asks(dir)))
}

/// Whether a node has begun there.
pub(super) fn has_data(dir: &Path) -> bool {
    // The cluster's, which stays when a node of a restored one is recovered: that node asks.
    let is_restored = crate::backup::is_restored(dir) && !asks(dir);
    is_restored || has_databases(dir)
}

/// Whether there is any of what a node keeps its promises and votes in.
pub(super) fn has_databases(dir: &Path) -> bool {
    ["IDENTITY", "MARK", "log"].iter().any(|part| may_exist(&dir.join(part)))
}

/// Whether a newcomer, or a node that was recovered, asks for a seat there.
pub(crate) fn asks(dir: &Path) -> bool {
    may_exist(&dir.join(ASKING))
}

/// Lets the next start ask for a new seat, whatever the configuration says, of the members that are known now.
///
/// # Errors
/// When the disk fails.
pub(crate) fn ask_to_join(config: &Config) -> anyhow::Result<()> {
    Asking::of(config).write(&config.node.data_dir)
}

/// What a newcomer keeps until it has its seat: the file `JOINING`, a line for each.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asking {
    /// Makes a repeated question the same one.
    key: u128,
    /// Under which name.
    name: String,
    /// Where it is reached.
    address: String,
    /// Whom it asks.
    members: Vec<String>,
}

impl Asking {
    /// A new question.
    fn of(config: &Config) -> Self {
        // By name: one that was recovered has another id than its list gives it.
        let (me, start) = (&config.node.name, &config.cluster.start);
        let listed = start.named(me).and_then(|id| start.node(id)).map(|member| member.address.clone());
        let others = start.nodes().values().filter(|member| member.name != *me);
        let members = match &config.cluster.join[..] {
            [] => others.map(|member| member.address.clone()).collect(),
            named => named.to_vec(),
        };
        let address = listed.unwrap_or_else(|| config.listen.advertise_peer.clone());
        #[expect(clippy::disallowed_methods, reason = "where chance enters: nobody else may have this key")]
        let key = rand::random();
        Self { key, name: config.node.name.clone(), address, members }
    }

    /// The question of before, if it is the same one; else a new one, which is durably noted.
    fn begin(config: &Config) -> anyhow::Result<Self> {
        let (dir, new) = (&config.node.data_dir, Self::of(config));
        storage::rocksdb::make(dir)?;
        let noted = match fs::read(dir.join(ASKING)) {
            Ok(bytes) => Some(Self::parse(&bytes).with_context(|| {
                format!(
                    "the file {ASKING} in {} cannot be understood; if it is damaged, run `quorate recover`, which writes it \
                     anew",
                    dir.display()
                )
            })?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).context("reading the file JOINING"),
        };
        if let Some(noted) = noted {
            // Of a node that was recovered only the file knows whom to ask.
            let members = if config.cluster.join.is_empty() { noted.members } else { new.members.clone() };
            let noted = Self { members, ..noted };
            if (&noted.name, &noted.address) == (&new.name, &new.address) {
                return Ok(noted);
            }
            let new = Self { members: noted.members, ..new };
            new.write(dir)?;
            return Ok(new);
        }
        new.write(dir)?;
        Ok(new)
    }

    /// Under another key: the cluster has decided on this one.
    fn renew(self, config: &Config) -> anyhow::Result<Self> {
        let new = Self { key: Self::of(config).key, ..self };
        new.write(&config.node.data_dir)?;
        Ok(new)
    }

    fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let mut lines = sealed::open_lines(ASKING, FORMAT, bytes)?.lines().map(str::to_owned);
        let (Some(key), Some(name), Some(address)) = (lines.next(), lines.next(), lines.next()) else {
            anyhow::bail!("its end is missing");
        };
        let key = u128::from_str_radix(&key, 16).context("its key")?;
        Ok(Self { key, name, address, members: lines.collect() })
    }

    fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let Self { key, name, address, members } = self;
        storage::rocksdb::make(dir)?;
        let text = format!("{key:032x}\n{name}\n{address}\n{}", members.join("\n"));
        write_whole(dir, ASKING, &sealed::seal_lines(FORMAT, &text)).context("writing the file JOINING")
    }

    fn application(&self, config: &Config) -> Application {
        Application {
            name: self.name.clone(),
            cluster_name: config.cluster.name.clone(),
            learn_from: config.learn_from,
            window: config.window,
            join: Join { key: Bytes::copy_from_slice(&self.key.to_be_bytes()), address: self.address.clone() },
        }
    }
}

/// What a newcomer that has its seat does not need any more. A told seat counts more than it.
pub(super) fn forget(dir: &Path) -> anyhow::Result<()> {
    match fs::remove_file(dir.join(ASKING)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("removing the file JOINING"),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Asks until the cluster has decided, and writes the seat; `says` why it has not yet. `None`: it was asked to stop before.
///
/// # Errors
/// A refusal, which says what to do, or a failing disk.
pub(crate) async fn join(
    config: &Config,
    tls: Option<&Tls>,
    says: impl Fn(String),
    asked_to_stop: impl Future<Output = &'static str>,
) -> Result<Option<()>, Failure> {
    let admission = tokio::select! {
        admission = ask_around(config, tls, says) => admission?,
        _ = asked_to_stop => return Ok(None),
    };
    let seat = seat(&admission, config.node.roles.contains(&NodeRole::Acceptor))?;
    seat.write(&config.node.data_dir)?;
    tracing::info!(
        node = %seat.node, name = config.node.name, cluster = config.cluster.name, number = %seat.membership.number(),
        "joined the cluster; now the state is learnt from the other nodes"
    );
    Ok(Some(()))
}

async fn ask_around(config: &Config, tls: Option<&Tls>, says: impl Fn(String)) -> Result<Admission, Failure> {
    let mut asking = Asking::begin(config)?;
    tracing::info!(
        name = asking.name,
        cluster = config.cluster.name,
        members = asking.members.join(", "),
        "asks to be taken into the cluster"
    );
    let mut said: Option<tokio::time::Instant> = None;
    loop {
        let mut answers = Vec::new();
        for member in asking.members.clone() {
            match transport::join::ask(&member, &asking.application(config), tls).await {
                Ok(admission) => return Ok(admission),
                Err(NoAdmission::Refused(why)) => {
                    asking.renew(config)?;
                    return Err(Failure::Usage(format!("this node is not taken into the cluster: {why}")));
                }
                Err(NoAdmission::NotNow(why)) => {
                    asking = asking.renew(config)?;
                    answers.push(why);
                }
                Err(NoAdmission::NotYet(why) | NoAdmission::Nobody(why)) => answers.push(why),
            }
        }
        let line = format!("no member has taken this node in yet; it asks until one does: {}", answers.join("; "));
        if said.is_none_or(|said| said.elapsed() >= SAID_AGAIN) {
            said = Some(tokio::time::Instant::now());
            tracing::warn!("{line}");
        }
        says(line);
        tokio::time::sleep(PAUSE).await;
    }
}

fn seat(admission: &Admission, wants_a_vote: bool) -> anyhow::Result<Seat> {
    let cluster = admission.cluster_id().ok_or_else(|| anyhow!("the member gave no id of its cluster"))?;
    let membership = read_membership(admission.membership.clone(), admission.number)?;
    let node = protocol::NodeId(admission.node);
    anyhow::ensure!(membership.node(node).is_some(), "the member gave a membership without this node");
    let came = if wants_a_vote { Came::JoinedForAVote } else { Came::Joined };
    Ok(Seat { cluster, node, membership: membership.into(), came })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn config(dir: &Path, sets: &[&str]) -> Config {
        let data = format!("node.data_dir={}", dir.display());
        let sets: Vec<String> = sets.iter().map(ToString::to_string).chain([data]).collect();
        Config::load(&Sources { sets, ..Sources::default() }).expect("a good configuration").0
    }

    /// Catches a newcomer that is stopped while it asks, asks under another key afterwards, and becomes two nodes; one that
    /// has another name or address now and asks under the same key, which would be refused; and a recovered node that does
    /// not know whom to ask.
    #[test]
    fn a_newcomer_asks_under_one_key() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let joins = ["node.name=d", "cluster.join=h:1,h:2"];
        let begin = |sets: &[&str]| Asking::begin(&config(dir.path(), sets)).expect("it can be written");
        let first = begin(&joins);
        assert_eq!(begin(&joins), first);
        for changed in ["node.name=e", "listen.advertise_peer=h:9"] {
            let other = begin(&[&joins[..], &[changed]].concat());
            assert_ne!(other.key, first.key, "{changed}");
            assert_ne!(begin(&joins).key, other.key, "{changed}");
        }
        let refused = begin(&joins).renew(&config(dir.path(), &joins)).expect("written");
        assert_eq!(begin(&joins), refused);
        forget(dir.path()).expect("removed");
        forget(dir.path()).expect("nothing is there");

        let listed = ["node.name=b", "cluster.members=a=h:1,b=h:2,c=h:3"];
        ask_to_join(&config(dir.path(), &listed)).expect("written");
        let asking = begin(&listed);
        assert_eq!((asking.name.as_str(), asking.address.as_str()), ("b", "h:2"));
        assert_eq!(asking.members, ["h:1", "h:3"]);
        assert!(joins_by(dir.path(), &listed));
        // What a recovery leaves of a node of a restored cluster.
        fs::write(dir.path().join("ORIGIN"), "").expect("written");
        assert!(joins_by(dir.path(), &listed));
        fs::write(dir.path().join("MARK"), "").expect("written");
        assert!(!joins_by(dir.path(), &listed), "it has begun");
    }

    /// S-33: catches a version that asks under another key than the one before it, and becomes two nodes; one that writes this
    /// version's file differently, or takes that of a later one for nothing.
    #[test]
    fn recorded_files_are_read_and_written_as_ever() {
        let first = include_str!("../../tests/golden/joining-1");
        let second = include_str!("../../tests/golden/joining-2");
        let third = include_str!("../../tests/golden/joining-3");
        let (name, address) = ("d".to_owned(), "h:7080".to_owned());
        let asking = Asking { key: 0x0f, name, address, members: vec!["h:1".to_owned(), "h:2".to_owned()] };
        let dir = tempfile::tempdir().expect("a temporary directory");
        let sets = ["node.name=d", "cluster.join=h:1,h:2", "listen.advertise_peer=h:7080"];
        for recorded in [first, second, third] {
            fs::write(dir.path().join(ASKING), recorded).expect("written");
            assert_eq!(Asking::begin(&config(dir.path(), &sets)).expect("readable"), asking);
        }
        asking.write(dir.path()).expect("written");
        assert_eq!(fs::read_to_string(dir.path().join(ASKING)).expect("there"), third);
        fs::write(dir.path().join(ASKING), second.replacen("format 2", "format 4", 1)).expect("written");
        let refused = Asking::begin(&config(dir.path(), &sets)).expect_err("of a later version");
        assert!(format!("{refused:#}").contains("run the version"), "{refused:#}");
    }

    /// Catches a damaged key that is another one: the node that it was asked under is taken for somebody else; and advice that
    /// does not help.
    #[test]
    fn a_damaged_question_is_not_asked() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config = config(dir.path(), &["node.name=d", "cluster.join=h:1"]);
        let file = dir.path().join(ASKING);
        ask_to_join(&config).expect("written");
        let whole = fs::read_to_string(&file).expect("there");
        // The first digit of the key.
        let (before, after) = (&whole[.."format 3\n".len()], &whole["format 3\n0".len()..]);
        let flipped = ["0", "1"].map(|digit| [before, digit, after].concat()).into_iter().find(|other| *other != whole);
        let flipped = flipped.expect("one of two");
        for damaged in [&flipped[..], &whole[..whole.len() / 2], ""] {
            fs::write(&file, damaged).expect("written");
            let refused = Asking::begin(&config).expect_err("damaged").to_string();
            assert!(refused.contains("quorate recover"), "{refused}");
        }
        // What that does.
        ask_to_join(&config).expect("written");
        Asking::begin(&config).expect("whole");
    }

    fn joins_by(dir: &Path, sets: &[&str]) -> bool {
        super::joins(&config(dir, sets)).expect("no contradiction")
    }
}
