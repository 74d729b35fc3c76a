//! JSON as text: what can be said of it without reading it into values.

/// The bytes of a JSON text, each with whether it belongs to a string, quotes included. For a
/// text that is not JSON the answer means nothing, and is harmless.
pub(crate) fn bytes(json: &str) -> impl Iterator<Item = (u8, bool)> {
    let (mut in_string, mut escaped) = (false, false);
    json.bytes().map(move |byte| {
        let was_in_string = in_string;
        if escaped {
            escaped = false;
        } else if byte == b'"' {
            in_string = !in_string;
        } else if byte == b'\\' {
            escaped = in_string;
        }
        (byte, was_in_string || in_string)
    })
}

/// The text without the white space between its tokens.
pub(crate) fn compact(json: &str) -> Vec<u8> {
    bytes(json).filter(|(byte, in_string)| *in_string || !byte.is_ascii_whitespace()).map(|(byte, _)| byte).collect()
}

/// How deep the arrays and objects of the text are nested.
pub(crate) fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for (byte, _) in bytes(json).filter(|(_, in_string)| !in_string) {
        if matches!(byte, b'[' | b'{') {
            depth += 1;
            deepest = deepest.max(depth);
        } else if matches!(byte, b']' | b'}') {
            depth = depth.saturating_sub(1);
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a scanner that takes an escaped quote for the end of a string, and then eats
    /// blanks or counts brackets that belong to the string.
    #[test]
    fn strings_are_left_alone() {
        for (json, compacted, deep) in [
            (" { \"a b\" : [ 1 , 2 ] } ", r#"{"a b":[1,2]}"#, 2),
            (r#"[ "a \" b" , " [[[ " ]"#, r#"["a \" b"," [[[ "]"#, 1),
            (r#"[ "\\" , [ ] ]"#, r#"["\\",[]]"#, 2),
            (r#"{ "é ü" : "{ \\\" }" }"#, r#"{"é ü":"{ \\\" }"}"#, 1),
            ("1", "1", 0),
            ("]]][", "]]][", 1),
        ] {
            assert_eq!(String::from_utf8_lossy(&compact(json)), compacted);
            assert_eq!(depth(json), deep, "{json}");
        }
    }
}
