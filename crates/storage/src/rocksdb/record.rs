//! Records: a format byte, then fixed fields, big-endian, then the one part of free length.
//!
//! A record of a format that this version does not know is an error, never "absent" (S-15).
//! A new format gets a new number, and old numbers stay readable.

use bytes::Bytes;
use protocol::{
    Ballot, ClusterId, Command, CommandId, CommandNumber, Entry, Fingerprint, NodeId, StoredOutcome, Timestamp,
    Verdict, Vote,
};

use crate::Identity;

/// The format of all records but outcomes; the first one of those.
pub(crate) const FORMAT: u8 = 1;

/// The format of outcomes. In format 1 they have no verdict: only changes were stored.
const OUTCOME_FORMAT: u8 = 2;

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

pub(crate) fn command_id(id: CommandId) -> Vec<u8> {
    Writer::new().id(id).0
}

pub(crate) fn read_command_id(bytes: &[u8]) -> Result<CommandId, String> {
    let mut reader = Reader::new(bytes)?;
    let id = reader.id()?;
    reader.end()?;
    Ok(id)
}

pub(crate) fn command(command: &Command) -> Vec<u8> {
    Writer::new().command(command).0
}

pub(crate) fn read_command(bytes: &[u8]) -> Result<Command, String> {
    Reader::new(bytes)?.command()
}

pub(crate) fn vote(vote: &Vote) -> Vec<u8> {
    Writer::new().ballot(vote.ballot).command(&vote.command).0
}

pub(crate) fn read_vote(bytes: &[u8]) -> Result<Vote, String> {
    let mut reader = Reader::new(bytes)?;
    Ok(Vote { ballot: reader.ballot()?, command: reader.command()? })
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
    let fixed =
        Writer(vec![OUTCOME_FORMAT]).number(outcome.command.0).rest(&outcome.fingerprint.0).number(outcome.time.0);
    match &outcome.verdict {
        Verdict::Changed(result) => fixed.rest(&[CHANGED]).rest(result).0,
        Verdict::Unchanged(result) => fixed.rest(&[UNCHANGED]).rest(result).0,
        Verdict::Refused { code, message } => fixed.rest(&[REFUSED]).text(code).rest(message.as_bytes()).0,
    }
}

pub(crate) fn read_outcome(bytes: &[u8]) -> Result<StoredOutcome, String> {
    let (mut reader, has_verdict) = match bytes.split_first() {
        Some((&OUTCOME_FORMAT, rest)) => (Reader(rest), true),
        _ => (Reader::of_format_1(bytes, OUTCOME_FORMAT)?, false),
    };
    Ok(StoredOutcome {
        command: CommandNumber(reader.number()?),
        fingerprint: Fingerprint(reader.sixteen()?),
        time: Timestamp(reader.number()?),
        verdict: if has_verdict { reader.verdict()? } else { Verdict::Changed(Bytes::copy_from_slice(reader.0)) },
    })
}

pub(crate) fn identity(identity: &Identity) -> Vec<u8> {
    Writer::new()
        .rest(&identity.cluster.0)
        .text(&identity.cluster_name)
        .number(identity.node.0)
        .text(&identity.node_name)
        .0
}

pub(crate) fn read_identity(bytes: &[u8]) -> Result<Identity, String> {
    let mut reader = Reader::new(bytes)?;
    let identity = Identity {
        cluster: ClusterId(reader.sixteen()?),
        cluster_name: reader.text()?,
        node: NodeId(reader.number()?),
        node_name: reader.text()?,
    };
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
        Self::of_format_1(bytes, FORMAT)
    }

    /// A record of the first format, where this version knows formats up to `newest`.
    fn of_format_1(bytes: &'a [u8], newest: u8) -> Result<Self, String> {
        match bytes.split_first() {
            Some((&FORMAT, rest)) => Ok(Self(rest)),
            Some((format, _)) => Err(format!(
                "format {format}, where this version reads format {newest}; run the version that wrote it, or a newer one"
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
        let bytes = self.take(8)?.try_into().expect("eight bytes were taken");
        Ok(u64::from_be_bytes(bytes))
    }

    fn sixteen(&mut self) -> Result<[u8; 16], String> {
        Ok(self.take(16)?.try_into().expect("sixteen bytes were taken"))
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

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Catches outcomes of the first format that cannot be read any more.
    #[test]
    fn outcomes_of_format_1_are_read() {
        let old = Writer::new().number(9).rest(&[5; 16]).number(77).rest(b"{}").0;
        assert_eq!(read_outcome(&old), Ok(stored(Verdict::Changed(Bytes::from_static(b"{}")))));
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
        assert_eq!(read_vote(&vote(&a_vote())), Ok(a_vote()));
        assert_eq!(read_command(&command(&a_vote().command)), Ok(a_vote().command));
        assert_eq!(read_command_id(&command_id(a_vote().command.id)), Ok(a_vote().command.id));
        assert_eq!(read_ballot(&ballot(a_vote().ballot)), Ok(a_vote().ballot));
        assert_eq!(read_counter(&counter(u64::MAX)), Ok(u64::MAX));
        assert_eq!(read_identity(&identity(&whose)), Ok(whose));
        let empty = Entry { value: Bytes::new(), version: CommandNumber(8) };
        assert_eq!(read_entry(&entry(empty.version, b"")), Ok(empty));
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
        assert!(why.contains("format 2, where this version reads format 1;") && why.contains("newer"), "{why}");
        let newer = [&[OUTCOME_FORMAT + 1], &outcome(&stored(Verdict::Unchanged(Bytes::new())))[1..]].concat();
        let why = read_outcome(&newer).expect_err("an outcome of a newer format was read");
        assert!(why.contains("format 3, where this version reads format 2;"), "{why}");
    }

    /// Catches a change of format 1 under stored data.
    #[test]
    fn format_1_stays_as_it_is() {
        assert_eq!(
            hex(&vote(&a_vote())),
            "01000000000000010200000000000000030000000000000007000000000000010100000000000000020000000000000006\
             00000000000000010000000000000001626f6479"
        );
    }

    /// Catches a change of format 2 of outcomes under stored data.
    #[test]
    fn format_2_of_outcomes_stays_as_it_is() {
        let fixed = "02000000000000000905050505050505050505050505050505000000000000004d";
        let refused = Verdict::Refused { code: "not_enough".into(), message: "A has 1".into() };
        for (verdict, expected) in [
            (Verdict::Changed(Bytes::from_static(b"{}")), "007b7d"),
            (Verdict::Unchanged(Bytes::from_static(b"{}")), "017b7d"),
            (refused, "02000000000000000a6e6f745f656e6f75676841206861732031"),
        ] {
            assert_eq!(hex(&outcome(&stored(verdict))), format!("{fixed}{expected}"));
        }
    }
}
