//! A small file with a checksum, `JOINING` or `ORIGIN`, from bytes in place of what a disk holds.
//!
//! Such files belong to the binary, on which nothing depends, so the source that reads them is taken in here a second time.

#[path = "../../../crates/quorate/src/sealed.rs"]
mod read;

use read::{open, open_lines, seal_lines};

/// That of both files.
const FORMAT: u32 = 3;
/// The first line, which a file of an earlier version may be without.
const BEGINNING: usize = "format 3\n".len();

/// Bytes as such a file; and, after the first three, as the lines of one, which is whole until the byte at a place (two
/// bytes) is changed (by the third), or all from there on is cut off.
///
/// # Panics
/// When damage is believed, or what is whole is not; when what is read would be written differently; when an error takes
/// more than one line.
pub fn sealed_file(bytes: &[u8]) {
    judge(bytes);
    let [high, low, change, lines @ ..] = bytes else { return };
    let lines = String::from_utf8_lossy(lines);
    let whole = seal_lines(FORMAT, &lines);
    assert_eq!(open_lines("F", FORMAT, &whole).expect("whole"), lines);
    let place = usize::from(u16::from_be_bytes([*high, *low])) % whole.len();
    if *change != 0 {
        let mut changed = whole.clone();
        changed[place] ^= change;
        refused(&changed);
    }
    // No line of such a file is itself the end of one.
    if place >= BEGINNING && !lines.contains("blake3 ") {
        refused(&whole[..place]);
    }
}

fn judge(bytes: &[u8]) {
    match open_lines("F", FORMAT, bytes) {
        Ok(lines) => {
            let (_, is_sealed) = open(bytes).expect("it was read");
            assert!(!is_sealed || seal_lines(FORMAT, lines) == bytes, "a file that changes");
        }
        Err(why) => one_line(&why),
    }
}

fn refused(damaged: &[u8]) {
    match open_lines("F", FORMAT, damaged) {
        Ok(lines) => panic!("{lines:?} was believed"),
        Err(why) => one_line(&why),
    }
}

fn one_line(why: &anyhow::Error) {
    let text = format!("{why:#}");
    assert!(!text.contains('\n'), "more than one line: {text}");
}
