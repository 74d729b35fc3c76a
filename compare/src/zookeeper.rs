//! ZooKeeper: versions and multi.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::Context as _;
use futures_util::future::try_join;
use load::{Client, Dice, Done, System};
use zookeeper_client as zk;

use crate::{CONFLICTS_MAX, STOCK, done, floors};

/// Below what a server takes in one request (1 MiB).
const BATCH: u64 = 500;

/// An ensemble.
pub struct ZooKeeper {
    /// Where its servers take calls.
    pub at: Vec<String>,
    /// How many accounts there are.
    pub accounts: u64,
    /// Read them, and transfer nothing.
    pub reads: bool,
    /// A client whose server is gone goes to another one.
    pub moves: bool,
}

impl System for ZooKeeper {
    type Client = ZooKeeperClient;

    async fn client(&self, number: u32) -> anyhow::Result<ZooKeeperClient> {
        // One of all is drawn by the library, at first too.
        let servers = if self.moves { self.at.join(",") } else { self.at[number as usize % self.at.len()].clone() };
        let session = connect(&servers).await?;
        Ok(ZooKeeperClient { session, accounts: self.accounts, reads: self.reads })
    }

    async fn syncs(&self) -> BTreeMap<String, u64> {
        let mut syncs = BTreeMap::new();
        for host in &self.at {
            let Ok(text) = floors::ask(host, "mntr").await else { continue };
            let count = |line: &str| line.strip_prefix("zk_cnt_fsynctime")?.trim().parse::<u64>().ok();
            if let Some(count) = text.lines().find_map(count) {
                syncs.insert(host.clone(), count);
            }
        }
        syncs
    }
}

async fn connect(host: &str) -> anyhow::Result<zk::Client> {
    zk::Client::connect(host).await.with_context(|| format!("ZooKeeper at {host}"))
}

/// One client, with a session of its own.
pub struct ZooKeeperClient {
    session: zk::Client,
    accounts: u64,
    reads: bool,
}

impl Client for ZooKeeperClient {
    async fn call(&mut self, _: u64, dice: &mut Dice) -> Done {
        if self.reads {
            let error = read(&self.session, &path(dice.below(self.accounts))).await.err();
            return done(error.map(|error| format!("zookeeper: {error}")), 0).await;
        }
        let (from, to) = dice.pair(self.accounts);
        let paths = [path(from), path(to)];
        let mut retries = 0;
        loop {
            match transfer(&self.session, &paths).await {
                Ok(()) => return done(None, retries).await,
                Err(code) if code == CONFLICT && retries < CONFLICTS_MAX => retries += 1,
                Err(error) => return done(Some(error), retries).await,
            }
        }
    }
}

const CONFLICT: &str = "conflicts";

/// A server shows what it has applied; after a `sync` that is all that was acknowledged before. Both are sent at once, and
/// done in their order.
async fn read(session: &zk::Client, path: &str) -> Result<(), zk::Error> {
    try_join(session.sync(path), session.get_data(path)).await.map(drop)
}

async fn transfer(session: &zk::Client, [from, to]: &[String; 2]) -> Result<(), String> {
    let code = |error: zk::Error| format!("zookeeper: {error}");
    let ((from_data, from_stat), (to_data, to_stat)) =
        try_join(session.get_data(from), session.get_data(to)).await.map_err(code)?;
    let (from_stock, to_stock) = (stock_of(&from_data)?, stock_of(&to_data)?);
    if from_stock < 1 {
        return Err("insufficient_stock".to_owned());
    }
    let mut writer = session.new_multi_writer();
    writer.add_set_data(from, (from_stock - 1).to_string().as_bytes(), Some(from_stat.version)).map_err(code)?;
    writer.add_set_data(to, (to_stock + 1).to_string().as_bytes(), Some(to_stat.version)).map_err(code)?;
    match writer.commit().await {
        Ok(_) => Ok(()),
        Err(zk::MultiWriteError::OperationFailed { source: zk::Error::BadVersion, .. }) => Err(CONFLICT.to_owned()),
        Err(error) => Err(format!("zookeeper: {error}")),
    }
}

fn stock_of(data: &[u8]) -> Result<i64, String> {
    std::str::from_utf8(data).ok().and_then(|text| text.parse().ok()).ok_or_else(|| "no_such_account".to_owned())
}

fn path(account: u64) -> String {
    format!("/goods/w{account}")
}

/// Makes accounts.
pub async fn stock(host: &str, numbers: Range<u64>) -> anyhow::Result<()> {
    let session = connect(host).await?;
    let options = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
    match session.create("/goods", b"", &options).await {
        Ok(_) | Err(zk::Error::NodeExists) => {}
        Err(error) => return Err(error).context("ZooKeeper: /goods"),
    }
    let mut first = numbers.start;
    while first < numbers.end {
        let end = numbers.end.min(first + BATCH);
        let mut writer = session.new_multi_writer();
        for number in first..end {
            writer.add_create(&path(number), STOCK.to_string().as_bytes(), &options)?;
        }
        writer.commit().await.context("ZooKeeper: accounts")?;
        first = end;
    }
    Ok(())
}
