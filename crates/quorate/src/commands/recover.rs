//! `quorate recover`: a node that has lost its disk joins its cluster again, under a new id.
//!
//! What is done to the data directory stands in `storage::rocksdb::set_aside`. Here it is decided whether to do it.

use std::path::Path;

use anyhow::Context as _;
use serde_json::json;
use storage::rocksdb::{Condition, condition, set_aside};

use crate::cli::{Output, Recover};
use crate::client::show;
use crate::config::{Config, Sources};
use crate::failure::Failure;

/// Replaces the data directory of a node, or only says what there is.
///
/// # Errors
/// A wrong configuration, a directory that can be used or is in use, or a failing disk.
pub(crate) fn run(recover: &Recover) -> Result<(), Failure> {
    let (mut config, _) = Config::load(&Sources::of_this_process(recover.given.config.clone(), &recover.given.sets))?;
    let dir = config.node.data_dir.clone();
    if dir.exists() && !dir.is_dir() {
        return Err(Failure::Usage(format!(
            "node.data_dir = {dir:?}: is no directory; name the data directory of this node"
        )));
    }
    crate::backup::check_finished(&dir)?;
    config.cluster.id = crate::backup::cluster_of(&config)?;
    crate::seat::take(&mut config)?;
    if config.cluster.start.nodes().len() <= 1 && config.cluster.join.is_empty() {
        return Err(Failure::Usage(format!(
            "node.data_dir = {dir:?}: this cluster has no other node to learn from; make it anew from a backup \
             (`quorate restore`)"
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
    if recover.dry_run {
        return Ok(report(recover, &dir, &what, None)?);
    }
    // First: without it the next start would be that of the same node with an empty disk, which the others refuse.
    crate::seat::ask_to_join(&config)?;
    let aside = set_aside(&dir, &config.identity()).with_context(doing)?;
    Ok(report(recover, &dir, &what, Some(aside.as_deref()))?)
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
             (`quorate serve`)"
                .to_owned()
        }
        Condition::Refused(why) => format!("the other nodes have refused it: {why}"),
        Condition::Lost(why) => format!("what this node has promised and voted for is lost: {why}"),
        Condition::CutShort => "a recovery was cut short here".to_owned(),
        Condition::Usable => {
            "it can be used, and where it is damaged it heals by itself; start the node (`quorate serve`), unless its disk \
             takes no writes any more"
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
