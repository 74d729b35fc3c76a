//! The seat of a node: which cluster it belongs to, under which id, and the last membership that it knew.
//!
//! A node whose configuration lists all members needs none: id and cluster follow from the list. One that has joined a
//! running cluster was told both, and keeps them in the file `MEMBERSHIP` of its data directory, which from then on
//! says who it is, whatever the configuration lists. Every node notes there, after each change, who the members are: a
//! node whose state is lost still knows whom to ask for it, and whether there is anybody else.
//!
//! The file is kept twice, each copy with a checksum as its last line ([`copies`]): a node whose membership were read
//! with another weight than it has would take itself for a majority. Beside that, the state knows better: whatever it
//! holds of a membership with the same number is what counts.

mod access;
mod claimed;
mod copies;
mod joining;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use protocol::{Ballot, ClusterId, CommandNumber, Entry, Membership, NodeId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{Config, NodeRole};
use crate::failure::Failure;
use crate::sealed;

pub(crate) use access::{check as check_access, check_moves};
pub(crate) use claimed::{check_unclaimed, claim};
pub(crate) use joining::{ask_to_join, asks, join, joins};

/// Of the text, which is that of the file; 1 had no checksum.
const FORMAT: u32 = 2;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    /// The cluster.
    pub(crate) cluster: ClusterId,
    /// This node.
    pub(crate) node: NodeId,
    /// Who the members were when it was written.
    pub(crate) membership: Arc<Membership>,
    /// How it came by it.
    pub(crate) came: Came,
}

/// How a node came by its seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Came {
    /// It is in the list of its configuration.
    Listed,
    /// It begins its cluster alone, and has not served yet.
    Founding,
    /// It began its cluster alone, and drew the cluster's id: one that loses its disk begins another cluster, to which
    /// nobody belongs who joined the first.
    Founded,
    /// It joined, and still is to ask for a vote.
    JoinedForAVote,
    /// It joined.
    Joined,
    /// It had joined, and has left, or was about to and has no vote any more: it joins anew.
    Left,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    format: u32,
    cluster: String,
    node: u64,
    came: Came,
    /// The number of the membership.
    number: u64,
    membership: Value,
}

impl Seat {
    /// Reads the file of a data directory, if it is there.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub(crate) fn read(dir: &Path) -> anyhow::Result<Option<Self>> {
        copies::read(dir, Self::parse)
    }

    fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let (text, sealed) = sealed::open(bytes)?;
        let text: Text = serde_json::from_slice(text)?;
        let known = if sealed { FORMAT } else { 1 };
        anyhow::ensure!(text.format == known, "it has format {}, where {known} is expected", text.format);
        let cluster = u128::from_str_radix(&text.cluster, 16).context("the id of the cluster")?;
        let membership = read_membership(text.membership.to_string().into(), text.number)?;
        let cluster = ClusterId(cluster.to_be_bytes());
        Ok(Self { cluster, node: NodeId(text.node), membership: Arc::new(membership), came: text.came })
    }

    /// Writes the file: afterwards it is durably there.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let text = Text {
            format: FORMAT,
            cluster: self.cluster.to_string(),
            node: self.node.0,
            came: self.came,
            number: self.membership.number().0,
            membership: serde_json::from_slice(&self.membership.to_value()).expect("it is JSON"),
        };
        let text = serde_json::to_vec_pretty(&text).expect("plain data has a text");
        copies::write(dir, &text).with_context(|| format!("writing {} in {}", copies::FILE, dir.display()))
    }

    /// Whether it says who the node is.
    pub(crate) fn is_told(&self) -> bool {
        match self.came {
            Came::Listed => false,
            Came::Founding | Came::Founded | Came::JoinedForAVote | Came::Joined | Came::Left => true,
        }
    }
}

/// Reads a membership as it is stored under a command number.
fn read_membership(value: bytes::Bytes, number: u64) -> anyhow::Result<Membership> {
    Ok(Membership::read(&Entry { value, version: CommandNumber(number) })?)
}

/// Refuses a data directory that is none, or of which another user has a part.
///
/// # Errors
/// One line that says what to do.
pub(crate) fn check_directory(dir: &Path) -> Result<(), Failure> {
    if let Some(link) = dir.ancestors().find(|place| place.is_symlink() && !storage::rocksdb::may_exist(place)) {
        return Err(Failure::Usage(format!(
            "node.data_dir = {dir:?}: {link:?} is a symbolic link that leads to nothing; mount or make what it leads to, or \
             name another directory"
        )));
    }
    let in_the_way = match std::fs::metadata(dir) {
        Ok(found) => !found.is_dir(),
        Err(error) => error.kind() == std::io::ErrorKind::NotADirectory,
    };
    if in_the_way {
        return Err(Failure::Usage(format!(
            "node.data_dir = {dir:?} is, or lies in, something that is no directory; name another one"
        )));
    }
    access::check(dir)
}

/// Refuses a directory that says whose it is and holds nothing, to a node that nobody would tell that it has lost a disk.
///
/// # Errors
/// What to do.
pub(crate) fn check_not_lost(dir: &Path) -> Result<(), Failure> {
    if joining::has_databases(dir) {
        return Ok(());
    }
    Err(Failure::Failed(anyhow!(
        "the data directory {} has lost its databases: nothing is left but what says whose it is. This cluster has no other \
         node that has what was in them. Put them back, or make a new cluster from a backup, in an empty directory (`quorate \
         restore`); to begin with nothing, empty this one",
        dir.display()
    )))
}

/// Removes the data of a node that does not go on with it, its seat last.
///
/// # Errors
/// When the disk fails.
pub(crate) fn give_up(dir: &Path) -> anyhow::Result<()> {
    tracing::info!(
        data = %dir.display(),
        "this node had left its cluster, or never served the one that it began; it gives up what it has of it and joins anew"
    );
    Ok(storage::rocksdb::discard(dir, copies::FILE)?)
}

/// Takes the seat in the data directory, or founds a cluster, for a node that is to run.
///
/// # Errors
/// A file that cannot be read or written.
pub(crate) fn take(config: &mut Config) -> anyhow::Result<Option<Came>> {
    let came = known(config)?;
    match came {
        Some(Came::Founding | Came::Founded | Came::JoinedForAVote | Came::Joined) => {
            joining::forget(&config.node.data_dir)?;
        }
        Some(Came::Listed | Came::Left) => {}
        None => return found(config).map(|founded| founded.then_some(Came::Founding)),
    }
    Ok(came)
}

/// Lets the seat in the data directory say who this node is and who the members are, as far as it does; changes nothing
/// there.
///
/// # Errors
/// A file that cannot be read.
pub(crate) fn known(config: &mut Config) -> anyhow::Result<Option<Came>> {
    let Some(seat) = Seat::read(&config.node.data_dir)? else { return owned(config) };
    let cluster = &mut config.cluster;
    if seat.came == Came::Left {
        return Ok(Some(Came::Left));
    }
    if seat.is_told() {
        if let Some(member) = seat.membership.node(seat.node) {
            let is_listed = cluster.start.nodes().len() > 1;
            anyhow::ensure!(
                !is_listed || member.name == config.node.name,
                "the data directory {} belongs to node `{}`, but this is node `{}`; give this node its own directory, or \
                 correct its configuration",
                config.node.data_dir.display(),
                member.name,
                config.node.name
            );
            // That of a container may be another one each time.
            config.node.name.clone_from(&member.name);
        }
        (cluster.id, cluster.me) = (seat.cluster, seat.node);
        cluster.start = seat.membership;
    } else if (seat.cluster, seat.node) == (cluster.id, cluster.me) && seat.membership.number() > cluster.start.number()
    {
        cluster.start = seat.membership;
    }
    Ok(Some(seat.came))
}

/// Where both copies of the file are gone, the databases say who it is by now: a node that was recovered, which has another
/// id than its list gives it, and one that began alone, whose cluster's id was drawn. Its configuration has the members of
/// the beginning, and its state those since; one that began alone does not start where its state is not whole.
fn owned(config: &mut Config) -> anyhow::Result<Option<Came>> {
    let Some(mark) = storage::rocksdb::mark_of(&config.node.data_dir)? else { return Ok(None) };
    let (owner, configured) = (mark.identity, config.identity());
    // Who had a vote has promised something. One without goes on asking, as it had noted.
    let wants_a_vote = config.node.roles.contains(&NodeRole::Acceptor) && mark.next_ballot == Ballot::default();
    let cluster = &mut config.cluster;
    let began_alone = cluster.start.nodes().len() <= 1 && cluster.join.is_empty();
    let came = if owner == (storage::Identity { node: owner.node, ..configured.clone() }) && owner != configured {
        if wants_a_vote { Came::JoinedForAVote } else { Came::Joined }
    } else if began_alone && owner == (storage::Identity { cluster: owner.cluster, ..configured }) {
        Came::Founded
    } else {
        return Ok(None);
    };
    tracing::warn!(node = %owner.node, "no copy of {} is there; the databases say which node this is", copies::FILE);
    (cluster.id, cluster.me) = (owner.cluster, owner.node);
    Ok(Some(came))
}

/// Writes the seat of the first node of a new cluster of one.
fn found(config: &mut Config) -> anyhow::Result<bool> {
    let (dir, cluster) = (&config.node.data_dir, &mut config.cluster);
    if cluster.start.nodes().len() > 1 || !cluster.join.is_empty() || joining::has_data(dir) || joining::asks(dir) {
        return Ok(false);
    }
    #[expect(clippy::disallowed_methods, reason = "where chance enters: no other cluster may have this id")]
    let id: u128 = rand::random();
    cluster.id = ClusterId(id.to_be_bytes());
    storage::rocksdb::make(dir)?;
    alone(config, Came::Founding).write(&config.node.data_dir)?;
    Ok(true)
}

/// The first node of a new cluster serves from now on: what its directory holds is not to be lost any more.
///
/// # Errors
/// When the disk fails.
pub(crate) fn founded(config: &Config) -> anyhow::Result<Came> {
    alone(config, Came::Founded).write(&config.node.data_dir)?;
    Ok(Came::Founded)
}

fn alone(config: &Config, came: Came) -> Seat {
    let cluster = &config.cluster;
    Seat { cluster: cluster.id, node: cluster.me, membership: Arc::clone(&cluster.start), came }
}

#[cfg(test)]
mod tests {
    use storage::LogStore as _;

    use super::*;
    use crate::config::Sources;

    fn seat() -> Seat {
        let (membership, node) = Membership::of_equals(3).joined("d", "d:7080").expect("a new name");
        let membership = Arc::new(membership.written_by(CommandNumber(17)));
        Seat { cluster: ClusterId([7; 16]), node, membership, came: Came::JoinedForAVote }
    }

    fn text(dir: &Path) -> String {
        std::fs::read_to_string(dir.join(copies::FILE)).expect("readable")
    }

    /// Catches a node that has joined and after a restart is another one, or does not know whom to ask.
    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(Seat::read(dir.path()).expect("nothing is no error"), None);
        seat().write(dir.path()).expect("written");
        assert_eq!(Seat::read(dir.path()).expect("readable"), Some(seat()));
    }

    /// Catches a damaged file that is believed: with another weight a node could be a majority by itself. Each bit is
    /// flipped and each end cut off in turn.
    #[test]
    fn no_damage_is_believed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let dir = dir.path();
        seat().write(dir).expect("written");
        let whole = text(dir).into_bytes();
        let flipped = (0..whole.len() * 8).map(|bit| {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        });
        let cut = (0..whole.len()).map(|length| whole[..length].to_vec());
        for damaged in flipped.chain(cut) {
            assert!(Seat::parse(&damaged).is_err(), "{:?} was believed", String::from_utf8_lossy(&damaged));
        }
        for file in [copies::FILE, copies::COPY] {
            seat().write(dir).expect("written");
            std::fs::write(dir.join(file), &whole[1..]).expect("written");
            assert_eq!(Seat::read(dir).expect("the other copy is whole"), Some(seat()));
        }
        for file in [copies::FILE, copies::COPY] {
            std::fs::write(dir.join(file), b"").expect("written");
        }
        let error = Seat::read(dir).expect_err("nothing is left");
        assert!(format!("{error:#}").contains("remove both"), "{error:#}");
    }

    /// Catches a version that cannot read what an earlier one wrote, of either format, or that writes this one's differently.
    #[test]
    fn recorded_files_are_read_and_written_as_ever() {
        let first = include_str!("../../tests/golden/membership-1");
        let second = include_str!("../../tests/golden/membership-2");
        for recorded in [first, second] {
            assert_eq!(Seat::parse(recorded.as_bytes()).expect("readable"), seat());
        }
        for (word, came) in [
            ("listed", Came::Listed),
            ("founding", Came::Founding),
            ("founded", Came::Founded),
            ("joined_for_a_vote", Came::JoinedForAVote),
            ("joined", Came::Joined),
            ("left", Came::Left),
        ] {
            let text = first.replacen("\"joined_for_a_vote\"", &format!("{word:?}"), 1);
            assert_eq!(Seat::parse(text.as_bytes()).expect("readable").came, came);
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        seat().write(dir.path()).expect("written");
        assert_eq!(text(dir.path()), second);
    }

    /// Catches a copy that is lost for good, or that speaks for a directory whose seat was given up.
    #[test]
    fn one_copy_is_enough() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let dir = dir.path();
        for file in [copies::FILE, copies::COPY] {
            seat().write(dir).expect("written");
            std::fs::remove_file(dir.join(file)).expect("removed");
            assert_eq!(Seat::read(dir).expect("readable"), Some(seat()));
        }
        seat().write(dir).expect("written");
        give_up(dir).expect("given up");
        assert_eq!(Seat::read(dir).expect("nothing is no error"), None);
    }

    /// Catches a link that leads nowhere, on which nothing can be made, and of which the system says that it exists.
    #[test]
    fn a_data_directory_that_is_none_is_refused() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| place.path().join(name);
        std::fs::write(at("file"), "").expect("written");
        std::os::unix::fs::symlink("nothing", at("nowhere")).expect("a link");
        std::os::unix::fs::symlink(".", at("here")).expect("a link");
        for (name, says) in [
            ("nowhere", Some("leads to nothing")),
            ("nowhere/data", Some("leads to nothing")),
            ("file", Some("no directory")),
            ("file/data", Some("no directory")),
            ("here", None),
            ("here/data", None),
        ] {
            let refused = check_directory(&at(name)).err().map(|why| why.to_string());
            assert_eq!(refused.is_some(), says.is_some(), "{name}: {refused:?}");
            assert!(refused.is_none_or(|why| says.is_some_and(|says| why.contains(says))), "{name}");
        }
    }

    /// Catches a recovered node that has lost both copies and takes itself for the one that it was, which its databases and
    /// so every start and every recovery refuse; one that forgets that it is to ask for a vote, or asks again for one that it
    /// was taken; and one that takes the directory of another node or cluster for its own.
    #[test]
    fn the_databases_of_a_recovered_node_say_who_it_is() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let data = dir.path().join("data");
        let load = |members: &str| {
            let sets = ["node.name=b", members].map(str::to_owned).into_iter();
            let sets = sets.chain([format!("node.data_dir={}", data.display())]).collect();
            Config::load(&Sources { sets, ..Sources::default() }).expect("a good configuration").0
        };
        let listed = "cluster.members=a=h:1,b=h:2,c=h:3";
        let mut config = load(listed);
        assert_eq!(known(&mut config).expect("nothing is no error"), None);
        let recovered = storage::Identity { node: NodeId(5), ..config.identity() };
        let open =
            || storage::rocksdb::open(&data, &recovered, &storage::rocksdb::Options::default()).expect("it opens");
        drop(open());
        assert_eq!(known(&mut load(listed)).expect("readable"), Some(Came::JoinedForAVote));
        let promise = storage::LogRecord::NextBallot(Ballot::new(9, NodeId(5)));
        open().log.write(&[promise]).expect("written");
        assert_eq!(known(&mut config).expect("readable"), Some(Came::Joined));
        assert_eq!((config.identity(), config.cluster.start.nodes().len()), (recovered, 3));
        for others in ["cluster.members=b=h:2,c=h:3", "cluster.name=other", "cluster.join=h:1"] {
            assert_eq!(known(&mut load(others)).expect("readable"), None, "{others}");
        }
    }

    /// Catches a node that began alone, has lost both copies, and takes its data for that of another cluster; and one that
    /// takes those of another node for its own.
    #[test]
    fn the_databases_of_a_node_that_began_alone_say_which_cluster_it_is() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let data = dir.path().join("data");
        let load = |sets: &[&str]| {
            let sets = sets.iter().map(ToString::to_string).chain([format!("node.data_dir={}", data.display())]);
            Config::load(&Sources { sets: sets.collect(), ..Sources::default() }).expect("a good configuration").0
        };
        let mut config = load(&[]);
        let founded = storage::Identity { cluster: ClusterId([9; 16]), ..config.identity() };
        drop(storage::rocksdb::open(&data, &founded, &storage::rocksdb::Options::default()).expect("made"));
        assert_eq!((known(&mut config).expect("readable"), config.identity()), (Some(Came::Founded), founded));
        for others in ["node.name=other", "cluster.name=other", "cluster.join=h:1", "cluster.members=a=h:1,b=h:2"] {
            assert_eq!(known(&mut load(&[others])).expect("readable"), None, "{others}");
        }
    }

    /// Catches a node that was recovered and runs as another one, whose directory it was given; and one whose container has
    /// another name each time, and that does not start for that.
    #[test]
    fn the_directory_of_another_recovered_node_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        seat().write(dir.path()).expect("written");
        let known_as = |sets: &[&str]| {
            let data = format!("node.data_dir={}", dir.path().display());
            let sets = sets.iter().map(ToString::to_string).chain([data]).collect();
            let mut config = Config::load(&Sources { sets, ..Sources::default() }).expect("a good configuration").0;
            known(&mut config).map(|_| config.node.name)
        };
        let listed = "cluster.members=c=c:1,d=d:7080";
        assert_eq!(known_as(&["node.name=d", listed]).expect("its own"), "d");
        let refused = known_as(&["node.name=c", listed]).expect_err("of another node").to_string();
        assert!(refused.contains("belongs to node `d`, but this is node `c`"), "{refused}");
        assert_eq!(known_as(&["node.name=host-17", "cluster.join=c:1"]).expect("its own"), "d");
    }

    /// Catches a cluster of one that gets another id at each start, that counts as served before it was, or that begins anew
    /// when it has lost what it served.
    #[test]
    fn a_cluster_of_one_is_founded_once() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let load = || {
            let sets = vec![format!("node.data_dir={}", dir.path().display())];
            Config::load(&Sources { sets, ..Sources::default() }).expect("a good configuration").0
        };
        let take = || {
            let mut config = load();
            let came = take(&mut config).expect("it can be written").expect("it founds one");
            (config, came)
        };
        let (config, came) = take();
        assert_eq!(came, Came::Founding);
        assert_eq!(take(), (config.clone(), Came::Founding), "a crash came before it served");
        assert_eq!(founded(&config).expect("written"), Came::Founded);
        assert_eq!(take(), (config.clone(), Came::Founded));
        assert!(check_not_lost(dir.path()).is_err_and(|why| why.to_string().contains("quorate restore")));
        drop(
            storage::rocksdb::open(dir.path(), &config.identity(), &storage::rocksdb::Options::default())
                .expect("made"),
        );
        check_not_lost(dir.path()).expect("its databases are there");

        check_unclaimed(dir.path()).expect("nobody has called it");
        let why = claim(dir.path(), "2 (b)");
        let refused = check_unclaimed(dir.path()).expect_err("it was called").to_string();
        assert!(why.contains("node 2 (b) of another cluster") && refused.ends_with(&why), "{refused}");
    }

    /// Catches a version that cannot read what the one before wrote.
    #[test]
    fn a_file_without_a_checksum_is_that_of_an_earlier_version() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let dir = dir.path();
        seat().write(dir).expect("written");
        let (text, _) =
            sealed::open(text(dir).as_bytes()).map(|(text, sealed)| (text.to_vec(), sealed)).expect("sealed");
        std::fs::remove_file(dir.join(copies::COPY)).expect("removed");
        let text = String::from_utf8(text).expect("it is text");
        std::fs::write(dir.join(copies::FILE), text.replacen("\"format\": 2", "\"format\": 1", 1)).expect("written");
        assert_eq!(Seat::read(dir).expect("readable"), Some(seat()));
        std::fs::write(dir.join(copies::FILE), text).expect("written");
        assert!(Seat::read(dir).is_err(), "a checksum that was cut off");
    }
}
