use super::*;
use crate::run::Execution;
use crate::testing::{MapState, key, put as put_effect};

const PUT: &str = "kv.put";
const DELETE: &str = "kv.delete";
const SET: &str = "kv.compare_and_set";
const INCREMENT: &str = "kv.increment";

/// A state with `a` at version 1 and `b` at version 2.
fn two_keys() -> MapState {
    MapState::new(&[("a", "1"), ("b", "2")])
}

/// A16: catches values that are not stored as the caller wrote them: long numbers that lose
/// digits, strings that are changed, white space that is kept, `null` that is taken for absent.
#[test]
fn put_stores_the_text_of_the_value() {
    for (value, stored) in [
        ("1", "1"),
        ("null", "null"),
        ("false", "false"),
        (r#""text with  two blanks""#, r#""text with  two blanks""#),
        (r#""\u00e9\n\"\\""#, r#""\u00e9\n\"\\""#),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("0.10000000000000000000000001", "0.10000000000000000000000001"),
        ("1e400", "1e400"),
        ("1.0", "1.0"),
        ("  { \"b\" : [ 1 , 2 ],\n \"a\" : \" x \" }  ", r#"{"b":[1,2],"a":" x "}"#),
    ] {
        let mut state = MapState::default();
        assert_eq!(state.call(PUT, &format!(r#"{{"key": "a", "value": {value}}}"#)).as_deref(), Ok("{}"));
        assert_eq!(state.text("a"), Some(stored));
        assert_eq!(
            state.call(SET, &format!(r#"{{"key": "a", "expected": 1, "value": {value}}}"#)).as_deref(),
            Ok("{}")
        );
        assert_eq!(state.text("a"), Some(stored));
        assert_eq!(state.applied.0, 2, "a put of the same value is a command");
    }
}

/// A16: catches bytes that do not survive the way through base64.
#[test]
fn put_stores_bytes() {
    let mut state = MapState::default();
    assert_eq!(state.call(PUT, r#"{"key": "a", "base64": "AP/+IHs="}"#).as_deref(), Ok("{}"));
    assert_eq!(state.entries[&key("a")].value.as_ref(), b"\x00\xff\xfe {");
    assert_eq!(state.call(PUT, r#"{"key": "a", "base64": ""}"#).as_deref(), Ok("{}"));
    assert_eq!(state.entries[&key("a")].value.as_ref(), b"", "an empty value is not a deletion");
    for bad in ["AP/+IHs", "A", "*", "AP_-IHs=", "AP/+IHs=\\n"] {
        state.assert_invalid(PUT, &format!(r#"{{"key": "a", "base64": "{bad}"}}"#), "argument `base64`");
    }
}

/// A16: catches wrong arguments that are guessed at, above all a precondition given as `null`
/// that would be none.
#[test]
fn wrong_arguments_are_named() {
    let state = two_keys();
    let long = "k".repeat(1025);
    for (function, arguments, says) in [
        (PUT, r#"{"key": "a"}"#, "exactly one of `value` and `base64`"),
        (PUT, r#"{"key": "a", "value": 1, "base64": ""}"#, "exactly one of `value` and `base64`"),
        (PUT, r#"{"key": "a", "value": null, "base64": ""}"#, "exactly one of `value` and `base64`"),
        (PUT, r#"{"key": "a", "base64": null}"#, "argument `base64`"),
        (PUT, r#"{"value": 1}"#, "missing field `key`"),
        (PUT, r#"{"key": "", "value": 1}"#, "argument `key`: a key must not be empty"),
        (PUT, &format!(r#"{{"key": "{long}", "value": 1}}"#), "at most 1024 bytes, this one has 1025"),
        (PUT, r#"{"key": 1, "value": 1}"#, "argument `key`"),
        (PUT, r#"{"key": "a", "value": 1, "if_match": null}"#, "argument `if_match`"),
        (PUT, r#"{"key": "a", "value": 1, "if_none_match": null}"#, "argument `if_none_match`"),
        (PUT, r#"{"key": "a", "value": 1, "if_match": 1}"#, "argument `if_match`"),
        (PUT, r#"{"key": "a", "value": 1, "if_match": [-1]}"#, "argument `if_match[0]`"),
        (PUT, r#"{"key": "a", "value": 1, "if_match": ["1"]}"#, "argument `if_match[0]`"),
        (PUT, r#"{"key": "a", "value": 1, "ifmatch": [1]}"#, "unknown field `ifmatch`"),
        (PUT, r#"{"key": "a", "value": [1}"#, "expected `,` or `]`"),
        (DELETE, r#"{}"#, "missing field `key`"),
        (DELETE, r#"{"key": ""}"#, "argument `key`"),
        (DELETE, r#"{"key": "a", "if_match": null}"#, "argument `if_match`"),
        (SET, r#"{"key": "a", "value": 1}"#, "missing field `expected`"),
        (SET, r#"{"key": "a", "expected": null, "value": 1}"#, "argument `expected`"),
        (SET, r#"{"key": "a", "expected": -1, "value": 1}"#, "argument `expected`"),
        (SET, r#"{"key": "a", "expected": 1}"#, "missing field `value`"),
        (INCREMENT, r#"{"key": "a", "by": 1.5}"#, "argument `by`"),
        (INCREMENT, r#"{"key": "a", "by": "1"}"#, "argument `by`"),
        (INCREMENT, r#"{"key": "a", "by": null}"#, "argument `by`"),
        (INCREMENT, r#"{"key": "a", "by": 9223372036854775808}"#, "argument `by`"),
    ] {
        state.assert_invalid(function, arguments, says);
    }
}

/// Catches a value above 1 MiB that becomes a command, and one of exactly 1 MiB that does not.
#[test]
fn values_are_limited() {
    let mut state = MapState::default();
    let text = |length: usize| format!(r#"{{"key": "a", "value": "{}"}}"#, "x".repeat(length - 2));
    assert!(state.call(PUT, &text(1 << 20)).is_ok());
    assert!(matches!(state.call(PUT, &text((1 << 20) + 1)), Err(Failure::TooLarge(_))));
    let bytes = |length: usize| format!(r#"{{"key": "a", "base64": "{}"}}"#, STANDARD.encode(vec![0; length]));
    assert!(state.call(PUT, &bytes(1 << 20)).is_ok());
    assert!(matches!(state.call(PUT, &bytes((1 << 20) + 1)), Err(Failure::TooLarge(_))));
}

/// Catches HTTP preconditions that let a put or delete through that they forbid, or forbid one
/// that they allow. A delete and a put obey the same table.
#[test]
fn preconditions_follow_http() {
    let state = two_keys();
    for (key, conditions, holds) in [
        ("a", r#""if_match": [1]"#, true),
        ("a", r#""if_match": [7, 1]"#, true),
        ("a", r#""if_match": [2]"#, false),
        ("a", r#""if_match": [0]"#, false),
        ("a", r#""if_match": []"#, true),
        ("a", r#""if_none_match": []"#, false),
        ("a", r#""if_none_match": [1]"#, false),
        ("a", r#""if_none_match": [2]"#, true),
        ("a", r#""if_match": [1], "if_none_match": [2]"#, true),
        ("a", r#""if_match": [1], "if_none_match": [1]"#, false),
        ("absent", r#""if_match": []"#, false),
        ("absent", r#""if_match": [1]"#, false),
        ("absent", r#""if_match": [0]"#, false),
        ("absent", r#""if_none_match": []"#, true),
        ("absent", r#""if_none_match": [1]"#, true),
        ("absent", r#""if_none_match": [0]"#, true),
    ] {
        let put = format!(r#"{{"key": "{key}", "value": 9, {conditions}}}"#);
        let delete = format!(r#"{{"key": "{key}", {conditions}}}"#);
        if holds {
            assert_eq!(state.execute(PUT, &put).effects, [put_effect(key, "9")], "{put}");
            let deleted = format!(r#"{{"deleted":{}}}"#, key == "a");
            assert_eq!(state.execute(DELETE, &delete).result, Ok(deleted.into()), "{delete}");
        } else {
            state.assert_refuses(PUT, &put, "precondition_failed", false);
            state.assert_refuses(DELETE, &delete, "precondition_failed", false);
            let said = format!("{:?}", state.execute(DELETE, &delete).result);
            assert!(said.contains("which If-"), "callers of REST gave a header: {said}");
        }
    }
}

/// S-10: catches a condition that is not part of the reads, so that a stale decision would be
/// certified; and a plain put that depends on something.
#[test]
fn conditions_are_reads_and_plain_puts_are_not() {
    let state = two_keys();
    let touched = |execution: &Execution| execution.reads.touched_by(&key("a"));
    assert!(!touched(&state.execute(PUT, r#"{"key": "a", "value": 1}"#)));
    for (function, arguments) in [
        (PUT, r#"{"key": "a", "value": 1, "if_match": [1]}"#),
        (PUT, r#"{"key": "a", "value": 1, "if_none_match": []}"#),
        (DELETE, r#"{"key": "a"}"#),
        (SET, r#"{"key": "a", "expected": 1, "value": 1}"#),
        (SET, r#"{"key": "a", "expected": 9, "value": 1}"#),
        (INCREMENT, r#"{"key": "a"}"#),
    ] {
        assert!(touched(&state.execute(function, arguments)), "{function} {arguments}");
    }
}

/// A16: catches a delete of an absent key that becomes a command, or says that it deleted.
#[test]
fn delete_says_whether_the_key_was_there() {
    let mut state = two_keys();
    assert_eq!(state.call(DELETE, r#"{"key": "a"}"#).as_deref(), Ok(r#"{"deleted":true}"#));
    assert_eq!(state.text("a"), None);
    assert_eq!(state.call(DELETE, r#"{"key": "a"}"#).as_deref(), Ok(r#"{"deleted":false}"#));
    assert_eq!(state.applied.0, 3, "the second delete is no command");
}

/// A16: catches a compare-and-set that writes over a version that the caller has not seen.
#[test]
fn compare_and_set_compares_versions() {
    let mut state = two_keys();
    state.assert_refuses(SET, r#"{"key": "a", "expected": 2, "value": 9}"#, "version_mismatch", false);
    state.assert_refuses(SET, r#"{"key": "a", "expected": 0, "value": 9}"#, "version_mismatch", false);
    state.assert_refuses(SET, r#"{"key": "absent", "expected": 1, "value": 9}"#, "version_mismatch", false);
    assert_eq!(state.call(SET, r#"{"key": "a", "expected": 1, "value": 9}"#).as_deref(), Ok("{}"));
    assert_eq!(state.text("a"), Some("9"));
    state.assert_refuses(SET, r#"{"key": "a", "expected": 1, "value": 10}"#, "version_mismatch", false);
    assert_eq!(state.call(SET, r#"{"key": "c", "expected": 0, "value": 9}"#).as_deref(), Ok("{}"));
    state.assert_refuses(SET, r#"{"key": "c", "expected": 0, "value": 9}"#, "version_mismatch", false);
}

/// A16: catches integers that wrap, lose digits, or start from something that is no integer.
#[test]
fn increment_adds_to_integers_only() {
    let mut state = MapState::default();
    for (by, value) in [
        (r#""by": 5"#, 5),
        (r#""by": -7"#, -2),
        (r#""by": 0"#, -2),
        (r#""by": -9223372036854775806"#, i64::MIN),
        (r#""by": 9223372036854775807"#, -1),
    ] {
        let arguments = format!(r#"{{"key": "n", {by}}}"#);
        assert_eq!(state.call(INCREMENT, &arguments), Ok(format!(r#"{{"value":{value}}}"#)));
        assert_eq!(state.text("n"), Some(value.to_string().as_str()));
    }
    assert_eq!(state.call(INCREMENT, r#"{"key": "n"}"#).as_deref(), Ok(r#"{"value":0}"#), "by 1 if nothing is said");
    assert_eq!(state.applied.0, 6, "adding 0 is a command too");

    for (value, by) in [(i64::MAX, 1), (i64::MIN, -1), (i64::MAX, i64::MAX), (i64::MIN, i64::MIN)] {
        let state = MapState::new(&[("n", &value.to_string())]);
        state.assert_refuses(INCREMENT, &format!(r#"{{"key": "n", "by": {by}}}"#), "overflow", false);
    }
    for value in ["", "x", "1.5", "1.0", "1e3", "\"1\"", "null", "[1]", "+1", "01", "9223372036854775808", "\u{0}"] {
        MapState::new(&[("n", value)]).assert_refuses(INCREMENT, r#"{"key": "n"}"#, "not_a_number", false);
    }
}
