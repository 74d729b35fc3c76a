//! etcd, version 3 of its protocol over gRPC.
//!
//! The messages are the part of etcd's `rpc.proto` and `kv.proto` that a transfer needs, with the field
//! numbers of those files.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Context as _, bail};
use http::uri::PathAndQuery;
use load::{Client, Dice, Done, System};
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::{CONFLICTS_MAX, STOCK, done, floors};

/// The most connections of all clients, each with many calls under way.
pub const CONNECTIONS: u32 = 32;

/// Puts in one transaction: what etcd takes by default.
const BATCH: u64 = 128;

/// Names of the counters of syncs: the log's, the database's.
const SYNCS: [&str; 2] =
    ["etcd_disk_wal_fsync_duration_seconds_count", "etcd_disk_backend_commit_duration_seconds_count"];

/// `Compare.CompareTarget.MOD`; `Compare.CompareResult.EQUAL` is 0.
const MOD: i32 = 2;

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(int64, tag = "3")]
    mod_revision: i64,
    #[prost(bytes = "vec", tag = "5")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RequestOp {
    #[prost(oneof = "Request", tags = "1, 2")]
    request: Option<Request>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Request {
    #[prost(message, tag = "1")]
    Range(RangeRequest),
    #[prost(message, tag = "2")]
    Put(PutRequest),
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResponseOp {
    #[prost(message, optional, tag = "1")]
    range: Option<RangeResponse>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Compare {
    #[prost(int32, tag = "1")]
    result: i32,
    #[prost(int32, tag = "2")]
    target: i32,
    #[prost(bytes = "vec", tag = "3")]
    key: Vec<u8>,
    #[prost(int64, tag = "6")]
    mod_revision: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TxnRequest {
    #[prost(message, repeated, tag = "1")]
    compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    success: Vec<RequestOp>,
    #[prost(message, repeated, tag = "3")]
    failure: Vec<RequestOp>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TxnResponse {
    #[prost(bool, tag = "2")]
    succeeded: bool,
    #[prost(message, repeated, tag = "3")]
    responses: Vec<ResponseOp>,
}

/// A cluster.
pub struct Etcd {
    at: Vec<String>,
    accounts: u64,
    reads: bool,
    channels: Vec<Channel>,
}

impl Etcd {
    /// Opens the connections.
    pub async fn connect(at: Vec<String>, accounts: u64, clients: u32, reads: bool) -> anyhow::Result<Self> {
        let mut channels = Vec::new();
        for host in at.iter().cycle().take(clients.min(CONNECTIONS) as usize) {
            channels.push(channel(host).await?);
        }
        Ok(Self { at, accounts, reads, channels })
    }
}

async fn channel(host: &str) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{host}"))?.tcp_nodelay(true);
    endpoint.connect().await.with_context(|| format!("etcd at {host}"))
}

impl System for Etcd {
    type Client = EtcdClient;

    async fn client(&self, number: u32) -> anyhow::Result<EtcdClient> {
        Ok(EtcdClient {
            channels: self.channels.clone(),
            at: number as usize,
            accounts: self.accounts,
            reads: self.reads,
        })
    }

    async fn syncs(&self) -> BTreeMap<String, u64> {
        let mut syncs = BTreeMap::new();
        for host in &self.at {
            let Ok(text) = floors::ask(host, &format!("GET /metrics HTTP/1.0\r\nHost: {host}\r\n\r\n")).await else {
                continue;
            };
            let count = |name: &str| -> Option<u64> {
                text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
            };
            if let (Some(log), Some(database)) = (count(SYNCS[0]), count(SYNCS[1])) {
                syncs.insert(host.clone(), log + database);
            }
        }
        syncs
    }
}

/// One client.
pub struct EtcdClient {
    channels: Vec<Channel>,
    /// Counts up after a failure; modulo the number of channels, the one to use.
    at: usize,
    accounts: u64,
    reads: bool,
}

impl Client for EtcdClient {
    async fn call(&mut self, _: u64, dice: &mut Dice) -> Done {
        let mut retries = 0;
        let error = if self.reads {
            self.read(dice.below(self.accounts)).await.err()
        } else {
            let (from, to) = dice.pair(self.accounts);
            self.transfer(from, to, &mut retries).await.err()
        };
        self.at += usize::from(error.is_some());
        done(error, retries).await
    }
}

impl EtcdClient {
    async fn transfer(&mut self, from: u64, to: u64, retries: &mut u64) -> Result<(), String> {
        let keys = [key(from), key(to)];
        let read = || keys.iter().cloned().map(range).collect::<Vec<_>>();
        let mut seen = self.txn(TxnRequest { success: read(), ..TxnRequest::default() }).await?;
        loop {
            let [(from_stock, from_revision), (to_stock, to_revision)] = stocks(&seen)?;
            if from_stock < 1 {
                return Err("insufficient_stock".to_owned());
            }
            let compare =
                |at: usize, mod_revision| Compare { result: 0, target: MOD, key: keys[at].clone(), mod_revision };
            let swapped = TxnRequest {
                compare: vec![compare(0, from_revision), compare(1, to_revision)],
                success: vec![put(keys[0].clone(), from_stock - 1), put(keys[1].clone(), to_stock + 1)],
                failure: read(),
            };
            seen = self.txn(swapped).await?;
            if seen.succeeded {
                return Ok(());
            }
            *retries += 1;
            if *retries > CONFLICTS_MAX {
                return Err("conflicts".to_owned());
            }
        }
    }

    /// Linearizably, as is etcd's default.
    async fn read(&mut self, account: u64) -> Result<(), String> {
        let answer: RangeResponse = self.ask("/etcdserverpb.KV/Range", RangeRequest { key: key(account) }).await?;
        if answer.kvs.is_empty() { Err("no_such_account".to_owned()) } else { Ok(()) }
    }

    async fn txn(&mut self, request: TxnRequest) -> Result<TxnResponse, String> {
        self.ask("/etcdserverpb.KV/Txn", request).await
    }

    async fn ask<Q, A>(&mut self, method: &'static str, request: Q) -> Result<A, String>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let mut grpc = Grpc::new(self.channels[self.at % self.channels.len()].clone());
        grpc.ready().await.map_err(|_| "connection_lost".to_owned())?;
        let (request, path) = (tonic::Request::new(request), PathAndQuery::from_static(method));
        let answer = grpc.unary(request, path, ProstCodec::<Q, A>::default()).await;
        answer.map(tonic::Response::into_inner).map_err(|status| format!("grpc_{:?}", status.code()))
    }
}

/// What a transaction read: stock and revision of both.
fn stocks(seen: &TxnResponse) -> Result<[(i64, i64); 2], String> {
    let account = |at: usize| -> Option<(i64, i64)> {
        let found = seen.responses.get(at)?.range.as_ref()?.kvs.first()?;
        Some((std::str::from_utf8(&found.value).ok()?.parse().ok()?, found.mod_revision))
    };
    match (account(0), account(1)) {
        (Some(from), Some(to)) => Ok([from, to]),
        _ => Err("no_such_account".to_owned()),
    }
}

fn key(account: u64) -> Vec<u8> {
    format!("inventory/goods/w{account}").into_bytes()
}

fn range(key: Vec<u8>) -> RequestOp {
    RequestOp { request: Some(Request::Range(RangeRequest { key })) }
}

fn put(key: Vec<u8>, stock: i64) -> RequestOp {
    RequestOp { request: Some(Request::Put(PutRequest { key, value: stock.to_string().into_bytes() })) }
}

/// Makes accounts.
pub async fn stock(host: &str, numbers: Range<u64>) -> anyhow::Result<()> {
    let mut client = EtcdClient { channels: vec![channel(host).await?], at: 0, accounts: 0, reads: false };
    let mut first = numbers.start;
    while first < numbers.end {
        let end = numbers.end.min(first + BATCH);
        let success = (first..end).map(|number| put(key(number), STOCK)).collect();
        let request = TxnRequest { success, ..TxnRequest::default() };
        match client.txn(request).await {
            Ok(done) if done.succeeded => first = end,
            Ok(_) => bail!("etcd made no accounts"),
            Err(code) => bail!("etcd: {code}"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    /// Catches a field number that is not etcd's: it would be measured as a transfer that does nothing. The bytes
    /// are those of the published protocol.
    #[test]
    fn messages_are_those_of_etcd() {
        let compare = Compare { result: 0, target: MOD, key: b"k".to_vec(), mod_revision: 5 };
        assert_eq!(compare.encode_to_vec(), [0x10, 2, 0x1a, 1, b'k', 0x30, 5]);
        let request = TxnRequest { success: vec![put(b"k".to_vec(), 7)], ..TxnRequest::default() };
        assert_eq!(request.encode_to_vec(), [0x12, 8, 0x12, 6, 0x0a, 1, b'k', 0x12, 1, b'7']);
        assert_eq!(RangeRequest { key: b"k".to_vec() }.encode_to_vec(), [0x0a, 1, b'k']);
    }
}
