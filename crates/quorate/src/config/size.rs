//! Numbers of bytes as people write and read them.

const UNITS: [(&str, u32); 6] = [("B", 0), ("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("PiB", 50)];

/// A whole number and its unit, such as `512MiB`.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|letter: char| !letter.is_ascii_digit())?);
    let (_, bits) = UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(1 << bits)
}

/// About so much, such as `1.2 GiB`.
pub(crate) fn text(bytes: u64) -> String {
    let (unit, bits) = UNITS.iter().rev().find(|(_, bits)| bytes >> bits > 0).unwrap_or(&UNITS[0]);
    if *bits == 0 {
        return format!("{bytes} B");
    }
    // One digit is enough, and rounding down never says that there is more than there is.
    let tenths = (bytes >> (bits - 10)) * 10 / 1024;
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a mark that is read as another one, a thousand for 1,024, and one that overflows.
    #[test]
    fn sizes_are_read_exactly() {
        for (written, size) in [("0B", 0), ("7B", 7), ("512MiB", 512 << 20), ("1 GiB", 1 << 30), ("2TiB", 2 << 40)] {
            assert_eq!(parse(written), Some(size), "{written}");
        }
        for wrong in ["", "5", "MiB", "-1B", "1.5GiB", "1GB", "1gib", "1 000B", "16384PiB", "99999999999999999999B"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    /// Catches a text that says more than there is.
    #[test]
    fn sizes_are_told_in_the_largest_unit_that_fits() {
        for (size, told) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (2047, "1.9 KiB"), (u64::MAX, "16383.9 PiB")]
        {
            assert_eq!(text(size), told);
        }
    }
}
