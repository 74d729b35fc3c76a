//! A small text file of the data directory with a checksum as its last line: damage is not believed.

use storage::rocksdb::{with_format, without_format};

/// Begins the last line; the BLAKE3 hash of all before the line follows.
const SEAL: &[u8] = b"\nblake3 ";

/// A text with its checksum.
pub(crate) fn seal(text: &[u8]) -> Vec<u8> {
    let mut bytes = text.to_vec();
    bytes.extend_from_slice(SEAL);
    bytes.extend_from_slice(blake3::hash(text).to_hex().as_bytes());
    bytes.push(b'\n');
    bytes
}

/// The text of a file, and whether it had a checksum, which holds then.
///
/// # Errors
/// One that does not hold.
pub(crate) fn open(bytes: &[u8]) -> anyhow::Result<(&[u8], bool)> {
    let Some(at) = bytes.windows(SEAL.len()).rposition(|window| window == SEAL) else { return Ok((bytes, false)) };
    let (text, hash) = (&bytes[..at], &bytes[at + SEAL.len()..]);
    let expected = format!("{}\n", blake3::hash(text).to_hex());
    anyhow::ensure!(hash == expected.as_bytes(), "its content is not that of its checksum");
    Ok((text, true))
}

/// The same for lines that begin with one for their format.
pub(crate) fn seal_lines(format: u32, lines: &str) -> Vec<u8> {
    seal(with_format(format, lines).as_bytes())
}

/// Reads [`seal_lines`] back, and files of the formats before, which had no checksum.
///
/// # Errors
/// A damaged file, or one of a later format, of which this version knows nothing; `file` names it.
pub(crate) fn open_lines<'a>(file: &str, format: u32, bytes: &'a [u8]) -> anyhow::Result<&'a str> {
    let (text, is_sealed) = open(bytes)?;
    let text = std::str::from_utf8(text)?;
    let lines = without_format(file, format, text)?;
    anyhow::ensure!(is_sealed == text.starts_with(&with_format(format, "")), "it has lost its checksum");
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches damage that is believed, be it that what is damaged passes for a file of before, without a checksum. Each bit is
    /// flipped and each end cut off in turn; of a file of before, only what is left of its content can tell.
    #[test]
    fn no_damage_is_believed() {
        let whole = seal_lines(3, "a line\nanother");
        assert_eq!(open_lines("F", 3, &whole).expect("whole"), "a line\nanother");
        let flipped = (0..whole.len() * 8).map(|bit| {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        });
        let beginning = "format 3\n".len();
        let cut = (beginning..whole.len()).map(|length| whole[..length].to_vec());
        for damaged in flipped.chain(cut) {
            let read = open_lines("F", 3, &damaged);
            assert!(read.is_err(), "{:?} was believed", String::from_utf8_lossy(&damaged));
        }
        for before in ["format 2\na line\n", "a line\n"] {
            assert_eq!(open_lines("F", 3, before.as_bytes()).expect("of before"), "a line\n");
        }
        let later = open_lines("F", 3, &seal_lines(4, "a line")).expect_err("of later").to_string();
        assert!(later.contains("run the version"), "{later}");
    }
}
