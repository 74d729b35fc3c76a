//! JSON text that is passed on as it came, and its fingerprint.

use std::fmt;

use protocol::Fingerprint;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// JSON of a depth that every reader takes (serde_json's limit, 128), looked at and dropped.
/// `IgnoredAny` would take any depth, and the next reader would refuse it.
struct Checked;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CheckedVisitor)
    }
}

struct CheckedVisitor;

impl<'de> Visitor<'de> for CheckedVisitor {
    type Value = Checked;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_str<E>(self, _: &str) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Checked, A::Error> {
        while items.next_element::<Checked>()?.is_some() {}
        Ok(Checked)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Checked, A::Error> {
        // The key is a string: its depth is none, and its escapes are checked.
        while fields.next_key::<Name>()?.is_some() {
            fields.next_value::<Checked>()?;
        }
        Ok(Checked)
    }
}

/// The name of a field, looked at and dropped.
struct Name;

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameVisitor)
    }
}

struct NameVisitor;

impl Visitor<'_> for NameVisitor {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Name, E> {
        if name == KEPT_TEXT { Err(E::custom("a field may not have this name")) } else { Ok(Name) }
    }
}

/// By an object with a field of this name serde_json means the JSON text in that field: a reader of
/// values would find something else than was written, or nothing that it can read.
const KEPT_TEXT: &str = "$serde_json::private::RawValue";

/// Whether the bytes are one JSON text; the error says where they are not.
pub(crate) fn check(bytes: &[u8]) -> Result<(), serde_json::Error> {
    serde_json::from_slice::<Checked>(bytes).map(|Checked| ())
}

/// What a request id stands for: the function and its arguments, whatever the order of fields
/// and the white space; the first half of a BLAKE3 digest.
pub(crate) fn fingerprint(function: &str, arguments: &[u8]) -> Result<Fingerprint, serde_json::Error> {
    let mut canonical = Vec::with_capacity(arguments.len());
    write_canonical(&serde_json::from_slice(arguments)?, &mut canonical);
    Ok(digest(function, &canonical))
}

/// The same of the bytes as they are, for a call whose id nobody can use again.
pub(crate) fn fingerprint_of_bytes(function: &str, arguments: &[u8]) -> Fingerprint {
    digest(function, arguments)
}

fn digest(function: &str, arguments: &[u8]) -> Fingerprint {
    let mut hasher = blake3::Hasher::new();
    hasher.update(function.as_bytes()).update(&[0]).update(arguments);
    let mut half = [0; 16];
    half.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    Fingerprint(half)
}

/// Writes a value with its fields in order. Not left to `serde_json`, whose order depends on a
/// feature that any crate of the build may turn on: a fingerprint must not change with it.
fn write_canonical(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => write_text(value, out),
        Value::Array(items) => {
            out.push(b'[');
            for item in items {
                write_canonical(item, out);
                out.push(b',');
            }
            out.push(b']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|&(name, _)| name);
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

fn write_text(value: &impl serde::Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("a JSON value is JSON");
}

/// A value of the state as JSON: itself when it is JSON text, else its bytes in base64.
pub(crate) fn value_text(value: &[u8]) -> String {
    use base64::Engine as _;
    match std::str::from_utf8(value) {
        Ok(text) if check(value).is_ok() => text.to_owned(),
        Ok(_) | Err(_) => {
            format!("{{\"base64\":\"{}\"}}", base64::engine::general_purpose::STANDARD.encode(value))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S-23: catches a retried call that is taken for another one because its sender orders
    /// fields or spaces differently, and another call that is taken for the same one.
    #[test]
    fn a_fingerprint_is_of_what_is_asked_not_of_how_it_is_written() {
        let of = |function: &str, arguments: &str| fingerprint(function, arguments.as_bytes()).expect("JSON");
        let one = of("f", r#"{"a": 1, "b": {"d": [1, 2], "c": "é"}}"#);
        assert_eq!(one, of("f", r#"{"b":{"c":"\u00e9","d":[1,2]},"a":1}"#));
        let number = of("f", "1844046744073709551615368547758.08e2");
        assert_eq!(number, of("f", "184404674407370955161536854775808"), "a number that is read as another one");
        assert_eq!(number, of("f", "1.8440467440737094e32"), "a number that is read as another one");
        for (function, other) in [
            ("g", r#"{"a": 1, "b": {"d": [1, 2], "c": "é"}}"#),
            ("f", r#"{"a": 1, "b": {"d": [2, 1], "c": "é"}}"#),
            ("f", r#"{"a": "1", "b": {"d": [1, 2], "c": "é"}}"#),
            ("f", r#"{"a": 1, "b": {"d": [[1, 2]], "c": "é"}}"#),
        ] {
            assert_ne!(one, of(function, other), "{function} {other}");
        }
    }

    /// Catches a stack overflow, and text that a later reader would refuse.
    #[test]
    fn text_is_checked_as_strictly_as_it_will_be_read() {
        for good in ["{}", " [1, 2.5e3, null, true, \"x\\n\"] ", "{\"a\":{\"b\":[]}}", "-1", "\"\\ud83d\\ude00\""] {
            assert!(check(good.as_bytes()).is_ok(), "{good}");
        }
        let deep = "[".repeat(100_000);
        let kept = |text: &str| format!("{{\"{KEPT_TEXT}\":{text}}}");
        for bad in [&kept("5"), &kept("\"[1]\""), &kept("\"[1]\"").replace('$', "\\u0024")] {
            assert!(check(bad.as_bytes()).is_err(), "{bad}");
        }
        for bad in ["", "{", "{} {}", "{'a':1}", "nul", "[1,]", "1e999", "\"\\ud800\"", "{1:2}", &deep] {
            assert!(check(bad.as_bytes()).is_err(), "{}", &bad[..bad.len().min(20)]);
        }
        assert!(check(b"\"\xff\"").is_err());
        for depth in [120, 127, 128, 129, 200] {
            let text = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            let read = serde_json::from_str::<Value>(&text);
            assert_eq!(check(text.as_bytes()).is_ok(), read.is_ok(), "depth {depth}");
        }
    }
}
