//! The version of a small text file of the data directory: its first line, `format 2`. Files of version 1 have none.

use std::io;

const LINE: &str = "format ";

/// Puts the line before a text.
#[must_use]
pub fn with_format(format: u32, text: &str) -> String {
    format!("{LINE}{format}\n{text}")
}

/// The text after the line, or all of one that has none.
///
/// # Errors
/// A version above `newest`, of which this one knows nothing; `file` names it.
pub fn without_format<'a>(file: &str, newest: u32, text: &'a str) -> io::Result<&'a str> {
    let Some((line, rest)) = text.split_once('\n') else { return Ok(text) };
    let Some(format) = line.strip_prefix(LINE) else { return Ok(text) };
    if (2..=newest).any(|known| format == known.to_string()) {
        return Ok(rest);
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "the file {file} has format {format:?}, and this version knows none above {newest}; run the version that wrote \
             it, or a newer one"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a file of a later version that is read as one of this, and one of the first version that is not read.
    #[test]
    fn a_version_is_told_from_none_and_from_a_later_one() {
        assert_eq!(without_format("F", 2, "a\nb\n").expect("the first version"), "a\nb\n");
        assert_eq!(without_format("F", 2, &with_format(2, "a\nb\n")).expect("this version"), "a\nb\n");
        assert_eq!(without_format("F", 2, "").expect("nothing"), "");
        for other in ["format 3\na\n", "format 1\na\n", "format 02\na\n", "format x\na\n", "format \n"] {
            let why = without_format("F", 2, other).expect_err(other).to_string();
            assert!(why.contains("the file F has format") && why.contains("run the version"), "{why}");
        }
    }
}
