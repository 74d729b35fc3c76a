//! Snapshots in frames. The records lie directly in the message, where they count as items.

use bytes::Bytes;
use protocol::message;
use protocol::{CommandNumber, Entry, Key, Position, SnapshotPiece, SnapshotRecord, StoredOutcome, Timestamp, Verdict};

use super::WireError;
use super::convert::{all, check, fingerprint, request_id};
use crate::wire;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SnapshotId {
    #[prost(message, required, tag = "1")]
    pub(super) at: wire::CommandId,
    /// 32 bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) digest: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct FetchSnapshot {
    #[prost(message, optional, tag = "1")]
    pub(super) id: Option<SnapshotId>,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) from: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Snapshot {
    #[prost(message, required, tag = "1")]
    pub(super) id: SnapshotId,
    #[prost(uint64, tag = "2")]
    pub(super) records_of_all: u64,
    /// Absent: no piece, and none of the fields below.
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub(super) from: Option<Bytes>,
    #[prost(message, repeated, tag = "4")]
    pub(super) records: Vec<Record>,
    #[prost(bytes = "bytes", optional, tag = "5")]
    pub(super) next: Option<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Record {
    #[prost(oneof = "Kind", tags = "1, 2")]
    pub(super) kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Kind {
    #[prost(message, tag = "1")]
    Entry(KeyAndEntry),
    #[prost(message, tag = "2")]
    Outcome(RequestAndOutcome),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct KeyAndEntry {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) value: Bytes,
    #[prost(uint64, tag = "3")]
    pub(super) version: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RequestAndOutcome {
    /// `RequestId::to_bytes`.
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) request: Bytes,
    #[prost(uint64, tag = "2")]
    pub(super) command: u64,
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) fingerprint: Bytes,
    /// Milliseconds since 1970.
    #[prost(uint64, tag = "4")]
    pub(super) time: u64,
    #[prost(oneof = "StoredVerdict", tags = "5, 6, 7")]
    pub(super) verdict: Option<StoredVerdict>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum StoredVerdict {
    #[prost(bytes = "bytes", tag = "5")]
    Changed(Bytes),
    #[prost(bytes = "bytes", tag = "6")]
    Unchanged(Bytes),
    #[prost(message, tag = "7")]
    Refused(StoredRefusal),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StoredRefusal {
    #[prost(string, tag = "1")]
    pub(super) code: String,
    #[prost(string, tag = "2")]
    pub(super) message: String,
}

impl From<protocol::SnapshotId> for SnapshotId {
    fn from(id: protocol::SnapshotId) -> Self {
        Self { at: id.at.into(), digest: Bytes::copy_from_slice(&id.digest) }
    }
}

impl TryFrom<SnapshotId> for protocol::SnapshotId {
    type Error = WireError;

    fn try_from(id: SnapshotId) -> Result<Self, WireError> {
        let digest = id.digest.as_ref().try_into().map_err(|_| WireError::Invalid("digest"))?;
        Ok(Self { at: id.at.try_into()?, digest })
    }
}

impl From<&message::FetchSnapshot> for FetchSnapshot {
    fn from(fetch: &message::FetchSnapshot) -> Self {
        Self { id: fetch.id.map(Into::into), from: fetch.from.0.clone() }
    }
}

impl TryFrom<FetchSnapshot> for message::FetchSnapshot {
    type Error = WireError;

    fn try_from(fetch: FetchSnapshot) -> Result<Self, WireError> {
        Ok(Self { id: fetch.id.map(TryInto::try_into).transpose()?, from: position(fetch.from)? })
    }
}

impl From<&message::Snapshot> for Snapshot {
    fn from(snapshot: &message::Snapshot) -> Self {
        let piece = snapshot.piece.as_ref();
        Self {
            id: snapshot.id.into(),
            records_of_all: snapshot.records,
            from: piece.map(|piece| piece.from.0.clone()),
            records: piece.map(|piece| piece.records.iter().map(Into::into).collect()).unwrap_or_default(),
            next: piece.and_then(|piece| piece.next.as_ref()).map(|next| next.0.clone()),
        }
    }
}

impl TryFrom<Snapshot> for message::Snapshot {
    type Error = WireError;

    fn try_from(snapshot: Snapshot) -> Result<Self, WireError> {
        let Snapshot { id, records_of_all, from, records, next } = snapshot;
        let piece = match from {
            Some(from) => Some(SnapshotPiece {
                from: position(from)?,
                records: all(records)?,
                next: next.map(position).transpose()?,
            }),
            None => {
                check(records.is_empty() && next.is_none(), "snapshot: records without a place")?;
                None
            }
        };
        Ok(Self { id: id.try_into()?, records: records_of_all, piece })
    }
}

fn position(bytes: Bytes) -> Result<Position, WireError> {
    check(bytes.len() <= Position::BYTES_MAX, "position in a snapshot")?;
    Ok(Position(bytes))
}

impl From<&SnapshotRecord> for Record {
    fn from(record: &SnapshotRecord) -> Self {
        let kind = match record {
            SnapshotRecord::Entry { key, entry } => Kind::Entry(KeyAndEntry {
                key: key.as_str().to_owned(),
                value: entry.value.clone(),
                version: entry.version.0,
            }),
            SnapshotRecord::Outcome { request, outcome } => Kind::Outcome(RequestAndOutcome {
                request: request.to_bytes(),
                command: outcome.command.0,
                fingerprint: Bytes::copy_from_slice(&outcome.fingerprint.0),
                time: outcome.time.0,
                verdict: Some((&outcome.verdict).into()),
            }),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<Record> for SnapshotRecord {
    type Error = WireError;

    fn try_from(record: Record) -> Result<Self, WireError> {
        match record.kind.ok_or(WireError::Invalid("record: of a kind not known here"))? {
            Kind::Entry(KeyAndEntry { key, value, version }) => {
                let key = Key::new(key).map_err(|_| WireError::Invalid("key"))?;
                Ok(Self::Entry { key, entry: Entry { value, version: CommandNumber(version) } })
            }
            Kind::Outcome(stored) => {
                let verdict = stored.verdict.ok_or(WireError::Invalid("verdict: of a kind not known here"))?;
                let outcome = StoredOutcome {
                    command: CommandNumber(stored.command),
                    fingerprint: fingerprint(&stored.fingerprint)?,
                    verdict: verdict.into(),
                    time: Timestamp(stored.time),
                };
                Ok(Self::Outcome { request: request_id(&stored.request)?, outcome })
            }
        }
    }
}

impl From<&Verdict> for StoredVerdict {
    fn from(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Changed(result) => Self::Changed(result.clone()),
            Verdict::Unchanged(result) => Self::Unchanged(result.clone()),
            Verdict::Refused { code, message } => {
                Self::Refused(StoredRefusal { code: code.clone(), message: message.clone() })
            }
        }
    }
}

impl From<StoredVerdict> for Verdict {
    fn from(verdict: StoredVerdict) -> Self {
        match verdict {
            StoredVerdict::Changed(result) => Self::Changed(result),
            StoredVerdict::Unchanged(result) => Self::Unchanged(result),
            StoredVerdict::Refused(StoredRefusal { code, message }) => Self::Refused { code, message },
        }
    }
}
