//! What became of a call.

use bytes::Bytes;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Executed {
    /// `RequestId::to_bytes`.
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) request: Bytes,
    #[prost(oneof = "Outcome", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12")]
    pub(super) outcome: Option<Outcome>,
    /// Not for `Issued`, which says it by `replayed`.
    #[prost(enumeration = "Stored", tag = "20")]
    pub(super) stored: i32,
    /// 16 bytes; absent: the fingerprint that is all zero, as in frames from before there was one.
    #[prost(bytes = "bytes", tag = "21")]
    pub(super) fingerprint: Bytes,
    #[prost(uint32, optional, tag = "22")]
    pub(super) copy: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
pub(super) enum Stored {
    No = 0,
    Now = 1,
    Before = 2,
    Plain = 3,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Outcome {
    #[prost(message, tag = "2")]
    Issued(Issued),
    #[prost(message, tag = "3")]
    Unchanged(Unchanged),
    #[prost(message, tag = "4")]
    Refused(Refused),
    #[prost(string, tag = "5")]
    InvalidArguments(String),
    #[prost(message, tag = "6")]
    UnknownFunction(()),
    #[prost(message, tag = "7")]
    RequestReused(()),
    #[prost(string, tag = "8")]
    Failed(String),
    #[prost(message, tag = "9")]
    Overloaded(Overloaded),
    #[prost(message, tag = "10")]
    NotLeader(()),
    #[prost(message, tag = "11")]
    LeadershipLost(()),
    #[prost(string, tag = "12")]
    TooLarge(String),
}

/// A node of the version before takes a full disk for too many calls, which is also to be waited for.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Overloaded {
    #[prost(bool, tag = "1")]
    pub(super) disk_full: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Issued {
    #[prost(uint64, tag = "1")]
    pub(super) command: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) result: Bytes,
    #[prost(bool, tag = "3")]
    pub(super) replayed: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Unchanged {
    #[prost(uint64, tag = "1")]
    pub(super) at: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) result: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Refused {
    #[prost(uint64, tag = "1")]
    pub(super) at: u64,
    #[prost(string, tag = "2")]
    pub(super) code: String,
    #[prost(string, tag = "3")]
    pub(super) message: String,
}
