//! What happened, for machines and for people.
//!
//! - [`Hasher`] turns a run into one number, equal for equal runs: same seed, same number, in
//!   debug and release builds.
//! - [`Log`] keeps the last facts, and puts them in words when somebody wants to read them.
//!
//! The number is that of these sources: a field that is added to a fact or message changes it,
//! as does a Rust release that derives `Hash` otherwise. So numbers are compared, never kept.

use std::collections::VecDeque;
use std::hash::Hash as _;

use protocol::{Message, Now};

use crate::fact::{Fact, Observer};
use crate::words::{Happened, Seconds};

/// Digests all facts with their times.
#[derive(Debug, Default)]
pub struct Hasher {
    bytes: Canonical,
    facts: u64,
}

impl Hasher {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many facts it was told.
    #[must_use]
    pub fn facts(&self) -> u64 {
        self.facts
    }

    /// The number of the run so far.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut all = self.bytes.hasher.clone();
        all.update(&self.bytes.waiting);
        *all.finalize().as_bytes()
    }

    /// The same, for people: 16 hexadecimal digits.
    #[must_use]
    pub fn short(&self) -> String {
        self.digest().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Observer for Hasher {
    fn observe(&mut self, now: Now, fact: &Fact) {
        self.facts += 1;
        (now, fact).hash(&mut self.bytes);
    }
}

/// What `Hash` feeds it, in bytes that are the same on every machine: numbers as 8 bytes,
/// little-endian; texts and bodies short or digested.
#[derive(Debug, Default)]
struct Canonical {
    hasher: blake3::Hasher,
    /// Not hashed yet: BLAKE3 is fast on long pieces only.
    waiting: Vec<u8>,
}

impl Canonical {
    /// A piece that BLAKE3 hashes at full speed, in bytes.
    const PIECE: usize = 16 * 1024;
    /// The longest bytes that are hashed as they are; of longer ones a cheap digest.
    const WHOLE_MAX: usize = 32;
}

impl std::hash::Hasher for Canonical {
    fn write(&mut self, bytes: &[u8]) {
        if bytes.len() <= Self::WHOLE_MAX {
            self.waiting.extend_from_slice(bytes);
        } else {
            self.waiting.extend_from_slice(&cheap(bytes).to_le_bytes());
        }
        if self.waiting.len() >= Self::PIECE {
            self.hasher.update(&self.waiting);
            self.waiting.clear();
        }
    }

    fn write_u16(&mut self, number: u16) {
        self.write_u64(number.into());
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.write(&number.to_le_bytes());
    }

    fn write_u128(&mut self, number: u128) {
        self.write(&number.to_le_bytes());
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    // The others of `std::hash::Hasher` end in `write_u8` or in one of these.

    /// Nobody asks: [`Hasher::digest`] has the answer.
    fn finish(&self) -> u64 {
        cheap(&self.waiting)
    }
}

/// Tells bodies apart that differ by accident: one multiplication for every 8 bytes.
fn cheap(bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut digest = bytes.len() as u64;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        digest = (digest.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(FACTOR);
    }
    for byte in rest {
        digest = (digest.rotate_left(5) ^ u64::from(*byte)).wrapping_mul(FACTOR);
    }
    digest
}

/// Keeps the last facts.
#[derive(Debug)]
pub struct Log {
    capacity: usize,
    heartbeats: bool,
    kept: VecDeque<(Now, Fact)>,
    dropped: u64,
}

impl Log {
    /// Keeps the last `capacity` facts, heartbeats aside.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { capacity, heartbeats: false, kept: VecDeque::new(), dropped: 0 }
    }

    /// Keeps heartbeats too.
    #[must_use]
    pub fn with_heartbeats(self) -> Self {
        Self { heartbeats: true, ..self }
    }

    /// What is kept, in order.
    pub fn facts(&self) -> impl DoubleEndedIterator<Item = &(Now, Fact)> {
        self.kept.iter()
    }

    /// The last `count` of what is kept, a line each; the first line says how many came before
    /// them, if any did.
    #[must_use]
    pub fn tail(&self, count: usize) -> String {
        let left_out = self.kept.len().saturating_sub(count);
        let before = self.dropped + left_out as u64;
        let mut text = String::new();
        if before > 0 {
            text += &format!("({before} earlier facts)\n");
        }
        for (now, fact) in self.kept.iter().skip(left_out) {
            text += &line(*now, fact);
            text.push('\n');
        }
        text
    }
}

impl Observer for Log {
    fn observe(&mut self, now: Now, fact: &Fact) {
        if is_heartbeat(fact) && !self.heartbeats {
            return;
        }
        if self.kept.len() >= self.capacity {
            self.kept.pop_front();
            self.dropped += 1;
        }
        if self.capacity > 0 {
            self.kept.push_back((now, fact.clone()));
        }
    }
}

/// A fact with its time, in one line.
#[must_use]
pub fn line(now: Now, fact: &Fact) -> String {
    format!("{:>12} {}", Seconds(now).to_string(), Happened(fact))
}

/// Whether it is about a heartbeat, as most facts are.
#[must_use]
pub fn is_heartbeat(fact: &Fact) -> bool {
    matches!(
        fact,
        Fact::Sent { message: Message::FailureDetector(_), .. }
            | Fact::Delivered { message: Message::FailureDetector(_), .. }
            | Fact::Lost { message: Message::FailureDetector(_), .. }
    )
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use protocol::message::Heartbeat;
    use protocol::{Ballot, Command, CommandId, CommandNumber, NodeId, Tick, Timestamp};

    use super::*;

    fn at(micros: u64) -> Now {
        Now { tick: Tick(micros), wall: Timestamp(micros / 1000) }
    }

    fn applied(number: u64, body: &[u8]) -> Fact {
        let ballot = Ballot::new(1, NodeId(1));
        let id = CommandId::new(ballot, CommandNumber(number));
        let precedent = CommandId::new(ballot, CommandNumber(number - 1));
        let command = Command { id, precedent, body: Bytes::copy_from_slice(body) };
        Fact::Applied { node: NodeId(2), command, digest: None }
    }

    fn heartbeat() -> Fact {
        let message = Message::FailureDetector(Heartbeat::default());
        Fact::Sent { from: NodeId(1), to: NodeId(2), message }
    }

    fn hashed(facts: &[(Now, Fact)]) -> String {
        let mut hasher = Hasher::new();
        for (now, fact) in facts {
            hasher.observe(*now, fact);
        }
        hasher.short()
    }

    /// Catches a trace hash that differs for equal runs.
    #[test]
    fn equal_runs_have_equal_numbers() {
        let run = || [(at(1), applied(1, b"short")), (at(2), applied(2, &[7; 1000])), (at(3), heartbeat())];
        assert_eq!(hashed(&run()), hashed(&run()));
    }

    /// Catches bytes that depend on the build or the machine: these come out of all alike.
    #[test]
    fn the_bytes_are_the_same_everywhere() {
        let mut canonical = Canonical::default();
        (1_u8, -2_i16, 3_u32, 4_u64, 5_u128, 6_usize, Some("seven"), [8_u8; 100]).hash(&mut canonical);
        let hex: String = canonical.waiting.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "01feff000000000000030000000000000004000000000000000500000000000000000000000000000006000000000000000100000000000000736576656eff6400000000000000c111eaa2ca09ac3f"
        );
    }

    /// Catches a trace hash that overlooks a time, a fact, their order, or a byte of a long body.
    #[test]
    fn other_runs_have_other_numbers() {
        let long = |last: u8| [vec![7; 999], vec![last]].concat();
        let runs = [
            vec![],
            vec![(at(1), applied(1, b"a"))],
            vec![(at(2), applied(1, b"a"))],
            vec![(at(1), applied(1, b"b"))],
            vec![(at(1), applied(2, b"a"))],
            vec![(at(1), applied(1, b"a")), (at(1), applied(2, b"a"))],
            vec![(at(1), applied(2, b"a")), (at(1), applied(1, b"a"))],
            vec![(at(1), applied(1, &long(7)))],
            vec![(at(1), applied(1, &long(8)))],
        ];
        let numbers: std::collections::BTreeSet<String> = runs.iter().map(|run| hashed(run)).collect();
        assert_eq!(numbers.len(), runs.len());
    }

    /// Catches pieces that are hashed otherwise than the whole, or lost at their ends.
    #[test]
    fn long_runs_are_hashed_to_their_end() {
        let long: Vec<(Now, Fact)> = (1..5_000).map(|number| (at(number), applied(number, b"body"))).collect();
        assert_ne!(hashed(&long), hashed(&long[..long.len() - 1]));
        assert_ne!(hashed(&long), hashed(&long[1..]));
    }

    /// Catches a log that grows without bound, drops the newest, hides that it dropped some, or is
    /// full of heartbeats.
    #[test]
    fn the_log_keeps_the_last_facts() {
        let mut log = Log::new(3);
        for number in 1..=5 {
            log.observe(at(number), &applied(number, b""));
            log.observe(at(number), &heartbeat());
        }
        assert_eq!(log.facts().count(), 3);
        let tail = log.tail(2);
        assert_eq!(tail, "(3 earlier facts)\n    0.000004 q applies 4@1.1\n    0.000005 q applies 5@1.1\n");
        let mut with = Log::new(3).with_heartbeats();
        with.observe(at(1), &heartbeat());
        assert!(with.tail(9).contains("p -> q Heartbeat("), "{}", with.tail(9));
    }
}
