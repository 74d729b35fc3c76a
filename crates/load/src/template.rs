//! Arguments with random fields.
//!
//! A template is JSON. It is taken apart once; each call then only puts pieces together. In its
//! strings, `$int(a,b)`, `$distinct(a,b)`, `$text(n)`, `$client` and `$sequence` are replaced;
//! a string that is nothing but one of them (other than `$text`) becomes a number.

use std::fmt::Write as _;

use serde_json::Value;

use crate::Dice;

/// The longest `$text`: a value of the state.
const TEXT_MAX: u64 = 1 << 20;

/// Arguments to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Field(Field),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Int { low: u64, high: u64 },
    Distinct { low: u64, high: u64 },
    Text(u64),
    Client,
    Sequence,
}

/// Whose call it is.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// The number of the client, from 0.
    pub client: u64,
    /// The number of the call of this client, from 0.
    pub sequence: u64,
}

impl Template {
    /// Takes a template apart.
    ///
    /// # Errors
    /// A sentence: not JSON, an unknown field, a range without numbers.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
        let mut template = Self(Vec::new());
        template.add(&value)?;
        template.has_numbers_left()?;
        Ok(template)
    }

    /// The widest range of numbers that is drawn from; 0 when none is.
    #[must_use]
    pub fn widest(&self) -> u64 {
        let width = |piece: &Piece| match piece {
            Piece::Field(Field::Int { low, high } | Field::Distinct { low, high }) => high - low + 1,
            Piece::Field(Field::Text(_) | Field::Client | Field::Sequence) | Piece::Literal(_) => 0,
        };
        self.0.iter().map(width).max().unwrap_or(0)
    }

    /// Writes the arguments of one call.
    pub fn render(&self, turn: Turn, dice: &mut Dice, out: &mut String) {
        let mut drawn: Vec<u64> = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Field(Field::Text(length)) => {
                    out.extend(
                        (0..*length).map(|_| char::from(b'a' + u8::try_from(dice.evenly_below(26)).unwrap_or(0))),
                    );
                }
                Piece::Field(field) => {
                    let number = match *field {
                        Field::Int { low, high } => low + dice.below(high - low + 1),
                        Field::Distinct { low, high } => dice.distinct(low, high, &drawn),
                        Field::Text(_) | Field::Client => turn.client,
                        Field::Sequence => turn.sequence,
                    };
                    if matches!(field, Field::Int { .. } | Field::Distinct { .. }) {
                        drawn.push(number);
                    }
                    let _ = write!(out, "{number}");
                }
            }
        }
    }

    fn add(&mut self, value: &Value) -> Result<(), String> {
        match value {
            Value::Object(fields) => {
                for (index, (name, field)) in fields.iter().enumerate() {
                    self.literal(if index == 0 { "{" } else { "," });
                    self.string(name)?;
                    self.literal(":");
                    self.add(field)?;
                }
                self.literal(if fields.is_empty() { "{}" } else { "}" });
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.literal(if index == 0 { "[" } else { "," });
                    self.add(item)?;
                }
                self.literal(if items.is_empty() { "[]" } else { "]" });
            }
            Value::String(text) => match text.strip_prefix('$').map(field_after_sign).transpose()? {
                Some((field, "")) if !matches!(field, Field::Text(_)) => self.0.push(Piece::Field(field)),
                Some(_) | None => self.string(text)?,
            },
            Value::Null | Value::Bool(_) | Value::Number(_) => self.literal(&value.to_string()),
        }
        Ok(())
    }

    fn string(&mut self, mut text: &str) -> Result<(), String> {
        self.literal("\"");
        while let Some((before, after)) = text.split_once('$') {
            self.escaped(before);
            let (field, rest) = field_after_sign(after)?;
            self.0.push(Piece::Field(field));
            text = rest;
        }
        self.escaped(text);
        self.literal("\"");
        Ok(())
    }

    fn escaped(&mut self, text: &str) {
        let quoted = Value::from(text).to_string();
        self.literal(&quoted[1..quoted.len() - 1]);
    }

    fn literal(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Piece::Literal(last)) => last.push_str(text),
            Some(Piece::Field(_)) | None => self.0.push(Piece::Literal(text.to_owned())),
        }
    }

    /// A `$distinct` must find a number whatever was drawn before it.
    fn has_numbers_left(&self) -> Result<(), String> {
        let mut draws = 0;
        for piece in &self.0 {
            if let Piece::Field(Field::Int { low, high } | Field::Distinct { low, high }) = piece {
                if matches!(piece, Piece::Field(Field::Distinct { .. })) && high - low < draws {
                    return Err(format!("$distinct({low},{high}) has too few numbers to differ from {draws} others"));
                }
                draws += 1;
            }
        }
        Ok(())
    }
}

/// The field whose name follows a `$`, and the rest of the text.
fn field_after_sign(text: &str) -> Result<(Field, &str), String> {
    let end = text.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    match name {
        "client" => return Ok((Field::Client, rest)),
        "sequence" => return Ok((Field::Sequence, rest)),
        _ => {}
    }
    let wrong = || format!("${text}: known are $int(a,b), $distinct(a,b), $text(n), $client and $sequence");
    let (numbers, rest) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')).ok_or_else(wrong)?;
    let numbers: Option<Vec<u64>> = numbers.split(',').map(|number| number.trim().parse().ok()).collect();
    let field = match (name, numbers.as_deref()) {
        ("int", Some(&[low, high])) if low <= high && high < u64::MAX => Field::Int { low, high },
        ("distinct", Some(&[low, high])) if low <= high && high < u64::MAX => Field::Distinct { low, high },
        ("text", Some(&[length])) if length <= TEXT_MAX => Field::Text(length),
        _ => return Err(wrong()),
    };
    Ok((field, rest))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::rc::Rc;

    use super::*;
    use crate::Law;

    fn dice(seed: u64, client: u64) -> Dice {
        Dice::new(seed, client, Rc::new(Law::Even))
    }

    fn render(template: &Template, sequence: u64, dice: &mut Dice) -> Value {
        let mut out = String::new();
        template.render(Turn { client: 7, sequence }, dice, &mut out);
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{out}: {error}"))
    }

    /// Catches transfers from a warehouse to itself, which the function refuses, and numbers
    /// outside of the range or never drawn.
    #[test]
    fn distinct_differs_and_every_number_comes_up() {
        let text = r#"{"from": "w$int(0,3)", "to": "w$distinct(0,3)", "amount": 1}"#;
        let template = Template::parse(text).expect("a template");
        let mut dice = dice(1, 0);
        let mut pairs = BTreeSet::new();
        for sequence in 0..500 {
            let arguments = render(&template, sequence, &mut dice);
            let name = |field: &str| arguments[field].as_str().expect("a string").to_owned();
            assert_ne!(name("from"), name("to"));
            assert_eq!(arguments["amount"], 1);
            pairs.insert((name("from"), name("to")));
        }
        assert_eq!(pairs.len(), 12, "all ordered pairs of four: {pairs:?}");
    }

    /// Catches a lone field that stays text, a literal that loses its escapes, and `$distinct`
    /// on a range that is just wide enough.
    #[test]
    fn a_lone_field_is_a_number_and_the_rest_stays_as_it_was() {
        let text = r#"["$client", "$sequence", "$int(5,5)", "$distinct(5,6)", "a\"\n$sequence-$client", {}, [], null, 1.5, {"k$client": true}]"#;
        let template = Template::parse(text).expect("a template");
        let rendered = render(&template, 9, &mut dice(3, 4));
        let expected: Value =
            serde_json::from_str(r#"[7, 9, 5, 6, "a\"\n9-7", {}, [], null, 1.5, {"k7": true}]"#).expect("JSON");
        assert_eq!(rendered, expected);
        let letters = Template::parse(r#""$text(256)""#).expect("a template");
        let letters = render(&letters, 0, &mut dice(1, 1));
        assert_eq!(letters.as_str().map(str::len), Some(256));
    }

    /// Catches a run that is not repeatable, and clients that all draw the same.
    #[test]
    fn a_seed_determines_the_arguments_of_a_client() {
        let template = Template::parse(r#""$int(0,1000000000)""#).expect("a template");
        let first = |seed, client| render(&template, 0, &mut dice(seed, client));
        assert_eq!(first(1, 5), first(1, 5));
        assert_ne!(first(1, 5), first(1, 6));
        assert_ne!(first(1, 5), first(2, 5));
    }

    /// Catches a typing error that would be measured as literal text.
    #[test]
    fn mistakes_are_named() {
        for (text, says) in [
            ("{", "not JSON"),
            (r#""$it(0,1)""#, "known are"),
            (r#""x$""#, "known are"),
            (r#""$int(5,4)""#, "known are"),
            (r#""$int(0,18446744073709551615)""#, "known are"),
            (r#""$int(0""#, "known are"),
            (r#"["$int(1,2)", "$int(1,2)", "$distinct(1,2)"]"#, "too few numbers"),
        ] {
            let error = Template::parse(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
