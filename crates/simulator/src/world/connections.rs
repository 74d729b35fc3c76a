//! Connections between nodes, as failure detectors and leaders hear of them.
//!
//! A process that dies closes its connections, and its machine refuses new ones; a machine
//! without power says nothing until it is back. A connection whose link stops breaks or waits,
//! as the seed says. Whoever lost a connection dials again, with pauses that double.

use std::sync::Arc;
use std::time::Duration;

use acceptor::core::Silence;
use failure_detector::core::Input;
use protocol::{Membership, NodeId};

use super::World;
use crate::fact::Stop;
use crate::network::{Link, some_of};
use crate::node::{Mail, Node};
use crate::schedule::Event;

/// The first pause before dialing again, and the longest.
const DIAL_MIN: Duration = Duration::from_millis(20);
const DIAL_MAX: Duration = Duration::from_secs(1);
/// How long a connection whose link stopped is not seen to be broken, at most.
const UNSEEN_MAX: Duration = Duration::from_secs(3);

impl World {
    /// Whom a node that is up talks to: all other members that it knows of, whether they are there or not.
    fn peers(&self, id: NodeId) -> Vec<NodeId> {
        let Some(roles) = &self.node(id).roles else { return Vec::new() };
        roles.membership.learners().filter(|node| *node != id).collect()
    }

    /// Whether a node is up and counts another one among the members.
    pub(super) fn knows(&self, id: NodeId, other: NodeId) -> bool {
        let roles = self.nodes.get(&id).and_then(|node| node.roles.as_ref());
        roles.is_some_and(|roles| roles.membership.node(other).is_some())
    }

    /// A node that has just started dials all others, whose old connections to it are dead.
    pub(super) fn connect(&mut self, id: NodeId) {
        for peer in self.peers(id) {
            self.begin_to_dial(id, peer);
            let other = self.nodes.get(&peer).and_then(|node| node.roles.as_ref());
            let knows = other.is_none_or(|roles| roles.dialing.contains(&id));
            if !knows && self.network.works(id, peer) {
                self.close(peer, id, DIAL_MIN);
            }
        }
    }

    fn begin_to_dial(&mut self, id: NodeId, peer: NodeId) {
        let node = self.node_mut(id);
        let life = node.life;
        let Some(roles) = &mut node.roles else { return };
        if roles.dialing.insert(peer) {
            let soon = some_of(DIAL_MIN, &mut self.chance);
            self.schedule.after(soon, Event::Dial { node: id, life, peer, pause: DIAL_MIN });
        }
    }

    /// A node has learnt of a change: it dials those that are new.
    pub(super) fn meet(&mut self, id: NodeId, later: &Arc<Membership>) {
        let Some(roles) = &mut self.node_mut(id).roles else { return };
        let earlier = std::mem::replace(&mut roles.membership, Arc::clone(later));
        for peer in later.learners().filter(|peer| *peer != id && earlier.node(*peer).is_none()) {
            self.begin_to_dial(id, peer);
        }
    }

    /// The process of a node has died, and its machine says so to those that it reaches.
    pub(super) fn disconnect(&mut self, id: NodeId) {
        for peer in self.present().into_iter().filter(|peer| *peer != id) {
            if self.network.works(id, peer) && self.knows(peer, id) {
                let delay = self.network.delay(&mut self.chance);
                self.close(peer, id, delay);
            }
        }
    }

    /// The connections of these links break, if connections break here.
    pub(super) fn break_connections(&mut self, links: &[Link]) {
        if !self.swarm.cuts_break {
            return;
        }
        for (from, to) in links {
            for (node, peer) in [(*from, *to), (*to, *from)] {
                self.close(node, peer, UNSEEN_MAX);
            }
        }
    }

    /// A node will see within a while that a connection is closed.
    fn close(&mut self, node: NodeId, peer: NodeId, within: Duration) {
        let Some(life) = self.nodes.get(&node).map(|node| node.life) else { return };
        let pause = some_of(within, &mut self.chance);
        self.schedule.after(pause, Event::Closed { node, life, peer });
    }

    pub(super) fn closed(&mut self, id: NodeId, peer: NodeId) {
        if !self.knows(id, peer) {
            return;
        }
        let life = self.node(id).life;
        let Some(roles) = &mut self.node_mut(id).roles else { return };
        if roles.dialing.insert(peer) {
            self.schedule.after(DIAL_MIN, Event::Dial { node: id, life, peer, pause: DIAL_MIN });
        }
        self.detect(id, Input::Closed(peer));
    }

    /// The handshake: a peer notes durably the first disk of a node that it is told of, and refuses another
    /// one, unless that says that it has taken the place of a lost one. Its note counts unless its own disk has
    /// taken such a place. False when it is refused.
    fn shows_its_disk(&mut self, id: NodeId, peer: NodeId) -> bool {
        let Node { disk, roles: Some(roles), .. } = self.node(id) else { return true };
        if roles.acceptor.silence() == Some(Silence::Replaced) {
            if let Some(other) = &mut self.node_mut(peer).roles {
                other.replaced.insert(id);
            }
            return true;
        }
        let disk = *disk;
        if *self.node_mut(peer).noted.entry(id).or_insert(disk) != disk {
            return false;
        }
        if !self.node(peer).replaced {
            self.put_surely(id, Mail::Acceptor(acceptor::core::Input::Noted(peer)));
        }
        true
    }

    /// A node tries to connect to a peer.
    pub(super) fn dial(&mut self, id: NodeId, peer: NodeId, pause: Duration) {
        if !self.knows(id, peer) {
            // It was removed.
            if let Some(roles) = &mut self.node_mut(id).roles {
                roles.dialing.remove(&peer);
            }
            return;
        }
        let other = self.nodes.get(&peer);
        let answers = self.network.connects(id, peer) && other.is_some_and(|other| other.powered);
        let is_down = other.is_some_and(|other| !other.is_up());
        // A stranger is refused, and tries again: it may be a member whom the other one does not know yet.
        if answers && other.is_some_and(|other| other.held.is_none()) && self.knows(peer, id) {
            let Some(roles) = &mut self.node_mut(id).roles else { return };
            roles.dialing.remove(&peer);
            if !self.shows_its_disk(id, peer) {
                return self.stop(id, Stop::Refused);
            }
            return self.put(id, Mail::Leader(leader::core::Input::Connected(peer)));
        }
        if answers && is_down {
            self.detect(id, Input::Unreachable(peer));
        }
        let life = self.node(id).life;
        let next = DIAL_MAX.min(pause * 2);
        self.schedule.after(pause, Event::Dial { node: id, life, peer, pause: next });
    }
}
