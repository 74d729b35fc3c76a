//! What stands before every route: who asks, and whether he may. What is decided lies in [`crate::core::access`]; here the
//! token is taken from the request and from the state of this node, and who is turned away is told why.
//!
//! A token counts here as soon as this node has applied the command that made it, and no more once it has applied the one
//! that revoked it.

use actix_web::body::{BoxBody, EitherBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage as _, HttpRequest, ResponseError as _, web};
use protocol::{StateError, Token, token};

use crate::api::Api;
use crate::audit;
use crate::backend::Backend;
use crate::core::access::{Access, Denied, Need, Presented};
use crate::problem::Problem;

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

    fn identify(&self, backend: &dyn Backend, headers: &HeaderMap) -> Result<Result<Access, Denied>, StateError> {
        let text = match bearer(headers) {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(Err(Denied::NoToken)),
            Err(denied) => return Ok(Err(denied)),
        };
        let presented = Presented::of(text);
        if self.root.is_some_and(|root| root == presented.hash) {
            return Ok(Ok(Access::root()));
        }
        let Some(key) = presented.id.and_then(token::key) else { return Ok(Err(Denied::Unknown)) };
        let Some(entry) = backend.snapshot()?.view.get(&key)? else { return Ok(Err(Denied::Unknown)) };
        // A clock that is behind must not let a token live on.
        let now = backend.now().max(backend.time_at());
        Ok(Access::of_token(&Token::read(&entry)?, &presented, now))
    }
}

/// The text after `Authorization: Bearer`.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Denied> {
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

/// What the requests of a route need: those that read, and all others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    pub(crate) reading: Need,
    pub(crate) changing: Need,
}

impl Needs {
    fn of(self, method: &Method) -> Need {
        if [Method::GET, Method::HEAD].contains(method) { self.reading } else { self.changing }
    }
}

/// The middleware around one route.
pub(crate) async fn gate(
    needs: Needs,
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<EitherBody<BoxBody>>, Error> {
    let api = request.app_data::<web::Data<Api>>().expect("the application has it").clone();
    let need = needs.of(request.method());
    let access = match enter(&api, need, request.headers()) {
        Ok(access) => access,
        Err(problem) => return Ok(request.into_response(problem.error_response()).map_into_right_body()),
    };
    request.extensions_mut().insert(access.clone());
    let response = next.call(request).await?.map_into_left_body();
    if need == Need::Operate {
        audit::request(&access, response.request(), response.status());
    }
    Ok(response)
}

fn enter(api: &Api, need: Need, headers: &HeaderMap) -> Result<Access, Problem> {
    let Some(auth) = &api.auth else { return Ok(Access::everything()) };
    if need == Need::Nothing {
        return Ok(Access::nothing());
    }
    let access = auth.identify(&*api.backend, headers)?.map_err(denied)?;
    access.check(need).map_err(|why| {
        audit::denied(&access, &format!("{need:?}"));
        denied(why)
    })?;
    Ok(access)
}

/// Who asks, as the gate of the route has found out; without one, nobody.
pub(crate) fn access_of(request: &HttpRequest) -> Access {
    request.extensions().get::<Access>().cloned().unwrap_or_else(Access::nothing)
}

/// What somebody is told who is turned away. Not whether there is such a token.
pub(crate) fn denied(why: Denied) -> Problem {
    metrics::counter!("quorate_http_denied_total", "reason" => why.name()).increment(1);
    let (status, detail, challenge) = match why {
        Denied::NoToken => {
            let detail = "present a token: Authorization: Bearer …; an operator makes one with `quorate token create`";
            (StatusCode::UNAUTHORIZED, detail, Some("Bearer realm=\"quorate\""))
        }
        Denied::Unknown => {
            let detail =
                "this token is not known here: it is mistyped, revoked, or so new that this node has not heard of it";
            (StatusCode::UNAUTHORIZED, detail, Some("Bearer realm=\"quorate\", error=\"invalid_token\""))
        }
        Denied::Expired => {
            let detail = "this token has expired; ask an operator for another one";
            (StatusCode::UNAUTHORIZED, detail, Some("Bearer realm=\"quorate\", error=\"invalid_token\""))
        }
        Denied::Forbidden => {
            let detail = "this token does not allow that; GET /openapi.json says what each route needs";
            (StatusCode::FORBIDDEN, detail, None)
        }
    };
    let problem = Problem::new(status, why.name(), detail);
    match challenge {
        Some(challenge) => problem.header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge)),
        None => problem,
    }
}
