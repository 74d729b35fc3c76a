//! A newcomer asks for its seat, of one member after the other, until it has one.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use storage::rocksdb::write_whole;
use transport::join::{Admission, Application, Join, NoAdmission};

use super::{Came, Seat, read_membership};
use crate::config::{Config, NodeRole};
use crate::failure::Failure;

/// While it asks: the key under which it does, so that a newcomer that is stopped in the middle is still the same one.
const ASKING: &str = "JOINING";
/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_secs(1);
/// After how many of them it is said again whom it waits for.
const SAID_AGAIN: u32 = 30;

/// Whether a node without a seat is to ask for one: by its configuration, or because it was recovered.
///
/// # Errors
/// A data directory that is that of a node which did not join.
pub(crate) fn joins(config: &Config) -> Result<bool, Failure> {
    let dir = &config.node.data_dir;
    let has_data = dir.join("IDENTITY").exists() || dir.join("MARK").exists();
    if has_data && !config.cluster.join.is_empty() {
        return Err(Failure::Usage(format!(
            "cluster.join: node.data_dir = {dir:?} is that of a node which did not join: leave out cluster.join, or name an \
             empty directory"
        )));
    }
    Ok(!has_data && (!config.cluster.join.is_empty() || dir.join(ASKING).exists()))
}

/// Lets the next start ask for a new seat, whatever the configuration says.
///
/// # Errors
/// When the disk fails.
pub(crate) fn ask_to_join(config: &Config) -> anyhow::Result<()> {
    key(&config.node.data_dir, &address(config)).map(drop)
}

/// Where this node is reached: as it is listed, where it is.
fn address(config: &Config) -> String {
    let listed = config.cluster.start.node(config.cluster.me).map(|member| member.address.clone());
    listed.unwrap_or_else(|| config.listen.advertise_peer.clone())
}

/// Whom to ask: those that the configuration names, or the others that it lists.
fn members(config: &Config) -> Vec<String> {
    if !config.cluster.join.is_empty() {
        return config.cluster.join.clone();
    }
    let others = config.cluster.start.nodes().iter().filter(|(id, _)| **id != config.cluster.me);
    others.map(|(_, member)| member.address.clone()).collect()
}

/// Asks until the cluster has decided, and writes the seat. `None`: it was asked to stop before.
///
/// # Errors
/// A refusal, which says what to do, or a failing disk.
pub(crate) async fn join(
    config: &Config,
    asked_to_stop: impl Future<Output = &'static str>,
) -> Result<Option<()>, Failure> {
    let admission = tokio::select! {
        admission = ask_around(config) => admission?,
        _ = asked_to_stop => return Ok(None),
    };
    let seat = seat(&admission, config.node.roles.contains(&NodeRole::Acceptor))?;
    seat.write(&config.node.data_dir)?;
    forget(&config.node.data_dir)?;
    tracing::info!(
        node = %seat.node, name = config.node.name, cluster = config.cluster.name, number = %seat.membership.number(),
        "joined the cluster; now the state is learnt from the other nodes"
    );
    Ok(Some(()))
}

fn application(config: &Config) -> anyhow::Result<Application> {
    let (dir, address) = (&config.node.data_dir, address(config));
    Ok(Application {
        name: config.node.name.clone(),
        cluster_name: config.cluster.name.clone(),
        learn_from: config.learn_from,
        window: config.window,
        join: Join { key: key(dir, &address)?, address },
    })
}

/// The key of before for the same question, or a new one that is durably noted.
fn key(dir: &Path, address: &str) -> anyhow::Result<Bytes> {
    storage::rocksdb::make(dir)?;
    let path = dir.join(ASKING);
    let noted = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
    };
    if let Some((key, of)) = noted.trim_end().split_once(' ')
        && of == address
        && let Ok(key) = u128::from_str_radix(key, 16)
    {
        return Ok(Bytes::copy_from_slice(&key.to_be_bytes()));
    }
    #[expect(clippy::disallowed_methods, reason = "where chance enters: nobody else may have this key")]
    let key: u128 = rand::random();
    write_whole(dir, ASKING, format!("{key:032x} {address}\n").as_bytes())
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(Bytes::copy_from_slice(&key.to_be_bytes()))
}

fn forget(dir: &Path) -> anyhow::Result<()> {
    match fs::remove_file(dir.join(ASKING)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("removing the file JOINING"),
        Ok(()) | Err(_) => Ok(()),
    }
}

async fn ask_around(config: &Config) -> Result<Admission, Failure> {
    let members = members(config);
    tracing::info!(
        name = config.node.name,
        cluster = config.cluster.name,
        ?members,
        "asks to be taken into the cluster"
    );
    for round in 0_u32.. {
        let mut answers = Vec::new();
        for member in &members {
            match transport::join::ask(member, &application(config)?).await {
                Ok(admission) => return Ok(admission),
                Err(NoAdmission::Refused(why)) => {
                    forget(&config.node.data_dir)?;
                    return Err(Failure::Usage(format!("cluster.join: refused by {why}")));
                }
                Err(NoAdmission::NotNow(why)) => {
                    forget(&config.node.data_dir)?;
                    answers.push(why);
                }
                Err(NoAdmission::NotYet(why) | NoAdmission::Nobody(why)) => answers.push(why),
            }
        }
        if round % SAID_AGAIN == 0 {
            tracing::warn!("no member has taken this node in yet; it asks until one does: {}", answers.join("; "));
        }
        tokio::time::sleep(PAUSE).await;
    }
    unreachable!("it asks for ever")
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

    /// Catches a newcomer that is stopped while it asks, asks under another key afterwards, and becomes two nodes; and one
    /// that has another address now and asks under the same key, which would be refused.
    #[test]
    fn a_newcomer_asks_under_one_key() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let first = key(dir.path(), "d:7080").expect("written");
        assert_eq!(key(dir.path(), "d:7080").expect("readable"), first);
        let moved = key(dir.path(), "e:7080").expect("written");
        assert_ne!(moved, first);
        forget(dir.path()).expect("removed");
        forget(dir.path()).expect("nothing is there");
        assert_ne!(key(dir.path(), "e:7080").expect("written"), moved);
    }
}
