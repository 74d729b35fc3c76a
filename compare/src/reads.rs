//! Linearizable reads of Quorate over REST, and the same request to a server that only sends something back.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use load::{Client, Connection, Dice, Done, System, Target};

/// How long a connection may take, and an answer.
const WAIT: Duration = Duration::from_secs(10);

/// Nodes that answer over REST.
pub struct Rest {
    nodes: Rc<[Target]>,
    accounts: u64,
}

impl Rest {
    /// So many accounts at these nodes.
    pub fn new(at: Vec<String>, accounts: u64) -> Self {
        Self { nodes: at.into_iter().map(Target::plain).collect(), accounts }
    }
}

impl System for Rest {
    type Client = Reader;

    async fn client(&self, number: u32) -> anyhow::Result<Reader> {
        let node = self.nodes[number as usize % self.nodes.len()].clone();
        Ok(Reader { node, connection: None, accounts: self.accounts })
    }

    async fn syncs(&self) -> BTreeMap<String, u64> {
        BTreeMap::new()
    }
}

/// One client, with a connection of its own.
pub struct Reader {
    node: Target,
    connection: Option<Connection>,
    accounts: u64,
}

impl Client for Reader {
    async fn call(&mut self, _: u64, dice: &mut Dice) -> Done {
        let account = dice.below(self.accounts);
        let error = match tokio::time::timeout(WAIT, self.read(account)).await {
            Ok(Ok(200)) => None,
            Ok(Ok(status)) => Some(format!("http_{status}")),
            Ok(Err(_)) => Some("connection_lost".to_owned()),
            Err(_) => Some("no_answer_in_time".to_owned()),
        };
        crate::done(error, 0).await
    }
}

impl Reader {
    /// Reads an account; without anything else said, a node reads linearizably.
    async fn read(&mut self, account: u64) -> std::io::Result<u16> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&self.node, WAIT).await?,
        };
        let (answer, usable) = connection.get(&format!("/v1/state/inventory/goods/w{account}")).await?;
        self.connection = usable.then_some(connection);
        Ok(answer.status)
    }
}
