//! Recorded frames of version 1. A node of any later version must read them, as long as it
//! speaks version 1.
//!
//! To record a new kind of message, or a message with a new field: add it to `messages.rs` under
//! a new name, run the test, which fails and prints the frame, and write what it prints to
//! `tests/golden/v1/NAME.hex`. Never change or delete a file that is there: if one no longer
//! passes, the new encoding is what is wrong.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use bytes::BytesMut;
use transport::frame::{self, FRAME_BYTES_MAX};
use transport::wire;

use crate::messages;

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all");
        text
    })
}

fn unhex(text: &str) -> BytesMut {
    let text = text.trim();
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal digits");
    (0..text.len()).step_by(2).map(byte).collect()
}

/// Catches an encoding that changes between versions: a rolling upgrade would fail half-way.
#[test]
fn recorded_frames_are_read_and_written_as_ever() {
    let mut missing = String::new();
    for (name, message) in messages::all() {
        let mut written = BytesMut::new();
        frame::append(&mut written, FRAME_BYTES_MAX, |buffer| wire::encode(&message, buffer)).expect("a small frame");
        let Ok(recorded) = std::fs::read_to_string(Path::new(DIRECTORY).join(format!("{name}.hex"))) else {
            writeln!(missing, "{name}.hex: {}", hex(&written)).expect("a String takes all");
            continue;
        };
        let payload = frame::take(&mut unhex(&recorded), FRAME_BYTES_MAX).expect("a frame").expect("a whole frame");
        assert_eq!(wire::decode(payload), Ok(message), "{name} reads differently");
        assert_eq!(hex(&written), recorded.trim(), "{name} is written differently");
    }
    assert!(missing.is_empty(), "not recorded yet:\n{missing}");
}

/// Catches a recorded frame that no test reads any more, and a kind of message without one.
#[test]
fn every_recorded_frame_and_every_kind_has_a_test() {
    let files = std::fs::read_dir(DIRECTORY).expect("the recorded frames");
    let files: BTreeSet<String> =
        files.map(|file| file.expect("readable").file_name().into_string().expect("an ASCII name")).collect();
    let tested: BTreeSet<String> = messages::all().iter().map(|(name, _)| format!("{name}.hex")).collect();
    assert_eq!(files, tested);
    let kinds: BTreeSet<&str> = messages::all().iter().map(|(_, message)| message.name()).collect();
    assert_eq!(kinds.len(), 17, "{kinds:?}");
}
