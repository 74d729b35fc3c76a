//! What other nodes say when they call, or are called, that ends this one.

use std::sync::Arc;

use acceptor::core::Silence;
use protocol::NodeId;
use tokio::sync::mpsc;
use transport::PeerEvent;

use super::disks::Disks;
use super::router::Router;
use crate::config::Config;
use crate::seat::Came;
use crate::stop::Requests;

/// A node that begins a cluster alone waits until whoever knows it as a member of another one has called it. `None`: it was
/// asked to stop meanwhile.
pub(super) async fn begin_to_serve(
    config: &Config,
    came: Came,
    failure: &mut mpsc::UnboundedReceiver<String>,
    stop: &mut Requests,
) -> anyhow::Result<Option<Came>> {
    if came != Came::Founding {
        return Ok(Some(came));
    }
    tokio::select! {
        () = tokio::time::sleep(transport::BACKOFF_MAX) => Ok(Some(crate::seat::founded(config)?)),
        why = failure.recv() => anyhow::bail!(reason(why)),
        _ = stop.next() => Ok(None),
    }
}

/// Why this node ends.
pub(super) fn reason(why: Option<String>) -> String {
    why.unwrap_or_else(|| "an actor of this node has died".to_owned())
}

/// See the module.
pub(super) struct Ending {
    pub(super) config: Arc<Config>,
    pub(super) router: Arc<Router>,
    pub(super) disks: Arc<Disks>,
    pub(super) came: Came,
    /// Whoever sends something here ends the node.
    pub(super) failed: mpsc::UnboundedSender<String>,
}

impl Ending {
    /// Ends this node where the event says so; else it is for the router.
    pub(super) fn heed(&self, event: PeerEvent) {
        let ends = match event {
            PeerEvent::DiskRefused { peer, why } => {
                self.disks.refused(&why);
                let name = self.name(peer);
                Some(format!("node `{name}` refuses this node for its disk, and this node stops for good: {why}"))
            }
            // The other process goes on; nothing is wrong with this disk by that.
            PeerEvent::ConnectedAlready { peer, why } => {
                Some(format!("node `{}` refuses this node, and this node stops: {why}", self.name(peer)))
            }
            PeerEvent::Claimed { by } => self.claimed(&by),
            event @ (PeerEvent::Connected { .. }
            | PeerEvent::Closed { .. }
            | PeerEvent::Unreachable { .. }
            | PeerEvent::Noted { .. }
            | PeerEvent::Removed { .. }) => return self.router.on_event(event),
        };
        // Nobody listens only when the node is ending already.
        _ = ends.map(|why| self.failed.send(why));
    }

    fn name(&self, peer: NodeId) -> String {
        self.router.membership().node(peer).map(|member| member.name.clone()).unwrap_or_default()
    }

    /// A node that began alone is the one that is called as long as nobody has joined it; then its cluster is one that
    /// somebody meant. One that is listed goes by the id of its list; where it was restored, a file that went with its disk
    /// says another one.
    fn claimed(&self, by: &str) -> Option<String> {
        let dir = &self.config.node.data_dir;
        match self.came {
            Came::Founding | Came::Founded if self.router.membership().nodes().len() == 1 => {
                Some(format!("this node stops for good: {}", crate::seat::claim(dir, by)))
            }
            Came::Listed if self.disks.silence() == Some(Silence::Fresh) && !crate::backup::is_restored(dir) => {
                let why = format!(
                    "node {by} of a cluster of this name and another id calls this node one of its members, and its disk is \
                     new. If that cluster was just restored from a backup, it was not restored here: empty this data \
                     directory, and restore the same file into it, as on each node. Else this node has lost the disk that it \
                     had, with the file ORIGIN on it, or cluster.members was changed: put that disk back, or run \
                     `quorate recover` here: it joins anew, under another id. If that node is left of a cluster that was \
                     given up, stop it, and empty this data directory"
                );
                self.disks.refused(&why);
                Some(format!("this node stops for good: {why}"))
            }
            Came::Listed | Came::Founding | Came::Founded | Came::JoinedForAVote | Came::Joined | Came::Left => None,
        }
    }
}
