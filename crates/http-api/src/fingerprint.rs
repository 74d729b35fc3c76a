//! What an idempotency key stands for: a digest of the function and its arguments.
//!
//! Two spellings of one body have one fingerprint: the order of fields, the white space and the
//! escapes do not count. All else counts as it is written, because a function may store it as
//! written: `1.0` is not `1`, long numbers differ in their last digit, and fields of one name
//! are all there, in their order. Read as numbers and maps, two calls with different effects
//! would be taken for one, and the second never executed.

use std::borrow::Cow;

use protocol::Fingerprint;
use serde::de::Error as _;

use crate::json;

/// The fingerprint of a call: the first half of a BLAKE3 digest.
///
/// # Errors
/// Where the arguments are not JSON.
pub(crate) fn of(function: &str, arguments: &[u8]) -> Result<Fingerprint, serde_json::Error> {
    json::check(arguments)?;
    let text = std::str::from_utf8(arguments).map_err(serde_json::Error::custom)?;
    let mut scanner = Scanner { rest: text };
    let first = scanner.token();
    let mut canonical = Vec::with_capacity(arguments.len());
    write_canonical(&scanner.node(first), &mut canonical);
    Ok(digest(function, &canonical))
}

/// The same of the bytes as they are, for a call whose id nobody can use again.
pub(crate) fn of_bytes(function: &str, arguments: &[u8]) -> Fingerprint {
    digest(function, arguments)
}

fn digest(function: &str, arguments: &[u8]) -> Fingerprint {
    let mut hasher = blake3::Hasher::new();
    hasher.update(function.as_bytes()).update(&[0]).update(arguments);
    let mut half = [0; 16];
    half.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    Fingerprint(half)
}

/// JSON with its numbers as they are written.
enum Node<'a> {
    /// A number, `true`, `false` or `null`.
    Plain(&'a str),
    /// A string, without its escapes.
    Text(Cow<'a, str>),
    Array(Vec<Node<'a>>),
    /// In the order of the text; a name may be there more than once.
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
}

/// Reads a text that was checked: it is JSON, and no deeper than the stack bears.
struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    /// A bracket, a string with its quotes, or a plain word. Commas and colons say nothing that
    /// the other tokens do not. Empty at the end.
    fn token(&mut self) -> &'a str {
        let text = self.rest.trim_start_matches([' ', '\t', '\n', '\r', ',', ':']);
        let length = match text.as_bytes().first() {
            Some(b'{' | b'}' | b'[' | b']') => 1,
            Some(b'"') => string_length(text),
            Some(_) | None => text.find([' ', '\t', '\n', '\r', ',', ']', '}']).unwrap_or(text.len()),
        };
        let (token, rest) = text.split_at(length);
        self.rest = rest;
        token
    }

    /// What begins with this token.
    fn node(&mut self, token: &'a str) -> Node<'a> {
        match token.as_bytes().first() {
            Some(b'{') => {
                let mut fields = Vec::new();
                loop {
                    let name = self.token();
                    if matches!(name, "}" | "") {
                        return Node::Object(fields);
                    }
                    let value = self.token();
                    fields.push((unescaped(name), self.node(value)));
                }
            }
            Some(b'[') => {
                let mut items = Vec::new();
                loop {
                    let item = self.token();
                    if matches!(item, "]" | "") {
                        return Node::Array(items);
                    }
                    items.push(self.node(item));
                }
            }
            Some(b'"') => Node::Text(unescaped(token)),
            Some(_) | None => Node::Plain(token),
        }
    }
}

/// The bytes of the string that the text begins with, quotes included.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |end| end + 2)
}

/// A string without quotes and escapes.
fn unescaped(token: &str) -> Cow<'_, str> {
    match token.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) if !inner.contains('\\') => Cow::Borrowed(inner),
        Some(_) | None => Cow::Owned(serde_json::from_str(token).expect("the text was checked")),
    }
}

/// Writes a value with its fields in order. Stored fingerprints depend on every byte of it.
fn write_canonical(node: &Node<'_>, out: &mut Vec<u8>) {
    match node {
        Node::Plain(word) => out.extend_from_slice(word.as_bytes()),
        Node::Text(text) => write_text(text, out),
        Node::Array(items) => {
            out.push(b'[');
            for item in items {
                write_canonical(item, out);
                out.push(b',');
            }
            out.push(b']');
        }
        Node::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            // Stable: fields of one name stay in their order.
            fields.sort_by_key(|(name, _)| name);
            out.push(b'{');
            for (name, field) in fields {
                write_text(name, out);
                out.push(b':');
                write_canonical(field, out);
                out.push(b',');
            }
            out.push(b'}');
        }
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a text is JSON");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn print(arguments: &str) -> Fingerprint {
        of("f", arguments.as_bytes()).unwrap_or_else(|error| panic!("{error}: {arguments}"))
    }

    /// S-23: catches a retried call that is taken for another one because its sender orders
    /// fields or spaces differently, and another call that is taken for the same one.
    #[test]
    fn it_is_of_what_is_asked_not_of_how_it_is_written() {
        let one = r#"{"a": 1, "b": {"d": [1, 2], "c": "é"}}"#;
        assert_eq!(print(one), print(r#"{"b":{"c":"\u00e9","d":[1,2]},"a":1}"#));
        assert_ne!(print(one), of("g", one.as_bytes()).expect("JSON"));
        for other in [
            r#"{"a": 1, "b": {"d": [2, 1], "c": "é"}}"#,
            r#"{"a": "1", "b": {"d": [1, 2], "c": "é"}}"#,
            r#"{"a": 1, "b": {"d": [[1, 2]], "c": "é"}}"#,
            r#"{"a": 1, "b": {"d": [1, 2, {}], "c": "é"}}"#,
            r#"{"a": 1, "b": {"d": [1, 2]}, "c": "é"}"#,
        ] {
            assert_ne!(print(one), print(other), "{other}");
        }
        assert!(of("f", b"{").is_err() && of("f", b"\"\xff\"").is_err());
    }

    /// S-23: catches a value that differs from the one under the same key, gets that one's
    /// answer, and is never written: numbers beyond a double, and fields that are there twice.
    #[test]
    fn what_is_stored_as_written_counts_as_written() {
        for (one, other) in [
            ("12345678901234567890123", "12345678901234567890124"),
            ("0.1", "0.1000000000000000055511151231257827"),
            ("1", "1.0"),
            ("-0", "0"),
            ("1e2", "100"),
            (r#"{"x":1,"x":2}"#, r#"{"x":3,"x":2}"#),
            (r#"{"x":1,"x":2}"#, r#"{"x":2,"x":1}"#),
            (r#"{"x":1,"x":2}"#, r#"{"x":2}"#),
        ] {
            assert_ne!(print(one), print(other), "{one} and {other}");
        }
        assert_eq!(print(r#"{"x":1,"a":0,"x":2}"#), print(r#"{"x":1,"\u0078":2,"a":0}"#));
    }

    /// Catches another canonical form: a call whose answer an earlier version stored would be
    /// refused when it is sent again.
    #[test]
    fn stored_fingerprints_stay() {
        let arguments = r#"{"warehouse": "A", "amount": 500, "note": ["\"é\"\n", 2.5, true, null, {}]}"#;
        let Fingerprint(half) = of("inventory.inbound", arguments.as_bytes()).expect("JSON");
        assert_eq!(u128::from_be_bytes(half), STORED, "{:#034x}", u128::from_be_bytes(half));
    }

    const STORED: u128 = 0x178c_9cca_7f52_77b0_178d_6cbf_7090_fcd5;

    /// JSON as it is meant.
    #[derive(Clone, Debug, PartialEq)]
    enum Meant {
        Plain(String),
        Text(String),
        Array(Vec<Meant>),
        Object(BTreeMap<String, Meant>),
    }

    fn meant() -> impl Strategy<Value = Meant> {
        let number = "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,2})?";
        let leaf = prop_oneof![
            "true|false|null|0|1".prop_map(Meant::Plain),
            number.prop_map(Meant::Plain),
            "[ab\"\\\\,:\\[\\]{}é\u{1f600}\n ]{0,4}".prop_map(Meant::Text),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Meant::Array),
                prop::collection::btree_map("[ab\"\\\\{}é]{0,2}", inner, 0..3).prop_map(Meant::Object),
            ]
        })
    }

    /// One way to write it; `choices` decide on blanks, escapes and the order of fields.
    fn spell(meant: &Meant, choices: &mut impl Iterator<Item = u8>, out: &mut String) {
        let blank = |choice: Option<u8>| [" ", "\n\t", "", "\r "][usize::from(choice.unwrap_or(0) % 4)];
        out.push_str(blank(choices.next()));
        match meant {
            Meant::Plain(word) => out.push_str(word),
            Meant::Text(text) => spell_text(text, choices, out),
            Meant::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    spell(item, choices, out);
                }
                out.push(']');
            }
            Meant::Object(fields) => {
                let mut fields: Vec<_> = fields.iter().collect();
                let turn = usize::from(choices.next().unwrap_or(0)) % fields.len().max(1);
                fields.rotate_left(turn);
                out.push('{');
                for (index, (name, field)) in fields.into_iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    out.push_str(blank(choices.next()));
                    spell_text(name, choices, out);
                    out.push_str(blank(choices.next()));
                    out.push(':');
                    spell(field, choices, out);
                }
                out.push('}');
            }
        }
        out.push_str(blank(choices.next()));
    }

    fn spell_text(text: &str, choices: &mut impl Iterator<Item = u8>, out: &mut String) {
        out.push('"');
        for letter in text.chars() {
            if choices.next().unwrap_or(0).is_multiple_of(2) || letter.is_control() {
                letter.encode_utf16(&mut [0; 2]).iter().for_each(|unit| write!(out, "\\u{unit:04x}").expect("text"));
            } else {
                out.push_str(if matches!(letter, '"' | '\\') { "\\" } else { "" });
                out.push(letter);
            }
        }
        out.push('"');
    }

    proptest! {
        /// S-23: catches a spelling that makes another call of one body, and a body that is
        /// taken for another one.
        #[test]
        fn spellings_do_not_count_and_meanings_do(
            one in meant(), other in meant(), choices in prop::collection::vec(any::<u8>(), 1..40),
        ) {
            let spelt = |meant: &Meant, choices: &[u8]| {
                let mut text = String::new();
                spell(meant, &mut choices.iter().copied().cycle(), &mut text);
                text
            };
            let (plain, strange) = (spelt(&one, &[3]), spelt(&one, &choices));
            prop_assert_eq!(print(&plain), print(&strange), "{} and {}", plain, strange);
            let another = spelt(&other, &choices);
            prop_assert_eq!(print(&plain) == print(&another), one == other, "{} and {}", plain, another);
        }
    }
}
