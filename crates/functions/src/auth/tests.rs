use protocol::CommandNumber;
use serde_json::{Value, json};

use super::*;
use crate::testing::{MapState, key};

const ID: &str = "00ff00ff00ff00ff";

fn arguments(id: &str, name: &str) -> Value {
    json!({"id": id, "name": name, "hash": "ab".repeat(32), "read": true, "call": ["kv.*"], "expires_in": 60})
}

fn with(changes: &Value) -> String {
    let mut arguments = arguments(ID, "ci");
    for (field, value) in changes.as_object().expect("fields") {
        arguments[field] = value.clone();
    }
    arguments.to_string()
}

/// Catches a token that is stored otherwise than it was asked for, and one that cannot be revoked, by id or by name.
#[test]
fn a_token_comes_and_goes() {
    let mut state = MapState::default();
    for revoked in [ID, "ci"] {
        let created = state.call("auth.token_create", &arguments(ID, "ci").to_string()).expect("nothing is in the way");
        assert_eq!(created, format!("{{\"expires\":60001,\"id\":\"{ID}\"}}"));
        let entry = &state.entries[&key("quorate/token/00ff00ff00ff00ff")];
        let token = Token::read(entry).expect("a token");
        assert_eq!((token.name.as_str(), token.hash, token.created), ("ci", [0xab; 32], Timestamp(1)));
        assert_eq!(token.expires, Some(Timestamp(60_001)));
        assert_eq!(token.rights, Rights { read: true, call: vec!["kv.*".into()], ..Rights::default() });
        let text = state.call("auth.token_revoke", &json!({"token": revoked}).to_string()).expect("it is there");
        assert_eq!(text, format!("{{\"id\":\"{ID}\",\"name\":\"ci\"}}"));
        assert_eq!(state.entries.len(), 0);
        state.assert_refuses("auth.token_revoke", &json!({"token": revoked}).to_string(), "unknown_token", false);
    }
    assert_eq!(state.applied, CommandNumber(4));
}

/// Catches a leader that stops for a token of a later version, and a token that is made although another one may have its name.
#[test]
fn a_token_of_a_later_version_stops_nobody() {
    let mut state = MapState::default();
    state.apply(&[crate::testing::put("quorate/token/0000000000000001", r#"{"format":2}"#)]);
    state.assert_refuses("auth.token_create", &arguments(ID, "ci").to_string(), "unreadable_token", false);
    state.assert_refuses("auth.token_revoke", r#"{"token": "ci"}"#, "unreadable_token", false);
}

/// Catches keys to which a token was to be confined, and is not.
#[test]
fn a_token_is_confined_as_it_was_asked_for() {
    let mut state = MapState::default();
    state.call("auth.token_create", &with(&json!({"keys": ["a/", "b"]}))).expect("nothing is in the way");
    let token = Token::read(&state.entries[&key("quorate/token/00ff00ff00ff00ff")]).expect("a token");
    assert_eq!(token.rights.keys, ["a/", "b"]);
}

/// Catches an id or a name that two tokens share, a token without end of the list, and the keys of tokens in reach of other
/// functions.
#[test]
fn tokens_are_told_apart_and_kept_from_others() {
    let mut state = MapState::default();
    state.call("auth.token_create", &arguments(ID, "ci").to_string()).expect("nothing is in the way");
    for (id, name) in [(ID, "other"), ("1111111111111111", "ci")] {
        state.assert_refuses("auth.token_create", &arguments(id, name).to_string(), "token_taken", false);
    }
    let taken = json!({"key": format!("quorate/token/{ID}"), "value": 1}).to_string();
    state.assert_refuses("kv.put", &taken, "reserved_key", false);
    state.assert_refuses(
        "kv.delete",
        &json!({"key": format!("quorate/token/{ID}")}).to_string(),
        "reserved_key",
        false,
    );
    for other in 1..TOKENS_MAX {
        let arguments = arguments(&format!("{other:016x}"), &format!("n{other}"));
        state.call("auth.token_create", &arguments.to_string()).expect("there is room");
    }
    state.assert_refuses(
        "auth.token_create",
        &arguments("ffffffffffffffff", "z").to_string(),
        "too_many_tokens",
        false,
    );
}

/// Catches a token that means nothing, or something else than was meant.
#[test]
fn what_is_wrong_is_said() {
    let state = MapState::default();
    for (changes, says) in [
        (json!({"id": "xyz"}), "id: must be 16"),
        (json!({"id": "../membership"}), "id: must be 16"),
        (json!({"hash": "ab"}), "hash: must be 64"),
        (json!({"name": "two words"}), "name: must be 1 to 64"),
        (json!({"call": ["a*b"]}), "call: must be"),
        (json!({"call": vec!["a"; 65]}), "call: must be"),
        (json!({"expires_in": 0}), "expires_in: must be"),
        (json!({"expires_in": u64::MAX}), "expires_in: must be"),
        (json!({"read": false, "call": []}), "without rights"),
        (json!({"read": false, "call": [], "keys": ["a/"]}), "without rights"),
        (json!({"keys": [""]}), "keys: must be"),
        (json!({"keys": ["a".repeat(129)]}), "keys: must be"),
        (json!({"keys": vec!["a"; 65]}), "keys: must be"),
        (json!({"keys": ["a/"], "operate": true}), "keys: operate reaches all"),
        (json!({"keys": "a/"}), "keys"),
        (json!({"secret": "s"}), "secret"),
    ] {
        state.assert_invalid("auth.token_create", &with(&changes), says);
    }
}
