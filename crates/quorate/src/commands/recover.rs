//! `quorate recover`: a node that has lost its disk joins its cluster again, under a new id.
//!
//! What is done to the data directory stands in `storage::rocksdb::set_aside`. Here it is decided whether to do it.

use std::path::Path;

use anyhow::Context as _;
use serde_json::json;
use storage::Identity;
use storage::rocksdb::{Condition, condition, recovering, set_aside};

use crate::cli::{Output, Recover};
use crate::client::show;
use crate::config::{Config, Sources};
use crate::failure::Failure;

/// Replaces the data directory of a node, or only says what there is.
///
/// # Errors
/// A wrong configuration, a directory that can be used or is in use, or a failing disk.
pub(crate) fn run(recover: &Recover) -> Result<(), Failure> {
    let (config, _) = Config::load(&Sources::of_this_process(recover.given.config.clone(), &recover.given.sets))?;
    replace(config, recover)
}

fn replace(mut config: Config, recover: &Recover) -> Result<(), Failure> {
    let dir = config.node.data_dir.clone();
    crate::seat::check_directory(&dir)?;
    crate::backup::check_finished(&dir)?;
    let goes_on = goes_on(&mut config)?;
    if !goes_on {
        config.cluster.id = crate::backup::cluster_of(&config)?;
        crate::seat::known(&mut config)?;
    }
    let me = config.identity().node;
    let is_alone = config.cluster.start.nodes().keys().all(|node| *node == me);
    if !goes_on && is_alone && config.cluster.join.is_empty() {
        return Err(Failure::Usage(format!(
            "node.data_dir = {dir:?}: this configuration names no other node to learn from. If the cluster has \
             grown, set `cluster.join` to some of its other members, empty the directory, and start this node; if not, \
             make the cluster anew from a backup (`quorate restore`)"
        )));
    }
    let doing = || format!("data directory {}", dir.display());
    let found = condition(&dir, &config.identity()).with_context(doing)?;
    let what = describe(&found);
    if let Condition::Another(_) = found {
        return Err(Failure::Usage(what));
    }
    if needs_force(&found) && !recover.force {
        return Err(Failure::Usage(format!(
            "node.data_dir = {dir:?}: {what}; with --force it is given up, and this node joins anew"
        )));
    }
    crate::seat::check_moves(&dir)?;
    if recover.dry_run {
        return Ok(report(recover, &dir, &what, None)?);
    }
    // First: without it the next start would be that of the same node with an empty disk, which the others refuse. One that
    // was cut short did so, and knew more of the members.
    if !goes_on {
        crate::seat::ask_to_join(&config)?;
    }
    let aside = set_aside(&dir, &config.identity()).with_context(doing)?;
    Ok(report(recover, &dir, &what, Some(aside.as_deref()))?)
}

/// Whether a recovery of this node was cut short, as far as names say. Then it is that of the node which it was: what says
/// who that is, in a node that was told, may have been moved by now.
fn goes_on(config: &mut Config) -> anyhow::Result<bool> {
    let dir = &config.node.data_dir;
    let Some(Identity { cluster, cluster_name, node, node_name }) = recovering(dir)? else { return Ok(false) };
    let fits = (&cluster_name, &node_name) == (&config.cluster.name, &config.node.name);
    // Without it the directory is as it was.
    let goes_on = fits && crate::seat::asks(dir);
    if goes_on {
        (config.cluster.id, config.cluster.me) = (cluster, node);
    }
    Ok(goes_on)
}

/// What is lost by it is the vote of a node that can vote, or will.
fn needs_force(found: &Condition) -> bool {
    match found {
        Condition::NotAdmitted | Condition::Usable => true,
        Condition::Another(_)
        | Condition::Absent
        | Condition::Refused(_)
        | Condition::Replaced
        | Condition::Lost(_)
        | Condition::CutShort => false,
    }
}

fn describe(found: &Condition) -> String {
    match found {
        Condition::Another(whose) => whose.clone(),
        Condition::Absent => "there is no data".to_owned(),
        Condition::NotAdmitted => {
            "it is new or restored, and this node votes with it once the others have noted it; start the node \
             (`quorate serve`), which says whether they do"
                .to_owned()
        }
        Condition::Refused(why) => format!("the other nodes have refused it: {why}"),
        Condition::Lost(why) => format!("what this node has promised and voted for is lost: {why}"),
        Condition::CutShort => "a recovery was cut short here".to_owned(),
        Condition::Usable => {
            "it can be used, and where it is damaged it heals by itself as long as a majority set of the others votes; start \
             the node (`quorate serve`), which says what it waits for, unless its disk takes no writes any more"
                .to_owned()
        }
        Condition::Replaced => {
            "it is that of a node that was recovered by an earlier version, and does not vote".to_owned()
        }
    }
}

/// `made`: where the old content is, if there was any; `None` when nothing was done.
fn report(recover: &Recover, dir: &Path, what: &str, made: Option<Option<&Path>>) -> anyhow::Result<()> {
    if recover.output == Output::Json {
        let aside = made.flatten();
        return show(format!(
            "{}\n",
            json!({ "data_dir": dir, "found": what, "made": made.is_some(), "set_aside": aside })
        ));
    }
    let mut text = format!("{}: {what}\n", dir.display());
    match made {
        None => text.push_str(
            "nothing was changed (--dry-run); else what is there, if anything, goes into `before-recovery-N`, and this node \
             joins its cluster as a new one when it starts\n",
        ),
        Some(aside) => {
            if let Some(aside) = aside {
                text.push_str(&format!("what was there is in {}; remove it when nobody needs it\n", aside.display()));
            }
            text.push_str(
                "now: quorate serve, with the same configuration; this node joins its cluster as a new one in the place of the \
                 old one, and votes again when it has caught up\n",
            );
        }
    }
    show(text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use protocol::{ClusterId, CommandNumber, Membership, NodeId};

    use super::*;
    use crate::cli::Given;
    use crate::seat::{Came, Seat};

    /// What lies in a data directory, in the order in which a recovery moves it.
    const PARTS: [&str; 6] = ["IDENTITY", "MARK", "MEMBERSHIP", "MEMBERSHIP.copy", "log", "state"];

    fn config(data: &Path, sets: &[&str]) -> Config {
        let sets = sets.iter().map(ToString::to_string).chain([format!("node.data_dir={}", data.display())]).collect();
        Config::load(&Sources { sets, ..Sources::default() }).expect("a good configuration").0
    }

    fn recover(data: &Path, sets: &[&str], dry_run: bool) -> Result<(), Failure> {
        let given = Given { config: None, sets: Vec::new() };
        replace(config(data, sets), &Recover { given, force: false, dry_run, output: Output::Json })
    }

    /// A directory of the node, of which a recovery was cut short when it had moved so many parts.
    fn cut_short(data: &Path, sets: &[&str], seat: &Seat, moved: usize) {
        fs::create_dir(data).expect("made");
        seat.write(data).expect("written");
        for part in ["IDENTITY", "MARK"] {
            fs::write(data.join(part), part).expect("written");
        }
        for part in ["log", "state"] {
            fs::create_dir(data.join(part)).expect("made");
        }
        let mut config = config(data, sets);
        crate::seat::known(&mut config).expect("readable");
        crate::seat::ask_to_join(&config).expect("written");
        let Identity { cluster, cluster_name, node, node_name } = config.identity();
        let begun = format!("before-recovery-1\n{cluster}\n{cluster_name}\n{}\n{node_name}\n", node.0);
        fs::write(data.join("RECOVERING"), begun).expect("written");
        fs::create_dir(data.join("before-recovery-1")).expect("made");
        for part in &PARTS[..moved] {
            fs::rename(data.join(part), data.join("before-recovery-1").join(part)).expect("moved");
        }
    }

    /// RELIABILITY 1 (ALICE): catches a recovery of a node that was told who it is (it joined, it founded its cluster, or it
    /// was recovered before), which was killed when it had moved what says so, and cannot be finished; one that then asks
    /// nobody to be taken in; and a dry run that changes something.
    #[test]
    fn a_recovery_of_a_node_that_was_told_can_be_cut_short_anywhere() {
        let (of_three, three) = (Membership::of_equals(3), "cluster.members=n1=n1:1,n2=n2:1,d=d:1");
        let (joined, node) = of_three.joined("d", "d:1").expect("a new name");
        let seat = |node: NodeId, came: Came, membership: &Membership| Seat {
            cluster: ClusterId([7; 16]),
            node,
            membership: Arc::new(membership.clone().written_by(CommandNumber(17))),
            came,
        };
        for (sets, seat, asks) in [
            (&["node.name=d", "cluster.name=q", "cluster.join=n1:1"][..], seat(node, Came::Joined, &joined), "n1:1"),
            (&["node.name=n1", "cluster.name=q"], seat(NodeId(1), Came::Founded, &of_three), "n2:7080"),
            (&["node.name=d", "cluster.name=q", three], seat(node, Came::Joined, &joined), "n2:7080"),
        ] {
            for moved in 0..=PARTS.len() {
                let place = tempfile::tempdir().expect("a directory");
                let data = place.path().join("data");
                cut_short(&data, sets, &seat, moved);
                let asking = fs::read(data.join("JOINING")).expect("there");
                for dry_run in [true, false] {
                    recover(&data, sets, dry_run).unwrap_or_else(|why| panic!("{sets:?}, {moved} moved: {why}"));
                    assert_eq!(data.join("RECOVERING").exists(), dry_run);
                    assert_eq!(data.join("before-recovery-1/state").exists(), moved == PARTS.len() || !dry_run);
                    assert_eq!(fs::read(data.join("JOINING")).expect("there"), asking, "it is the same question");
                }
                for part in PARTS {
                    assert!(data.join("before-recovery-1").join(part).exists(), "{part}");
                    assert!(!data.join(part).exists(), "{part}");
                }
                assert!(String::from_utf8_lossy(&asking).contains(asks), "it knows whom to ask");
            }
        }
    }
}
