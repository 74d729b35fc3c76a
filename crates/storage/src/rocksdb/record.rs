//! Records: a format byte, then fixed fields, big-endian, then the one part of free length.
//!
//! A record of a format that this version does not know is an error, never "absent" (S-15).
//! A new format gets a new number, and old numbers stay readable.

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::{
    Ballot, ClusterId, Command, CommandId, CommandNumber, Entry, Fingerprint, NodeId, Position, SnapshotId,
    StoredOutcome, Timestamp, Verdict, Vote,
};

use super::keys::Generation;
use super::mark::{DiskId, Mark, Noted};
use crate::digest::{RecordHash, Sum};
use crate::{Identity, Staged, Standing};

/// The format of all records. Format 1 was never released.
pub(crate) const FORMAT: u8 = 2;

/// Which state the database shows. One record, so that it is of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// The last applied command, and its time.
    pub(crate) applied: CommandId,
    pub(crate) time: Timestamp,
    /// How many commands are dropped: all up to the one of this number.
    pub(crate) dropped: CommandNumber,
    /// Where the state lies.
    pub(crate) generation: Generation,
    /// Of all entries and outcomes.
    pub(crate) sum: Sum,
}

pub(crate) fn head(head: &Head) -> Vec<u8> {
    let fixed = Writer::new().id(head.applied).number(head.time.0).number(head.dropped.0);
    fixed.rest(&[head.generation.0]).rest(&head.sum.to_bytes()).0
}

pub(crate) fn read_head(bytes: &[u8]) -> Result<Head, String> {
    let mut reader = Reader::new(bytes)?;
    let head = Head {
        applied: reader.id()?,
        time: Timestamp(reader.number()?),
        dropped: CommandNumber(reader.number()?),
        generation: match reader.array()? {
            [number @ (0 | 1)] => Generation(number),
            [number] => return Err(format!("generation {number}")),
        },
        sum: Sum::from_bytes(&reader.array()?),
    };
    reader.end()?;
    Ok(head)
}

/// Whether there is a next position.
const MORE: u8 = 1;
const ALL: u8 = 0;

pub(crate) fn staged(staged: &Staged) -> Vec<u8> {
    let fixed = Writer::new().id(staged.id.at).rest(&staged.id.digest);
    match &staged.next {
        Some(next) => fixed.rest(&[MORE]).rest(&next.0).0,
        None => fixed.rest(&[ALL]).0,
    }
}

pub(crate) fn read_staged(bytes: &[u8]) -> Result<Staged, String> {
    let mut reader = Reader::new(bytes)?;
    let id = SnapshotId { at: reader.id()?, digest: reader.array()? };
    let next = match reader.array()? {
        [MORE] => Some(Position(Bytes::copy_from_slice(reader.0))),
        [ALL] => {
            reader.end()?;
            None
        }
        [tag] => return Err(format!("tag {tag}")),
    };
    Ok(Staged { id, next })
}

pub(crate) fn standing(standing: Standing) -> Vec<u8> {
    Writer::new().standing(standing).0
}

pub(crate) fn read_standing(bytes: &[u8]) -> Result<Standing, String> {
    let mut reader = Reader::new(bytes)?;
    let standing = reader.standing()?;
    reader.end()?;
    Ok(standing)
}

pub(crate) fn mark(mark: &Mark) -> Vec<u8> {
    let refused = mark.refused.as_deref();
    let fixed = Writer::new()
        .number(mark.revision)
        .identity(&mark.identity)
        .rest(&mark.disk.0)
        .number(mark.starts)
        .number(mark.run)
        .ballot(mark.last_tried)
        .ballot(mark.next_ballot)
        .standing(mark.standing)
        .ballot(mark.votes_lost)
        .flag(refused.is_some())
        .text(refused.unwrap_or_default())
        .number(mark.peers.len() as u64);
    let noted = |writer: Writer, (node, noted): (&NodeId, &Noted)| {
        writer.number(node.0).rest(&noted.disk.0).number(noted.starts).number(noted.run).ballot(noted.promise)
    };
    let peers = mark.peers.iter().fold(fixed, noted);
    // Left out while it is 0: a version that does not know of it may read the mark until then, and not afterwards.
    if mark.voted_under == CommandNumber::NULL { peers.0 } else { peers.number(mark.voted_under.0).0 }
}

pub(crate) fn read_mark(bytes: &[u8]) -> Result<Mark, String> {
    let mut reader = Reader::new(bytes)?;
    let mut mark = Mark {
        revision: reader.number()?,
        identity: reader.identity()?,
        disk: DiskId(reader.array()?),
        starts: reader.number()?,
        run: reader.number()?,
        last_tried: reader.ballot()?,
        next_ballot: reader.ballot()?,
        standing: reader.standing()?,
        voted_under: CommandNumber::NULL,
        votes_lost: reader.ballot()?,
        refused: match (reader.flag()?, reader.text()?) {
            (true, why) => Some(why),
            (false, why) if why.is_empty() => None,
            (false, _) => return Err("a reason for nothing".to_owned()),
        },
        peers: BTreeMap::new(),
    };
    for _ in 0..reader.number()? {
        let node = NodeId(reader.number()?);
        let disk = DiskId(reader.array()?);
        let noted = Noted { disk, starts: reader.number()?, run: reader.number()?, promise: reader.ballot()? };
        if mark.peers.last_key_value().is_some_and(|(last, _)| *last >= node) {
            return Err("nodes out of order".to_owned());
        }
        mark.peers.insert(node, noted);
    }
    if !reader.0.is_empty() {
        mark.voted_under = CommandNumber(reader.number()?);
    }
    reader.end()?;
    Ok(mark)
}

/// What is known of a stored command without its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// What all stored commands before it weigh.
    pub(crate) before: u64,
    pub(crate) time: Timestamp,
}

pub(crate) fn command(place: Place, command: &Command) -> Vec<u8> {
    Writer::new().number(place.before).number(place.time.0).command(command).0
}

pub(crate) fn read_command(bytes: &[u8]) -> Result<(Place, Command), String> {
    let mut reader = Reader::new(bytes)?;
    Ok((reader.place()?, reader.command()?))
}

pub(crate) fn read_place(bytes: &[u8]) -> Result<Place, String> {
    Reader::new(bytes)?.place()
}

/// What stands under the age of an outcome: its hash, and the request.
pub(crate) fn aged(hash: &RecordHash, request: &[u8]) -> Vec<u8> {
    Writer::new().rest(hash).rest(request).0
}

pub(crate) fn read_aged(bytes: &[u8]) -> Result<(RecordHash, Bytes), String> {
    let mut reader = Reader::new(bytes)?;
    Ok((reader.array()?, Bytes::copy_from_slice(reader.0)))
}

/// A vote under a mask. Callers decide the bytes of a body, and bytes that look like the log's own would
/// make a torn record look like a damaged one (module `wal`); the mask, which no caller can foresee, makes
/// them noise. WebSocket masks what clients send for the same reason (RFC 6455, 5.3).
pub(crate) fn vote(vote: &Vote, mask: u64) -> Vec<u8> {
    let mut record = Writer::new().number(mask).ballot(vote.ballot).command(&vote.command).0;
    apply_mask(mask, &mut record[MASKED..]);
    record
}

pub(crate) fn read_vote(bytes: &[u8]) -> Result<Vote, String> {
    let mask = Reader::new(bytes)?.number()?;
    let mut plain = bytes[MASKED..].to_vec();
    apply_mask(mask, &mut plain);
    let mut reader = Reader(&plain);
    Ok(Vote { ballot: reader.ballot()?, command: reader.command()? })
}

/// Where the masked part of a vote begins: after format and mask.
const MASKED: usize = 9;

fn apply_mask(mask: u64, bytes: &mut [u8]) {
    let mask = mask.to_be_bytes();
    bytes.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
}

pub(crate) fn ballot(ballot: Ballot) -> Vec<u8> {
    Writer::new().ballot(ballot).0
}

pub(crate) fn read_ballot(bytes: &[u8]) -> Result<Ballot, String> {
    let mut reader = Reader::new(bytes)?;
    let ballot = reader.ballot()?;
    reader.end()?;
    Ok(ballot)
}

pub(crate) fn counter(number: u64) -> Vec<u8> {
    Writer::new().number(number).0
}

pub(crate) fn read_counter(bytes: &[u8]) -> Result<u64, String> {
    let mut reader = Reader::new(bytes)?;
    let number = reader.number()?;
    reader.end()?;
    Ok(number)
}

pub(crate) fn entry(version: CommandNumber, value: &[u8]) -> Vec<u8> {
    Writer::new().number(version.0).rest(value).0
}

/// The version and the value, not copied.
pub(crate) fn read_entry_parts(bytes: &[u8]) -> Result<(CommandNumber, &[u8]), String> {
    let mut reader = Reader::new(bytes)?;
    Ok((CommandNumber(reader.number()?), reader.0))
}

pub(crate) fn read_entry(bytes: &[u8]) -> Result<Entry, String> {
    let (version, value) = read_entry_parts(bytes)?;
    Ok(Entry { value: Bytes::copy_from_slice(value), version })
}

/// What stands for each verdict in the record of an outcome.
const CHANGED: u8 = 0;
const UNCHANGED: u8 = 1;
const REFUSED: u8 = 2;

pub(crate) fn outcome(outcome: &StoredOutcome) -> Vec<u8> {
    let fixed = Writer::new().number(outcome.command.0).rest(&outcome.fingerprint.0).number(outcome.time.0);
    match &outcome.verdict {
        Verdict::Changed(result) => fixed.rest(&[CHANGED]).rest(result).0,
        Verdict::Unchanged(result) => fixed.rest(&[UNCHANGED]).rest(result).0,
        Verdict::Refused { code, message } => fixed.rest(&[REFUSED]).text(code).rest(message.as_bytes()).0,
    }
}

pub(crate) fn read_outcome(bytes: &[u8]) -> Result<StoredOutcome, String> {
    let mut reader = Reader::new(bytes)?;
    Ok(StoredOutcome {
        command: CommandNumber(reader.number()?),
        fingerprint: Fingerprint(reader.array()?),
        time: Timestamp(reader.number()?),
        verdict: reader.verdict()?,
    })
}

pub(crate) fn identity(identity: &Identity) -> Vec<u8> {
    Writer::new().identity(identity).0
}

pub(crate) fn read_identity(bytes: &[u8]) -> Result<Identity, String> {
    let mut reader = Reader::new(bytes)?;
    let identity = reader.identity()?;
    reader.end()?;
    Ok(identity)
}

struct Writer(Vec<u8>);

impl Writer {
    fn new() -> Self {
        Self(vec![FORMAT])
    }

    fn number(self, number: u64) -> Self {
        self.rest(&number.to_be_bytes())
    }

    fn ballot(self, ballot: Ballot) -> Self {
        self.number(ballot.round).number(ballot.node.0)
    }

    fn id(self, id: CommandId) -> Self {
        self.number(id.number.0).ballot(id.ballot)
    }

    fn command(self, command: &Command) -> Self {
        self.id(command.id).id(command.precedent).rest(&command.body)
    }

    fn identity(self, identity: &Identity) -> Self {
        self.rest(&identity.cluster.0).text(&identity.cluster_name).number(identity.node.0).text(&identity.node_name)
    }

    fn standing(self, standing: Standing) -> Self {
        let tag = match standing {
            Standing::Sound => 0,
            Standing::Fresh => 1,
            Standing::Damaged => 2,
            Standing::Replaced => 3,
        };
        self.rest(&[tag])
    }

    fn flag(self, flag: bool) -> Self {
        self.rest(&[u8::from(flag)])
    }

    fn text(self, text: &str) -> Self {
        self.number(text.len() as u64).rest(text.as_bytes())
    }

    fn rest(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, String> {
        match bytes.split_first() {
            Some((&FORMAT, rest)) => Ok(Self(rest)),
            Some((format, _)) => Err(format!(
                "format {format}, where this version reads format {FORMAT}; run the version that wrote it, or a newer one"
            )),
            None => Err("no bytes".to_owned()),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or("too short")?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_be_bytes)
    }

    fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], String> {
        Ok(self.take(LENGTH)?.try_into().expect("as many bytes were taken"))
    }

    fn place(&mut self) -> Result<Place, String> {
        Ok(Place { before: self.number()?, time: Timestamp(self.number()?) })
    }

    fn ballot(&mut self) -> Result<Ballot, String> {
        Ok(Ballot::new(self.number()?, NodeId(self.number()?)))
    }

    fn id(&mut self) -> Result<CommandId, String> {
        Ok(CommandId { number: CommandNumber(self.number()?), ballot: self.ballot()? })
    }

    fn command(&mut self) -> Result<Command, String> {
        Ok(Command { id: self.id()?, precedent: self.id()?, body: Bytes::copy_from_slice(self.0) })
    }

    fn identity(&mut self) -> Result<Identity, String> {
        Ok(Identity {
            cluster: ClusterId(self.array()?),
            cluster_name: self.text()?,
            node: NodeId(self.number()?),
            node_name: self.text()?,
        })
    }

    fn standing(&mut self) -> Result<Standing, String> {
        match self.array()? {
            [0] => Ok(Standing::Sound),
            [1] => Ok(Standing::Fresh),
            [2] => Ok(Standing::Damaged),
            [3] => Ok(Standing::Replaced),
            [tag] => Err(format!("tag {tag}")),
        }
    }

    fn flag(&mut self) -> Result<bool, String> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [tag] => Err(format!("tag {tag}")),
        }
    }

    fn text(&mut self) -> Result<String, String> {
        let length = usize::try_from(self.number()?).map_err(|_| "a length is too large")?;
        String::from_utf8(self.take(length)?.to_vec()).map_err(|_| "a name is not UTF-8".to_owned())
    }

    fn verdict(&mut self) -> Result<Verdict, String> {
        match self.take(1)? {
            [CHANGED] => Ok(Verdict::Changed(Bytes::copy_from_slice(self.0))),
            [UNCHANGED] => Ok(Verdict::Unchanged(Bytes::copy_from_slice(self.0))),
            [REFUSED] => {
                let code = self.text()?;
                let message = String::from_utf8(self.0.to_vec()).map_err(|_| "a refusal is not UTF-8")?;
                Ok(Verdict::Refused { code, message })
            }
            _ => Err("an outcome of a kind that this version does not know".to_owned()),
        }
    }

    fn end(self) -> Result<(), String> {
        if self.0.is_empty() { Ok(()) } else { Err(format!("{} bytes too many", self.0.len())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_vote() -> Vote {
        let ballot = Ballot::new(0x0102, NodeId(3));
        Vote {
            ballot,
            command: Command {
                id: CommandId::new(Ballot::new(0x0101, NodeId(2)), CommandNumber(7)),
                precedent: CommandId::new(Ballot::new(1, NodeId(1)), CommandNumber(6)),
                body: Bytes::from_static(b"body"),
            },
        }
    }

    fn stored(verdict: Verdict) -> StoredOutcome {
        let (command, time) = (CommandNumber(9), Timestamp(77));
        StoredOutcome { command, fingerprint: Fingerprint([5; 16]), verdict, time }
    }

    /// Catches fields that are swapped or lost on the way to disk.
    #[test]
    fn records_are_read_back_as_they_were() {
        let verdicts = [
            Verdict::Changed(Bytes::from_static(b"{}")),
            Verdict::Unchanged(Bytes::new()),
            Verdict::Refused { code: "not_enough".into(), message: "A has 1".into() },
        ];
        for verdict in verdicts {
            let stored = stored(verdict);
            assert_eq!(read_outcome(&outcome(&stored)), Ok(stored));
        }
        let whose = Identity {
            cluster: ClusterId([1; 16]),
            cluster_name: "shop".into(),
            node: NodeId(4),
            node_name: "n4".into(),
        };
        let place = Place { before: 1 << 40, time: Timestamp(5) };
        assert_eq!(read_vote(&vote(&a_vote(), 0x0102_0304_0506_0708)), Ok(a_vote()));
        assert_eq!(read_command(&command(place, &a_vote().command)), Ok((place, a_vote().command)));
        assert_eq!(read_place(&command(place, &a_vote().command)), Ok(place));
        assert_eq!(read_ballot(&ballot(a_vote().ballot)), Ok(a_vote().ballot));
        assert_eq!(read_counter(&counter(u64::MAX)), Ok(u64::MAX));
        assert_eq!(read_identity(&identity(&whose)), Ok(whose));
        assert_eq!(read_aged(&aged(&[3; 32], b"cr1")), Ok(([3; 32], Bytes::from_static(b"cr1"))));
        let empty = Entry { value: Bytes::new(), version: CommandNumber(8) };
        assert_eq!(read_entry(&entry(empty.version, b"")), Ok(empty));
        let mut sum = Sum::default();
        sum.add(&[7; 32]);
        let (applied, generation) = (a_vote().command.id, Generation(1));
        let whole = Head { applied, time: Timestamp(9), dropped: CommandNumber(2), generation, sum };
        assert_eq!(read_head(&head(&whole)), Ok(whole));
        for next in [None, Some(Position::default()), Some(Position(Bytes::from_static(b"\x01key")))] {
            let part = Staged { id: SnapshotId { at: a_vote().command.id, digest: [8; 32] }, next };
            assert_eq!(read_staged(&staged(&part)), Ok(part));
        }
    }

    /// S-15: catches a damaged or newer record that is taken for something else.
    #[test]
    fn damaged_and_newer_records_are_refused() {
        let whole = ballot(a_vote().ballot);
        for length in 0..whole.len() {
            assert!(read_ballot(&whole[..length]).is_err(), "a ballot of {length} bytes was read");
        }
        assert!(read_ballot(&[whole.as_slice(), &[0]].concat()).is_err(), "a ballot with a byte too many was read");
        let newer = [&[FORMAT + 1], &whole[1..]].concat();
        let why = read_ballot(&newer).expect_err("a newer format was read");
        assert!(why.contains("format 3, where this version reads format 2;") && why.contains("newer"), "{why}");
    }

    /// Catches a mask that leaves bytes of a body as a caller wrote them.
    #[test]
    fn a_body_is_not_stored_as_it_came() {
        let mut vote = a_vote();
        vote.command.body = Bytes::from(vec![0; 1_000]);
        let record = super::vote(&vote, 0x0123_4567_89ab_cdef);
        assert!(record[MASKED..].iter().all(|byte| *byte != 0) && record != super::vote(&vote, 1));
    }
}
