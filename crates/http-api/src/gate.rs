//! What stands before every route: whether he may who asks ([`crate::auth`]). What is decided lies in
//! [`crate::core::access`]; here who is turned away is told why.

use actix_web::body::{BoxBody, EitherBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage as _, HttpRequest, ResponseError as _, web};
use bytes::Bytes;

use crate::api::Api;
use crate::audit;
use crate::call;
use crate::core::access::{Access, Denied, Need};
use crate::problem::Problem;
use crate::request::may_have_run_before;

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
    let access = match enter(&api, need, request.request()) {
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

fn enter(api: &Api, need: Need, request: &HttpRequest) -> Result<Access, Problem> {
    if need == Need::Operate && !api.is_for_operators {
        tell_of(api, request.headers(), need);
        return Err(elsewhere(may_have_run_before(request)));
    }
    let Some(auth) = &api.auth else { return Ok(Access::everything()) };
    if need == Need::Nothing {
        return Ok(Access::nothing());
    }
    let access = auth.identify(&*api.backend, request.headers(), need == Need::Look)?.map_err(|why| {
        if [Denied::Unknown, Denied::Expired].contains(&why) {
            api.refusals.no_token(request.peer_addr().map(|address| address.ip()), why);
        }
        // Another node may have had the call before.
        let may_have_run = why == Denied::NotCurrent && may_have_run_before(request);
        if may_have_run { denied(why).unknown() } else { denied(why) }
    })?;
    access.check(need).map_err(|why| forbidden(api, &access, why, &format!("{need:?}")))?;
    Ok(access)
}

/// Leaves a line in the audit log of a token that is good and was presented at the wrong port: it may have leaked. How old the
/// state is by which it is known does not matter, nobody is let in.
fn tell_of(api: &Api, headers: &HeaderMap, need: Need) {
    let identified = api.auth.as_ref().map(|auth| auth.identify(&*api.backend, headers, true));
    if let Some(Ok(Ok(access))) = identified {
        api.refusals.denied(&access, &at_wrong_port(&format!("{need:?}")));
    }
}

fn at_wrong_port(what: &str) -> String {
    format!("{what} at the port of callers")
}

/// What may have been done at another port before is not called undone.
fn elsewhere(may_have_run: bool) -> Problem {
    let problem = denied(Denied::Elsewhere);
    if may_have_run { problem.unknown() } else { problem }
}

/// Whether a function that only operators call is called at a port where they are answered.
pub(crate) fn check_port(api: &Api, access: &Access, function: &str, may_have_run: bool) -> Result<(), Problem> {
    if api.is_for_operators {
        return Ok(());
    }
    if api.auth.is_some() {
        api.refusals.denied(access, &at_wrong_port(function));
    }
    Err(elsewhere(may_have_run))
}

/// Whether who asks may make this call: the function, and with a token that is confined to some keys, those that the
/// arguments name. What a function does not take is refused as the leader would.
pub(crate) fn check_call(api: &Api, access: &Access, function: &str, arguments: &Bytes) -> Result<(), Problem> {
    access.check_call(function).map_err(|why| forbidden(api, access, why, function))?;
    if access.keys().is_empty() {
        return Ok(());
    }
    let checked = match api.backend.keys(function, arguments) {
        Ok(keys) => access.check_touch(function, keys.as_deref()),
        Err(misfit) => match call::executed(misfit, true, false) {
            Err(problem) => return Err(problem),
            Ok(_) => Err(Denied::Confined),
        },
    };
    checked.map_err(|why| forbidden(api, access, why, function))
}

/// Whether who asks may see the key of that text, and all that begin with it.
pub(crate) fn check_keys(api: &Api, access: &Access, start: &str) -> Result<(), Problem> {
    access.check_keys(start).map_err(|why| forbidden(api, access, why, &format!("keys {start}")))
}

/// What somebody is told whose token is good, and does not allow what he wants.
fn forbidden(api: &Api, access: &Access, why: Denied, what: &str) -> Problem {
    api.refusals.denied(access, what);
    let problem = denied(why);
    if why != Denied::Confined {
        return problem;
    }
    let keys: Vec<_> = access.keys().iter().map(|start| format!("{start:?}")).collect();
    problem.with_detail(format!(
        "this token is for keys that begin with {}, and for nothing that shows or changes others; the prefix of a list \
         must begin so, too",
        keys.join(" or ")
    ))
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
        Denied::Forbidden | Denied::Confined => {
            let detail = "this token does not allow that; GET /openapi.json says what each route needs";
            (StatusCode::FORBIDDEN, detail, None)
        }
        Denied::Elsewhere => {
            let detail =
                "what operators do is answered at another port of this node (listen.admin), and not at that of callers";
            (StatusCode::FORBIDDEN, detail, None)
        }
        Denied::NotCurrent => {
            let detail = "this node is cut off or behind, and cannot know whether this token was revoked; ask another node, and \
                          look at /readyz?verbose of this one";
            (StatusCode::SERVICE_UNAVAILABLE, detail, None)
        }
    };
    let problem = Problem::new(status, why.name(), detail);
    let problem = if why == Denied::NotCurrent { problem.retry_later() } else { problem };
    match challenge {
        Some(challenge) => problem.header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge)),
        None => problem,
    }
}
