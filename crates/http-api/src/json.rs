//! JSON text that is passed on as it came.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

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
    use serde_json::Value;

    use super::*;

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
