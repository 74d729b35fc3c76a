//! Tokens: who may do what over REST (ADR 0029), and with which keys (ADR 0038).
//!
//! A token is an entry of the replicated state under a reserved key, as the membership is, so that all nodes know the same
//! ones. The entry does not hold the secret that its owner presents, only its hash; and what a node shows of it over REST
//! not even that ([`shown`]).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::state::{Entry, Key, StateError};
use crate::time::Timestamp;

/// What the keys of tokens begin with.
pub const PREFIX: &str = "quorate/token/";
/// The most tokens: each is looked at when one is made.
pub const TOKENS_MAX: usize = 1_000;
/// The most patterns of one token, and the most beginnings of keys.
pub const PATTERNS_MAX: usize = 64;
/// The longest of either, in bytes.
pub const PATTERN_BYTES_MAX: usize = 128;
/// How long an id is: 8 random bytes in hexadecimal digits.
pub const ID_LENGTH: usize = 16;
/// The form of the stored text.
const FORMAT: u32 = 1;

/// The libraries whose functions only operators call, whatever the patterns of a token say.
const OPERATORS: [&str; 2] = ["auth.", "cluster."];

/// What the owner of a token may do. Nothing is allowed that is not said here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rights {
    /// Read the state, the commands, the cluster, and metrics.
    pub read: bool,
    /// Call these functions: each a name, or a beginning followed by `*`.
    pub call: Vec<String>,
    /// Change the membership, make and revoke tokens, take backups.
    pub operate: bool,
    /// Read and call with keys only that begin so; empty: with all. Not stored when empty, so that builds from before
    /// read the tokens that are not confined.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
}

impl Rights {
    /// All of them.
    #[must_use]
    pub fn all() -> Self {
        Self { read: true, call: vec!["*".to_owned()], operate: true, keys: Vec::new() }
    }

    /// Whether there are keys that it does not reach.
    #[must_use]
    pub fn is_confined(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Whether it reaches the key of that text, and all keys that begin with it.
    #[must_use]
    pub fn reaches(&self, start: &str) -> bool {
        !self.is_confined() || self.keys.iter().any(|allowed| start.starts_with(allowed.as_str()))
    }

    /// Whether a function that may be called may be called with these keys. `None`: its arguments do not say which it
    /// touches; then it must have been granted by its full name, by somebody who knows what it does.
    #[must_use]
    pub fn may_touch(&self, function: &str, keys: Option<&[Key]>) -> bool {
        match keys {
            Some(keys) => keys.iter().all(|key| self.reaches(key.as_str())),
            None => !self.is_confined() || self.call.iter().any(|name| name == function),
        }
    }

    /// Whether a function may be called.
    #[must_use]
    pub fn may_call(&self, function: &str) -> bool {
        if is_for_operators(function) {
            return self.operate;
        }
        self.call.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => function.starts_with(start),
            None => pattern == function,
        })
    }
}

/// Whether only operators call it.
#[must_use]
pub fn is_for_operators(function: &str) -> bool {
    OPERATORS.iter().any(|library| function.starts_with(library))
}

/// Whether a text names functions: visible characters, and `*` at the end only.
#[must_use]
pub fn is_pattern(text: &str) -> bool {
    let start = text.strip_suffix('*').unwrap_or(text);
    (1..=PATTERN_BYTES_MAX).contains(&text.len()) && start.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'*')
}

/// Whether a text can be what keys begin with.
#[must_use]
pub fn is_beginning(text: &str) -> bool {
    (1..=PATTERN_BYTES_MAX).contains(&text.len())
}

/// Whether a text is an id: hexadecimal digits.
#[must_use]
pub fn is_id(text: &str) -> bool {
    text.len() == ID_LENGTH && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// One token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// What people call it; no two share one.
    pub name: String,
    /// The hash (BLAKE3) of what its owner presents.
    pub hash: [u8; 32],
    /// What he may do.
    pub rights: Rights,
    /// When it was made.
    pub created: Timestamp,
    /// From when on it counts no more; `None`: it does not expire.
    pub expires: Option<Timestamp>,
}

/// As it is stored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    format: u32,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    rights: Rights,
    created: u64,
    expires: Option<u64>,
}

impl Token {
    /// As it is stored.
    #[must_use]
    pub fn to_value(&self) -> Bytes {
        self.text(Some(hexadecimal(&self.hash)))
    }

    fn text(&self, hash: Option<String>) -> Bytes {
        let text = Text {
            format: FORMAT,
            name: self.name.clone(),
            hash,
            rights: self.rights.clone(),
            created: self.created.0,
            expires: self.expires.map(|expires| expires.0),
        };
        serde_json::to_vec(&text).expect("plain data").into()
    }

    /// Reads what a command wrote.
    ///
    /// # Errors
    /// [`StateError`] when it is no token of this version.
    pub fn read(entry: &Entry) -> Result<Self, StateError> {
        let unreadable = |why: &str| StateError(format!("a token cannot be read: {why}"));
        let text: Text = serde_json::from_slice(&entry.value).map_err(|error| unreadable(&error.to_string()))?;
        if text.format != FORMAT {
            return Err(unreadable("it is of a later version"));
        }
        let hash = text.hash.as_deref().and_then(hash_of).ok_or_else(|| unreadable("it has no hash"))?;
        Ok(Self {
            name: text.name,
            hash,
            rights: text.rights,
            created: Timestamp(text.created),
            expires: text.expires.map(Timestamp),
        })
    }

    /// Whether it counts no more.
    #[must_use]
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// The key of the token of that id. `None` when it is none.
#[must_use]
pub fn key(id: &str) -> Option<Key> {
    is_id(id).then(|| Key::new(format!("{PREFIX}{id}")).expect("a short key"))
}

/// The id of the token under a key; `None` for the keys of others.
#[must_use]
pub fn id_of(key: &Key) -> Option<&str> {
    key.as_str().strip_prefix(PREFIX)
}

/// What may be shown of a value of the state: all, but of a token not the hash.
#[must_use]
pub fn shown(key: &Key, value: &Bytes) -> Bytes {
    if id_of(key).is_none() {
        return value.clone();
    }
    // Of what cannot be read nothing is shown: it might be there.
    let entry = Entry { value: value.clone(), version: crate::CommandNumber::NULL };
    Token::read(&entry).map_or_else(|_| Bytes::from_static(b"{}"), |token| token.text(None))
}

/// A hash of 64 hexadecimal digits.
#[must_use]
pub fn hash_of(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, at) in hash.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(hash)
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CommandNumber;

    fn token() -> Token {
        Token {
            name: "ci".into(),
            hash: [0xab; 32],
            rights: Rights { read: true, call: vec!["inventory.*".into(), "kv.put".into()], ..Rights::default() },
            created: Timestamp(1_000),
            expires: Some(Timestamp(5_000)),
        }
    }

    fn entry(value: Bytes) -> Entry {
        Entry { value, version: CommandNumber(7) }
    }

    /// Catches a token that comes back as another one, or a text of a later version that is guessed at.
    #[test]
    fn what_is_stored_is_read() {
        assert_eq!(Token::read(&entry(token().to_value())), Ok(token()));
        let text = String::from_utf8(token().to_value().to_vec()).expect("text");
        for (from, to) in [("\"format\":1", "\"format\":2"), ("abab", "zzzz"), ("\"read\"", "\"reads\""), ("{", "")] {
            assert!(text.contains(from), "{from}");
            assert!(Token::read(&entry(text.replacen(from, to, 1).into())).is_err(), "{to}");
        }
        assert!(!token().has_expired(Timestamp(4_999)) && token().has_expired(Timestamp(5_000)));
    }

    /// Catches a token from before keys that cannot be read any more, one that is not confined and that a build from
    /// before would refuse, and one that is confined and comes back without that.
    #[test]
    fn only_what_is_confined_says_keys() {
        let before = "{\"format\":1,\"name\":\"ci\",\"hash\":\"HASH\",\"rights\":{\"read\":true,\"call\":\
                      [\"inventory.*\",\"kv.put\"],\"operate\":false},\"created\":1000,\"expires\":5000}";
        let before = before.replace("HASH", &"ab".repeat(32));
        assert_eq!(token().to_value(), before.as_bytes());
        assert_eq!(Token::read(&entry(before.into())), Ok(token()));
        let mut confined = token();
        confined.rights.keys = vec!["a/".into(), "\u{1f511}\n".into()];
        assert_eq!(Token::read(&entry(confined.to_value())), Ok(confined));
    }

    /// The whole table of keys and prefixes. Catches a key, or a list of keys, that a token reaches beyond what it says; the
    /// beginning of an allowed beginning, which goes with keys that are not; and a function that reaches what it likes.
    #[test]
    fn rights_reach_the_keys_that_they_say() {
        let rights = |call: &[&str], keys: &[&str]| Rights {
            read: true,
            call: call.iter().map(ToString::to_string).collect(),
            operate: false,
            keys: keys.iter().map(ToString::to_string).collect(),
        };
        let confined = rights(&["kv.*", "x.y"], &["inventory/goods/", "k"]);
        for (start, within) in [
            ("inventory/goods/", true),
            ("inventory/goods/A", true),
            ("inventory/goods//", true),
            ("k", true),
            ("key", true),
            ("", false),
            ("i", false),
            ("inventory/goods", false),
            ("inventory/good\u{301}s/", false),
            ("inventory/goodsx", false),
            ("inventory/screws/A", false),
            ("Inventory/goods/A", false),
            ("/inventory/goods/A", false),
            ("quorate/token/", false),
            ("\u{10ffff}", false),
        ] {
            assert_eq!(confined.reaches(start), within, "{start}");
            assert!(rights(&[], &[]).reaches(start) && Rights::all().reaches(start), "{start}");
        }
        let keys = |texts: &[&str]| texts.iter().map(|text| Key::new(*text).expect("a key")).collect::<Vec<_>>();
        for (texts, within) in [(&["k"][..], true), (&["k", "inventory/goods/A"], true), (&["k", "l"], false)] {
            assert_eq!(confined.may_touch("kv.put", Some(&keys(texts))), within, "{texts:?}");
        }
        assert!(confined.may_touch("x.y", None) && !confined.may_touch("kv.put", None), "named in full or not");
        assert!(!rights(&["*"], &["k"]).may_touch("*", Some(&keys(&["l"]))));
        assert!(rights(&["*"], &[]).may_touch("kv.put", None) && rights(&[], &[]).may_touch("x", Some(&keys(&["l"]))));
        assert!(is_beginning("k") && is_beginning(&"k".repeat(PATTERN_BYTES_MAX)));
        assert!(!is_beginning("") && !is_beginning(&"k".repeat(PATTERN_BYTES_MAX + 1)));
    }

    /// Catches a hash that is shown, and other values that are not shown as they are.
    #[test]
    fn no_hash_is_shown() {
        let own = key("0123456789abcdef").expect("an id");
        let shown_of = |value: Bytes| String::from_utf8(shown(&own, &value).to_vec()).expect("text");
        let text = shown_of(token().to_value());
        assert!(text.contains("\"name\":\"ci\"") && !text.contains("abab") && !text.contains("hash"), "{text}");
        assert_eq!(shown_of(Bytes::from_static(b"{\"hash\": \"abab\"}")), "{}");
        let other = Key::new("quorate/tokens").expect("a key");
        assert_eq!(shown(&other, &token().to_value()), token().to_value());
    }

    /// Catches a pattern that names more than it says, and functions of operators that a pattern opens.
    #[test]
    fn rights_allow_what_they_say() {
        let rights = token().rights;
        for function in ["inventory.inbound", "inventory.", "kv.put"] {
            assert!(rights.may_call(function), "{function}");
        }
        for function in
            ["inventory", "kv.puts", "kv.pu", "kv.delete", "cluster.join", "auth.create", "", "xinventory.a"]
        {
            assert!(!rights.may_call(function), "{function}");
        }
        let everything = Rights { call: vec!["*".into(), "cluster.*".into()], ..Rights::default() };
        assert!(
            everything.may_call("kv.put") && !everything.may_call("cluster.join") && !everything.may_call("auth.x")
        );
        let operator = Rights { operate: true, ..Rights::default() };
        assert!(operator.may_call("cluster.join") && operator.may_call("auth.x") && !operator.may_call("kv.put"));
        assert!(!Rights::default().may_call("kv.put") && Rights::all().may_call("kv.put"));
        assert!(is_pattern("*") && is_pattern("kv.*") && is_pattern("kv.put"));
        for text in ["", "k*v", "**", "kv put", "ä", &"x".repeat(PATTERN_BYTES_MAX + 1)] {
            assert!(!is_pattern(text), "{text}");
        }
    }

    /// Catches an id that leads to a key of somebody else.
    #[test]
    fn ids_and_keys_belong_together() {
        let id = "00ff00ff00ff00ff";
        let own = key(id).expect("an id");
        assert_eq!(id_of(&own), Some(id));
        assert!(own.is_reserved());
        for text in ["", "00ff", "00FF00ff00ff00ff", "../membership/00f", "00ff00ff00ff00fg"] {
            assert_eq!(key(text), None, "{text}");
        }
        assert_eq!(hash_of(&hexadecimal(&[0x0f; 32])), Some([0x0f; 32]));
        assert_eq!(hash_of(&"é".repeat(32)), None);
    }
}
