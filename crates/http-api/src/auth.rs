//! Who asks: the token that a request presents, looked up in the state of this node.
//!
//! A token counts here as soon as this node has applied the command that made it, and no more once it has applied the one
//! that revoked it. A node that may not have heard of that lets in nobody by a token of the state.

use actix_web::http::header::{self, HeaderMap};
use protocol::{StateError, Token, token};

use crate::backend::Backend;
use crate::core::access::{Access, Denied, Presented};

/// That callers present tokens.
#[derive(Clone, Debug)]
pub struct Auth {
    root: Option<blake3::Hash>,
}

impl Auth {
    /// Tokens of the state count, and this one, which may do everything.
    #[must_use]
    pub fn new(root: Option<&str>) -> Self {
        Self { root: root.map(|text| blake3::hash(text.as_bytes())) }
    }

    /// Whom the headers of a request name, by the state of this node, which must be a recent one unless `of_any_age`.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub(crate) fn identify(
        &self,
        backend: &dyn Backend,
        headers: &HeaderMap,
        of_any_age: bool,
    ) -> Result<Result<Access, Denied>, StateError> {
        let text = match bearer(headers) {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(Err(Denied::NoToken)),
            Err(denied) => return Ok(Err(denied)),
        };
        let presented = Presented::of(text);
        if self.root.is_some_and(|root| root == presented.hash) {
            return Ok(Ok(Access::root()));
        }
        if !of_any_age && !backend.is_current() {
            return Ok(Err(Denied::NotCurrent));
        }
        let Some(key) = presented.id.and_then(token::key) else { return Ok(Err(Denied::Unknown)) };
        let Some(entry) = backend.snapshot()?.view.get(&key)? else { return Ok(Err(Denied::Unknown)) };
        // A clock that is behind must not let a token live on.
        let now = backend.now().max(backend.time_at());
        Ok(Access::of_token(&Token::read(&entry)?, &presented, now))
    }
}

/// The text after `Authorization: Bearer`.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Denied> {
    let mut values = headers.get_all(header::AUTHORIZATION);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Denied::Unknown);
    }
    let text = value.to_str().map_err(|_| Denied::Unknown)?;
    match text.split_once(' ') {
        Some((scheme, text)) if scheme.eq_ignore_ascii_case("Bearer") && !text.is_empty() => Ok(Some(text)),
        Some(_) | None => Err(Denied::Unknown),
    }
}
