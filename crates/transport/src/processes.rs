//! Which process of each peer is connected here: one at a time.
//!
//! Two processes of one node, the second on a copy of the disk of the first, both say that they are that node. Taking
//! the newcomer would note its disk as the one of the node, and shut out the one that runs. So the one that is
//! connected stays, and the newcomer may try again: after a crash the connections of the old process close at once,
//! and those to a lost machine count only as long as something was heard lately.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::NodeId;
use tokio::time::Instant;

/// The processes that are connected, each known by the run that its disk says.
#[derive(Debug)]
pub(crate) struct Processes {
    /// Who was not heard for so long is as good as gone.
    silence: Duration,
    connected: Mutex<BTreeMap<(NodeId, u64), Process>>,
}

#[derive(Debug)]
struct Process {
    /// Those in their handshake included.
    connections: usize,
    heard: Instant,
}

/// One connection of a process, as long as it is kept.
#[derive(Debug)]
pub(crate) struct Connection {
    processes: Arc<Processes>,
    node: NodeId,
    run: u64,
}

impl Processes {
    pub(crate) fn new(silence: Duration) -> Self {
        Self { silence, connected: Mutex::default() }
    }

    fn connected(&self) -> MutexGuard<'_, BTreeMap<(NodeId, u64), Process>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one more connection of a process; `None` while another one of its node is connected and alive.
    pub(crate) fn connect(self: &Arc<Self>, node: NodeId, run: u64, now: Instant) -> Option<Connection> {
        let mut connected = self.connected();
        // One that has got in is not kept out by one that was silent then.
        if !connected.contains_key(&(node, run)) {
            let mut others = connected.range((node, 0)..=(node, u64::MAX));
            if others.any(|(_, other)| now.saturating_duration_since(other.heard) < self.silence) {
                return None;
            }
        }
        let process = connected.entry((node, run)).or_insert(Process { connections: 0, heard: now });
        process.connections += 1;
        process.heard = now;
        Some(Connection { processes: Arc::clone(self), node, run })
    }
}

impl Connection {
    /// Something came on it.
    pub(crate) fn heard(&self, now: Instant) {
        if let Some(process) = self.processes.connected().get_mut(&(self.node, self.run)) {
            process.heard = now;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut connected = self.processes.connected();
        if let Some(process) = connected.get_mut(&(self.node, self.run)) {
            process.connections -= 1;
            if process.connections == 0 {
                connected.remove(&(self.node, self.run));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(2);
    const SILENCE: Duration = Duration::from_secs(2);

    /// Catches a copy that gets in beside the process that runs, and one that keeps out another connection of it, or
    /// other nodes.
    #[test]
    fn one_process_of_a_node_is_connected_at_a_time() {
        let (processes, now) = (Arc::new(Processes::new(SILENCE)), Instant::now());
        let first = processes.connect(NODE, 1, now).expect("nobody else is there");
        let second = processes.connect(NODE, 1, now).expect("the same process");
        assert!(processes.connect(NODE, 2, now).is_none(), "another process");
        let _other = processes.connect(NodeId(3), 2, now).expect("another node");
        drop(first);
        assert!(processes.connect(NODE, 2, now).is_none(), "one of its connections is open");
        drop(second);
        let newcomer =
            processes.connect(NODE, 2, now).expect("it gets in once the connections of the other are closed");
        assert!(processes.connect(NODE, 1, now).is_none(), "now that one is the newcomer");
        drop(newcomer);
        assert_eq!(processes.connected().len(), 1, "what is closed is forgotten");
    }

    /// Catches a node that is kept out for ever by the open connections of a machine that is lost, and one that speaks
    /// and is taken for lost.
    #[test]
    fn a_silent_process_keeps_nobody_out() {
        let (processes, start) = (Arc::new(Processes::new(SILENCE)), Instant::now());
        let lost = processes.connect(NODE, 1, start).expect("nobody else is there");
        lost.heard(start + SILENCE / 2);
        assert!(processes.connect(NODE, 2, start + SILENCE).is_none(), "it was heard lately");
        let late = start + SILENCE * 2;
        let newcomer = processes.connect(NODE, 2, late).expect("the other is silent");
        // It comes back: whose disk is the right one is for the judge to say.
        lost.heard(late);
        let _another = processes.connect(NODE, 2, late).expect("the newcomer is in");
        drop((lost, newcomer));
        assert!(processes.connect(NODE, 1, late).is_none(), "the newcomer is connected");
    }
}
