//! Who may do what: pure. The token that a request presents is looked up in the state of the node that is asked; whether
//! it lets its owner do what he wants follows from the token, the time and what is needed, and from nothing else.
//!
//! Nothing is allowed that is not said: a route that does not say what it needs, needs an operator.

use protocol::token::{is_for_operators, is_id};
use protocol::{Key, Rights, Timestamp, Token};

/// What the text of a token begins with: for people and scanners who find one where it should not be.
const PREFIX: &str = "quorate_";

/// What a route needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: anybody may ask.
    Nothing,
    /// A token. What it may do is looked at where a function is called.
    Token,
    /// To read. Which keys is looked at where they are named.
    Read,
    /// To read all keys: it shows what became of any of them.
    ReadAll,
    /// To read, what says nothing of the state: how the cluster is, which must be seen when it is not well.
    Look,
    /// To read, or to call any function: it is about a call.
    Outcome,
    /// To operate.
    Operate,
}

/// Why somebody is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// He presents no token.
    NoToken,
    /// There is no such token, or its secret is another one. Not said which.
    Unknown,
    /// It counts no more.
    Expired,
    /// It does not allow that.
    Forbidden,
    /// It does not allow that with these keys.
    Confined,
    /// This node may not have heard that it was revoked.
    NotCurrent,
    /// It is for operators, who are answered at another port.
    Elsewhere,
}

impl Denied {
    /// The label in metrics and the code of the problem.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::Unknown => "invalid_token",
            Self::Expired => "expired_token",
            Self::Forbidden | Self::Confined => "forbidden",
            Self::NotCurrent => "not_current",
            Self::Elsewhere => "not_at_this_port",
        }
    }
}

/// What a request presents, without the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presented<'a> {
    /// The id that is in the text.
    pub id: Option<&'a str>,
    /// The hash of the text. Comparing two takes the same time wherever they differ.
    pub hash: blake3::Hash,
}

impl<'a> Presented<'a> {
    /// The token of a text.
    #[must_use]
    pub fn of(text: &'a str) -> Self {
        let id = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_')).map(|(id, _)| id);
        Self { id: id.filter(|id| is_id(id)), hash: blake3::hash(text.as_bytes()) }
    }
}

/// The text of a token.
#[must_use]
pub fn text_of(id: &str, secret: &str) -> String {
    format!("{PREFIX}{id}_{secret}")
}

/// A text for a log, without the secrets of tokens that somebody has put where an id belongs.
#[must_use]
pub fn without_secrets(text: &str) -> String {
    let mut parts = text.split(PREFIX);
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        shown.push_str(PREFIX);
        let end = part.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_' && letter != '-');
        let (token, rest) = part.split_at(end.unwrap_or(part.len()));
        match token.split_once('_') {
            Some((id, _)) if is_id(id) => shown.extend([id, "_...", rest]),
            Some(_) | None => shown.push_str(part),
        }
    }
    shown
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The name of his token, for the audit log. Nothing: there is no authentication, or he is nobody.
    pub name: Option<String>,
    rights: Rights,
}

impl Access {
    /// Where there is no authentication.
    #[must_use]
    pub fn everything() -> Self {
        Self { name: None, rights: Rights::all() }
    }

    /// Who presents no token.
    #[must_use]
    pub fn nothing() -> Self {
        Self { name: None, rights: Rights::default() }
    }

    /// The holder of the root token of the configuration.
    #[must_use]
    pub fn root() -> Self {
        Self { name: Some("root".to_owned()), rights: Rights::all() }
    }

    /// The owner of a token of the state.
    ///
    /// # Errors
    /// [`Denied`] when it is not his, or counts no more.
    pub fn of_token(token: &Token, presented: &Presented<'_>, now: Timestamp) -> Result<Self, Denied> {
        if presented.hash != blake3::Hash::from_bytes(token.hash) {
            return Err(Denied::Unknown);
        }
        if token.has_expired(now) {
            return Err(Denied::Expired);
        }
        Ok(Self { name: Some(token.name.clone()), rights: token.rights.clone() })
    }

    /// Whether he may ask a route.
    ///
    /// # Errors
    /// [`Denied`] when not.
    pub fn check(&self, need: Need) -> Result<(), Denied> {
        let Rights { read, call, operate, keys: _ } = &self.rights;
        let allowed = match need {
            Need::Nothing => true,
            Need::Token => *self != Self::nothing(),
            Need::Read | Need::ReadAll | Need::Look => *read,
            Need::Outcome => *read || *operate || !call.is_empty(),
            Need::Operate => *operate,
        };
        match allowed {
            true if need == Need::ReadAll => self.check_keys(""),
            true => Ok(()),
            false => Err(Denied::Forbidden),
        }
    }

    /// What the keys begin with that he reaches; nothing: he reaches all.
    #[must_use]
    pub fn keys(&self) -> &[String] {
        &self.rights.keys
    }

    /// Whether he reaches the key of that text, and all that begin with it. Where he may not, it is not looked for.
    ///
    /// # Errors
    /// [`Denied`] when not.
    pub fn check_keys(&self, start: &str) -> Result<(), Denied> {
        if self.rights.reaches(start) { Ok(()) } else { Err(Denied::Confined) }
    }

    /// Whether he may call a function, which he may, with these keys; `None`: its arguments do not say which.
    ///
    /// # Errors
    /// [`Denied`] when not.
    pub fn check_touch(&self, function: &str, keys: Option<&[Key]>) -> Result<(), Denied> {
        if self.rights.may_touch(function, keys) { Ok(()) } else { Err(Denied::Confined) }
    }

    /// Whether he may call a function.
    ///
    /// # Errors
    /// [`Denied`] when not.
    pub fn check_call(&self, function: &str) -> Result<(), Denied> {
        if self.rights.may_call(function) { Ok(()) } else { Err(Denied::Forbidden) }
    }
}

/// Whether calls of a function are audited: what only operators may do.
#[must_use]
pub fn is_audited(function: &str) -> bool {
    is_for_operators(function)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "00ff00ff00ff00ff";

    fn token(text: &str) -> Token {
        Token {
            name: "ci".into(),
            hash: *blake3::hash(text.as_bytes()).as_bytes(),
            rights: Rights { read: true, call: vec!["kv.*".into()], ..Rights::default() },
            created: Timestamp(0),
            expires: Some(Timestamp(10)),
        }
    }

    /// Catches a secret in the log, put where an id belongs, and a line that loses anything else.
    #[test]
    fn secrets_are_not_shown() {
        let token = text_of(ID, "s3cret-_");
        for (text, shown) in [
            (format!("/v1/tokens/{token}"), format!("/v1/tokens/quorate_{ID}_...")),
            (
                format!(r#"{{"token":"{token}","x":"{token}"}}"#),
                format!(r#"{{"token":"quorate_{ID}_...","x":"quorate_{ID}_..."}}"#),
            ),
            ("/v1/tokens/quorate_ci_1".into(), "/v1/tokens/quorate_ci_1".into()),
            (format!("quorate_{ID} quorate_"), format!("quorate_{ID} quorate_")),
            (String::new(), String::new()),
        ] {
            assert_eq!(without_secrets(&text), shown);
        }
    }

    /// Catches a token that lets in somebody else, or its owner for too long.
    #[test]
    fn a_token_is_its_owners_until_it_expires() {
        let text = text_of(ID, "s3cret");
        let (token, presented) = (token(&text), Presented::of(&text));
        assert_eq!(presented.id, Some(ID));
        let access = |presented: &Presented<'_>, now| Access::of_token(&token, presented, Timestamp(now));
        assert_eq!(access(&presented, 9).map(|access| access.name), Ok(Some("ci".into())));
        assert_eq!(access(&presented, 10), Err(Denied::Expired));
        for other in [text_of(ID, "S3cret"), text_of(ID, ""), text_of(ID, "s3cret "), "s3cret".into(), String::new()] {
            assert_eq!(access(&Presented::of(&other), 9), Err(Denied::Unknown), "{other}");
        }
        for text in ["quorate_zz_s", "quorate_", "quorate", "00ff00ff00ff00ff_s", "quorate_00ff00ff00ff00ff"] {
            assert_eq!(Presented::of(text).id, None, "{text}");
        }
    }

    /// The whole table. Catches a right that opens more than it says.
    #[test]
    fn rights_open_what_they_say() {
        let rights = |read, call: &[&str], operate| Access {
            name: None,
            rights: Rights { read, call: call.iter().map(ToString::to_string).collect(), operate, keys: vec![] },
        };
        let confined = |access: Access| {
            let rights = Rights { keys: vec!["a/".into()], ..access.rights };
            Access { rights, ..access }
        };
        let needs = [Need::Nothing, Need::Token, Need::Read, Need::ReadAll, Need::Look, Need::Outcome, Need::Operate];
        for (access, opens) in [
            (Access::nothing(), [true, false, false, false, false, false, false]),
            (rights(true, &[], false), [true, true, true, true, true, true, false]),
            (confined(rights(true, &[], false)), [true, true, true, false, true, true, false]),
            (rights(false, &["kv.*"], false), [true, true, false, false, false, true, false]),
            (confined(rights(false, &["kv.*"], false)), [true, true, false, false, false, true, false]),
            (rights(false, &[], true), [true, true, false, false, false, true, true]),
            (Access::everything(), [true; 7]),
            (Access::root(), [true; 7]),
        ] {
            assert_eq!(needs.map(|need| access.check(need).is_ok()), opens, "{access:?}");
        }
        let access = confined(rights(true, &["kv.*", "x"], false));
        assert_eq!(access.check(Need::ReadAll), Err(Denied::Confined));
        assert_eq!((access.keys(), Access::root().keys()), (&["a/".to_owned()][..], &[][..]));
        assert_eq!(confined(rights(false, &["kv.*"], false)).check(Need::ReadAll), Err(Denied::Forbidden));
        for (start, reached) in
            [("a/", Ok(())), ("a/b", Ok(())), ("a", Err(Denied::Confined)), ("", Err(Denied::Confined))]
        {
            assert_eq!(access.check_keys(start), reached, "{start}");
            assert_eq!(Access::root().check_keys(start), Ok(()), "{start}");
        }
        let key = |text: &str| Key::new(text).expect("a key");
        assert_eq!(access.check_touch("kv.put", Some(&[key("a/b")])), Ok(()));
        assert_eq!(access.check_touch("kv.put", Some(&[key("a/b"), key("b")])), Err(Denied::Confined));
        assert_eq!(
            (access.check_touch("kv.put", None), access.check_touch("x", None)),
            (Err(Denied::Confined), Ok(()))
        );
        assert_eq!(Access::everything().check_touch("kv.put", None), Ok(()));
        assert_eq!(rights(true, &["kv.*"], false).check_call("kv.put"), Ok(()));
        assert_eq!(rights(true, &["*"], false).check_call("cluster.join"), Err(Denied::Forbidden));
    }
}
