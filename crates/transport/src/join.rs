//! How a process that is no node of a cluster yet becomes one: it asks a member, at the port where nodes meet.
//!
//! ```text
//!   newcomer                                  member
//!     |  Hello with `join`: name, address, key   |
//!     |----------------------------------------->|  has the cluster decide, under that key
//!     |        Welcome with an admission,        |
//!     |        or Refused, perhaps only for now  |
//!     |<-----------------------------------------|
//! ```
//!
//! The connection ends there: with its admission the newcomer starts as any node does. It asks again with the same key
//! until it is told, so that it is given one id however often it asks and whichever member it asks. DESIGN 10.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol::{ClusterId, LearnFrom};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::handshake::{self, Answer, DialError, HANDSHAKE_DEADLINE, Hello, Identity, Refusal, Verdict, Versions};
use crate::opening;
use crate::tls::Tls;

/// How long a member takes at most to answer: a call goes through the cluster, perhaps after an election.
pub const ADMISSION_DEADLINE: Duration = Duration::from_secs(20);

/// How long it may take to get a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// How many newcomers are answered at a time: each holds a call in flight, and the memberships change one by one.
pub(crate) const NEWCOMERS_MAX: usize = 8;

/// The largest answer: a membership with as many nodes and majority sets as there may be.
pub(crate) const ADMISSION_BYTES_MAX: usize = 1 << 20;

/// The longest key in bytes; 16 random bytes are used.
const KEY_BYTES: usize = 16;

/// What a newcomer asks for.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Join {
    /// Where the members will reach it, `host:port`.
    #[prost(string, tag = "1")]
    pub address: String,
    /// Makes a repeated question the same one: 16 bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub key: Bytes,
}

/// What a newcomer is told.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Admission {
    /// Its id, which nobody had before.
    #[prost(uint64, tag = "1")]
    pub node: u64,
    /// The cluster's id, 16 bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub cluster: Bytes,
    /// The number of the membership with which it begins: one that it is in.
    #[prost(uint64, tag = "3")]
    pub number: u64,
    /// That membership, as it is stored.
    #[prost(bytes = "bytes", tag = "4")]
    pub membership: Bytes,
}

/// A newcomer as the member sees it; name and address are not checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newcomer {
    /// Its name.
    pub name: String,
    /// Where it says it can be reached.
    pub address: String,
    /// See [`Join::key`].
    pub key: [u8; KEY_BYTES],
}

/// Why a newcomer is not admitted: a sentence for its operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAdmitted {
    /// The sentence.
    pub why: String,
    /// Whether it may ask again.
    pub again: Again,
}

/// Whether a newcomer may ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Again {
    /// Not said: by a version that takes nobody in. Another member may do better.
    Unsaid = 0,
    /// No: the cluster has decided, and would decide the same.
    Never = 1,
    /// Under the same key: perhaps it is admitted and was not told.
    Same = 2,
    /// Under another key: the cluster has refused this one, and what was in the way passes.
    Anew = 3,
}

/// What becomes of a newcomer.
pub type Decision = Pin<Box<dyn Future<Output = Result<Admission, NotAdmitted>> + Send>>;
/// Has the cluster decide on a newcomer.
pub type Admit = Arc<dyn Fn(Newcomer) -> Decision + Send + Sync>;

/// What a newcomer says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// Its name.
    pub name: String,
    /// The cluster's name.
    pub cluster_name: String,
    /// Its setting, which must be that of the cluster.
    pub learn_from: LearnFrom,
    /// Its setting.
    pub window: u64,
    /// What it asks for.
    pub join: Join,
}

/// Why there is no admission.
#[derive(Debug, thiserror::Error)]
pub enum NoAdmission {
    /// Nobody is reached there, or it answers with nonsense: another member may do better.
    #[error("{0}")]
    Nobody(String),
    /// The cluster has not decided: to be asked again under the same key.
    #[error("{0}")]
    NotYet(String),
    /// The cluster may decide otherwise later, under another key.
    #[error("{0}")]
    NotNow(String),
    /// Refused.
    #[error("{0}")]
    Refused(String),
}

impl Application {
    fn hello(&self) -> Hello {
        Hello {
            magic: Bytes::from_static(handshake::MAGIC),
            version: Versions::SPOKEN.newest,
            oldest: Versions::SPOKEN.said_oldest(),
            cluster_name: self.cluster_name.clone(),
            node_name: self.name.clone(),
            learn_from: Some(self.learn_from.name().to_owned()),
            window: Some(self.window),
            join: Some(self.join.clone()),
            ..Hello::default()
        }
    }
}

/// Asks the member at `address`. With TLS it must be a node of that cluster, whichever.
///
/// # Errors
/// [`NoAdmission`] says whether it is worth asking again.
pub async fn ask(address: &str, application: &Application, tls: Option<&Tls>) -> Result<Admission, NoAdmission> {
    let nobody = |why: &dyn std::fmt::Display| NoAdmission::Nobody(format!("{address}: {why}"));
    let connected = timeout(CONNECT_DEADLINE, TcpStream::connect(address)).await;
    let stream = connected.map_err(|_| nobody(&"no answer"))?.map_err(|error| nobody(&error))?;
    let opened = timeout(HANDSHAKE_DEADLINE, opening::dial(tls, stream, &application.cluster_name, None)).await;
    let mut stream = opened.unwrap_or(Err(DialError::Silent)).map_err(|error| nobody(&error))?;
    let asked = async {
        handshake::write(&mut stream, &application.hello()).await.map_err(DialError::from)?;
        handshake::read_within::<Answer, _>(&mut stream, ADMISSION_BYTES_MAX).await.map_err(DialError::from)
    };
    let patience = ADMISSION_DEADLINE + HANDSHAKE_DEADLINE;
    let answer = timeout(patience, asked).await.unwrap_or(Err(DialError::Silent)).map_err(|error| nobody(&error))?;
    let again = answer.again();
    match (answer.verdict, answer.admission) {
        (Some(Verdict::Welcome(_)), Some(admission)) => Ok(admission),
        (Some(Verdict::Refused(why)), _) => {
            let why = format!("{address}: {why}");
            Err(match again {
                Again::Unsaid => NoAdmission::Nobody(why),
                Again::Never => NoAdmission::Refused(why),
                Again::Same => NoAdmission::NotYet(why),
                Again::Anew => NoAdmission::NotNow(why),
            })
        }
        (Some(Verdict::Welcome(_)), None) | (None, _) => Err(nobody(&DialError::NotAPeer)),
    }
}

impl Admission {
    /// The cluster's id.
    #[must_use]
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.cluster[..].try_into().ok().map(ClusterId)
    }
}

impl Identity {
    /// Judges a newcomer as far as a handshake can.
    ///
    /// # Errors
    /// The first [`Refusal`] that applies, as for peers.
    pub(crate) fn judge_newcomer(&self, hello: &Hello, join: &Join) -> Result<Newcomer, Refusal> {
        self.judge_version(hello)?;
        if hello.cluster_name != self.cluster_name {
            return Err(self.other_cluster(hello));
        }
        self.judge_learn_from(hello)?;
        let key = join.key[..].try_into().map_err(|_| Refusal::NotAPeer)?;
        Ok(Newcomer { name: hello.node_name.clone(), address: join.address.clone(), key })
    }

    /// What an admitted newcomer is told.
    pub(crate) fn admit(&self, admission: Admission) -> Answer {
        Answer { admission: Some(admission), ..self.welcome(false) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::tests::identity;

    fn application() -> Application {
        Application {
            name: "d".into(),
            cluster_name: "demo".into(),
            learn_from: LearnFrom::Leader,
            window: 1024,
            join: Join { address: "d:7080".into(), key: Bytes::from_static(&[3; KEY_BYTES]) },
        }
    }

    /// Catches a newcomer who is let into a cluster that he did not mean, or that learns otherwise than he does: he would
    /// be a member, and useless, before anybody noticed.
    #[test]
    fn a_newcomer_is_judged_before_the_cluster_decides() {
        let judge = |application: Application| {
            let hello = application.hello();
            identity().judge_newcomer(&hello, hello.join.as_ref().expect("it asks"))
        };
        let newcomer = Newcomer { name: "d".into(), address: "d:7080".into(), key: [3; KEY_BYTES] };
        assert_eq!(judge(application()), Ok(newcomer));
        let mistakes = [
            (Application { cluster_name: "other".into(), ..application() }, "other_cluster"),
            (Application { learn_from: LearnFrom::Voters, ..application() }, "other_learn_from"),
            (Application { join: Join { key: Bytes::new(), ..application().join }, ..application() }, "not_a_peer"),
        ];
        for (application, reason) in mistakes {
            assert_eq!(judge(application).expect_err(reason).reason(), reason);
        }
        let hello = Hello { version: Versions::SPOKEN.newest + 1, ..application().hello() };
        let refusal = identity().judge_newcomer(&hello, &application().join).expect_err("it is of the next version");
        assert_eq!(refusal.reason(), "version");
    }
}
