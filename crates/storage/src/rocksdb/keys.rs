//! Typed keys, big-endian, so that the order of bytes is the order of numbers.
//!
//! All keys of a state but those of `meta` begin with its [`Generation`], so that a snapshot can be
//! staged beside the state, and one write makes it the state. Tags are never reused for something
//! else.

use protocol::{CommandNumber, RequestId, StoredOutcome};

/// Column families of the state database.
pub(crate) mod column {
    /// All, and the one that RocksDB wants to have.
    pub(crate) const ALL: [&str; 6] =
        [::rocksdb::DEFAULT_COLUMN_FAMILY_NAME, ENTRIES, OUTCOMES, OUTCOMES_BY_TIME, COMMANDS, META];
    /// Those whose keys have a generation.
    pub(crate) const OF_A_GENERATION: [&str; 4] = [ENTRIES, OUTCOMES, OUTCOMES_BY_TIME, COMMANDS];
    /// Key of the state -> format, version, value.
    pub(crate) const ENTRIES: &str = "entries";
    /// Request id -> stored outcome.
    pub(crate) const OUTCOMES: &str = "outcomes";
    /// [`super::ByTime`] -> hash of the outcome, request id: which outcomes to forget first.
    pub(crate) const OUTCOMES_BY_TIME: &str = "outcomes_by_time";
    /// Command number -> weight of the commands before, time, command.
    pub(crate) const COMMANDS: &str = "commands";
    /// [`super::Meta`] -> its record.
    pub(crate) const META: &str = "meta";
}

/// Which of two states that may lie in the database at once a key belongs to. One is the state; a
/// snapshot is staged in the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Generation(pub(crate) u8);

impl Generation {
    pub(crate) fn other(self) -> Self {
        Self(self.0 ^ 1)
    }

    /// The stored form of a key.
    pub(crate) fn key(self, key: &[u8]) -> Vec<u8> {
        [&[self.0], key].concat()
    }

    /// The lowest bytes above all keys.
    pub(crate) fn end(self) -> Vec<u8> {
        vec![self.0 + 1]
    }
}

/// Keys of the log database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogKey {
    /// Whose log this is.
    Identity,
    /// `last_tried`.
    LastTried,
    /// `next_ballot`.
    NextBallot,
    /// How many batches were written: the state notes it, so that a start sees a log that lost
    /// some.
    Writes,
    /// The command number up to which the state was synced: a state below it has lost some.
    StateDurable,
    /// The command number up to which votes are forgotten.
    Forgotten,
    /// What the log is good for; absent: all of it is there.
    Standing,
    /// The copy of the mark.
    Mark,
    /// The vote for a number.
    Vote(CommandNumber),
}

impl LogKey {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        match self {
            Self::Identity => vec![1],
            Self::LastTried => vec![2],
            Self::NextBallot => vec![3],
            Self::Writes => vec![4],
            Self::StateDurable => vec![5],
            Self::Forgotten => vec![6],
            Self::Standing => vec![7],
            Self::Mark => vec![8],
            Self::Vote(number) => [&[16], number.0.to_be_bytes().as_slice()].concat(),
        }
    }

    /// Reads [`LogKey::to_bytes`] back; `None` for anything else.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first()? {
            (1, []) => Some(Self::Identity),
            (2, []) => Some(Self::LastTried),
            (3, []) => Some(Self::NextBallot),
            (4, []) => Some(Self::Writes),
            (5, []) => Some(Self::StateDurable),
            (6, []) => Some(Self::Forgotten),
            (7, []) => Some(Self::Standing),
            (8, []) => Some(Self::Mark),
            (16, number) => Some(Self::Vote(self::number(number)?)),
            _ => None,
        }
    }
}

/// Keys of the column family `meta` of the state database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meta {
    /// Whose state this is.
    Identity,
    /// [`LogKey::Writes`] as of the last applied command.
    LogWrites,
    /// Which state it is: [`super::record::Head`].
    Head,
    /// What is staged in the other generation; absent when nothing is.
    Staged,
}

impl Meta {
    pub(crate) fn to_bytes(self) -> [u8; 1] {
        match self {
            Self::Identity => [1],
            Self::LogWrites => [3],
            Self::Head => [4],
            Self::Staged => [5],
        }
    }
}

/// Key of a command, or of anything else that is named by its number alone.
pub(crate) fn of_number(number: CommandNumber) -> [u8; 8] {
    number.0.to_be_bytes()
}

/// Reads [`of_number`] back; `None` for anything else.
pub(crate) fn number(bytes: &[u8]) -> Option<CommandNumber> {
    Some(CommandNumber(u64::from_be_bytes(bytes.try_into().ok()?)))
}

/// The two kinds of outcomes, each with a mark of its own for forgetting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Caller,
    Gateway,
}

impl Kind {
    /// In the order in which they are forgotten.
    pub(crate) const ALL: [Self; 2] = [Self::Caller, Self::Gateway];

    pub(crate) fn of(request: &RequestId) -> Self {
        match request {
            RequestId::Caller(_) => Self::Caller,
            RequestId::Gateway(_) => Self::Gateway,
        }
    }

    pub(crate) fn tag(self) -> u8 {
        match self {
            Self::Caller => b'c',
            Self::Gateway => b'g',
        }
    }
}

/// Key of `outcomes_by_time`: kind, time, command number. Unique by the number; the oldest of a
/// kind comes first.
pub(crate) type ByTime = [u8; 17];

/// The key under which an outcome lies in `outcomes_by_time`.
pub(crate) fn by_time(request: &RequestId, outcome: &StoredOutcome) -> ByTime {
    by_time_of(Kind::of(request), outcome.time.0, outcome.command.0)
}

/// The lowest key of a kind at or after a time.
pub(crate) fn by_time_of(kind: Kind, time: u64, command: u64) -> ByTime {
    let mut key = [kind.tag(); 17];
    key[1..9].copy_from_slice(&time.to_be_bytes());
    key[9..].copy_from_slice(&command.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S-15: catches log keys that collide or are not read back as what they were.
    #[test]
    fn log_keys_survive_and_differ() {
        let keys = [
            LogKey::Identity,
            LogKey::LastTried,
            LogKey::NextBallot,
            LogKey::Writes,
            LogKey::StateDurable,
            LogKey::Forgotten,
            LogKey::Standing,
            LogKey::Mark,
            LogKey::Vote(CommandNumber(0)),
            LogKey::Vote(CommandNumber(u64::MAX)),
        ];
        for key in keys {
            assert_eq!(LogKey::from_bytes(&key.to_bytes()), Some(key));
        }
        for strange in [&[][..], &[0], &[2, 0], &[16], &[16, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[99]] {
            assert_eq!(LogKey::from_bytes(strange), None, "{strange:?} was taken for a key");
        }
    }

    /// Catches two generations that share a key, or an end that cuts one of them short.
    #[test]
    fn generations_are_apart() {
        let (one, two) = (Generation::default(), Generation::default().other());
        assert_eq!(two.other(), one);
        let last = [255; 40];
        assert!(one.key(&last) < one.end() && one.end() <= two.key(b""));
        assert!(two.key(&last) < two.end());
    }

    /// Catches little-endian numbers: iteration would then not be in order.
    #[test]
    fn the_order_of_keys_is_the_order_of_numbers() {
        let ascending = [0, 1, 255, 256, 65_535, 65_536, u64::MAX];
        for pair in ascending.windows(2) {
            let (low, high) = (CommandNumber(pair[0]), CommandNumber(pair[1]));
            assert!(LogKey::Vote(low).to_bytes() < LogKey::Vote(high).to_bytes());
            assert!(of_number(low) < of_number(high));
            assert!(by_time_of(Kind::Caller, pair[0], u64::MAX) < by_time_of(Kind::Caller, pair[1], 0));
        }
        assert!(by_time_of(Kind::Caller, u64::MAX, u64::MAX) < by_time_of(Kind::Gateway, 0, 0));
    }
}
