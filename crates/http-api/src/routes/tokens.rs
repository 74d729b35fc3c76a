//! Who may do what: tokens (ADR 0029).

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::token::{self, PREFIX, TOKENS_MAX};
use protocol::{Rights, StateError, Timestamp, Token};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::calls::Executed;
use crate::api::Api;
use crate::call::{self, Reply};
use crate::core::access;
use crate::json;
use crate::problem::{Problem, ProblemDocument};
use crate::read::{self, rfc3339};
use crate::request::{self, Query, Wishes};

/// How many bytes of chance the id of a token has.
const ID_BYTES: usize = 8;

/// A token that is asked for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object with name and what the token allows: read, call, operate, keys")]
pub(crate) struct NewToken {
    /// What people call it.
    #[schema(example = "ci")]
    name: String,
    /// Read the state, the commands, the cluster, and metrics.
    #[serde(default)]
    read: bool,
    /// Call these functions: each a name, or a beginning followed by `*`.
    #[serde(default)]
    #[schema(example = json!(["inventory.*"]))]
    call: Vec<String>,
    /// Change the membership, make and revoke tokens, take backups.
    #[serde(default)]
    operate: bool,
    /// Read and call with keys only that begin so; empty: with all. Not with `operate`, which reaches all.
    #[serde(default)]
    #[schema(example = json!(["inventory/goods/"]))]
    keys: Vec<String>,
    /// How long it counts, such as `90d`; without it, it does not expire.
    #[schema(example = "90d")]
    expires_in: Option<String>,
}

/// A token that was made.
#[derive(Serialize, ToSchema)]
pub(crate) struct MadeToken {
    /// Its id.
    id: String,
    /// Its name.
    name: String,
    /// What its owner presents. Nobody can say it again.
    token: String,
    /// From when on it counts no more: RFC 3339, UTC.
    #[schema(required)]
    expires: Option<String>,
}

/// A token, as it is listed.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokenView {
    /// Its id.
    id: String,
    /// Its name.
    name: String,
    /// Whether its owner may read.
    read: bool,
    /// Which functions he may call.
    call: Vec<String>,
    /// Whether he operates the cluster.
    operate: bool,
    /// What the keys begin with that he reaches; empty: all.
    keys: Vec<String>,
    /// When it was made: RFC 3339, UTC.
    created: String,
    /// From when on it counts no more.
    #[schema(required)]
    expires: Option<String>,
}

/// All tokens.
#[derive(Serialize, ToSchema)]
pub(crate) struct Tokens {
    tokens: Vec<TokenView>,
}

/// Makes a token. The reply is the only one that has its secret.
#[utoipa::path(post, path = "/v1/tokens", operation_id = "create_token", tag = "tokens",
    request_body(content = NewToken, content_type = "application/json"),
    responses(
        (status = 201, description = "Made; it counts at each node as soon as that has applied the command", body = MadeToken),
        (status = 400, description = "Not what a token can be", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "There is one of that name, or too many", body = ProblemDocument, content_type = "application/problem+json"),
    ))]
pub(crate) async fn create(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
) -> Result<HttpResponse, Problem> {
    Query::of(&request, &[])?;
    request::require_json(&request)?;
    let wishes = Wishes::of(&request, api.limits.wait_max)?;
    if wishes.key.is_some() || wishes.respond_async {
        let detail = "the secret of a token is in this reply or nowhere, so there is none to ask for later; where it is \
                      lost, revoke the token and make another one";
        return Err(Problem::bad_request("invalid_header", detail));
    }
    let body = request::body(&request, payload, &api, api.limits.body_bytes).await?;
    json::check(&body).map_err(|error| call::invalid_json(&error))?;
    let invalid = |detail: String| Problem::bad_request("invalid_arguments", detail);
    let new: NewToken = serde_json::from_slice(&body).map_err(|error| invalid(error.to_string()))?;
    let life = new.expires_in.as_deref().map(|text| {
        let life = humantime::parse_duration(text).ok().map(|life| life.as_secs());
        life.ok_or_else(|| invalid(format!("expires_in is a duration such as 90d, not {text:?}")))
    });
    let life = life.transpose()?;
    let chance = api.backend.chance();
    let id = token::hexadecimal(&chance[..ID_BYTES]);
    let text = access::text_of(&id, &URL_SAFE_NO_PAD.encode(&chance[ID_BYTES..]));
    let mut arguments = json!({
        "id": id, "name": new.name, "hash": blake3::hash(text.as_bytes()).to_hex().as_str(), "read": new.read,
        "call": new.call, "operate": new.operate,
    });
    // A leader of a build from before makes tokens that are not confined.
    if !new.keys.is_empty() {
        arguments["keys"] = json!(new.keys);
    }
    if let Some(life) = life {
        arguments["expires_in"] = Value::from(life);
    }
    let arguments = arguments.to_string().into();
    let reply = call::run(&api, &request, "auth.token_create".to_owned(), arguments, wishes).await?;
    let Reply::Done(done, _) = reply else { unreachable!("it was not to be asynchronous") };
    let result: Value = serde_json::from_slice(&done.result).unwrap_or_default();
    let expires = result["expires"].as_u64().map(|expires| rfc3339(Timestamp(expires)));
    let mut response = HttpResponse::build(StatusCode::CREATED);
    response.insert_header((crate::names::COMMAND, done.at.0));
    Ok(response.json(MadeToken { id, name: new.name, token: text, expires }))
}

/// The tokens, without their secrets, which no node knows.
#[utoipa::path(get, path = "/v1/tokens", operation_id = "list_tokens", tag = "tokens",
    params(super::openapi::ReadParameters),
    responses((status = 200, description = "All of them, expired ones too", body = Tokens)))]
pub(crate) async fn list(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    let query = Query::of(&request, &read::PARAMETERS)?;
    let wishes = Wishes::of(&request, api.limits.wait_max)?;
    let ready = read::ready(&api, &query, wishes.wait).await?;
    let backend = api.backend.clone();
    // All of them: they are few.
    let made = ready.page(&api, 0, move |_| {
        let snapshot = backend.snapshot()?;
        let found = snapshot.view.scan(PREFIX, None, TOKENS_MAX)?;
        let views =
            found.iter().map(|(key, entry)| Ok(view(token::id_of(key).unwrap_or_default(), Token::read(entry)?)));
        Ok((snapshot.at, views.collect::<Result<Vec<_>, StateError>>()?))
    });
    let (at, tokens) = made.await?;
    let mut response = HttpResponse::Ok();
    ready.label(at, &mut response);
    Ok(response.json(Tokens { tokens }))
}

fn view(id: &str, token: Token) -> TokenView {
    let Rights { read, call, operate, keys } = token.rights;
    let (created, expires) = (rfc3339(token.created), token.expires.map(rfc3339));
    TokenView { id: id.to_owned(), name: token.name, read, call, operate, keys, created, expires }
}

/// Takes a token out of use.
#[utoipa::path(delete, path = "/v1/tokens/{id}", operation_id = "revoke_token", tag = "tokens",
    params(("id" = String, Path, description = "The token, by id or name"), super::openapi::CallHeaders),
    responses(
        (status = 200, description = "It counts no more at a node that has applied the command", body = Executed),
        (status = 404, description = "No such token", body = ProblemDocument, content_type = "application/problem+json"),
    ))]
pub(crate) async fn revoke(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    Query::of(&request, &[])?;
    let wishes = Wishes::of(&request, api.limits.wait_max)?;
    let arguments = json!({ "token": request::path_rest(&request)? }).to_string().into();
    let reply = call::run(&api, &request, "auth.token_revoke".to_owned(), arguments, wishes).await;
    let revoked = reply.map_err(|problem| match problem.code() {
        "unknown_token" => problem.with_status(StatusCode::NOT_FOUND),
        _ => problem,
    });
    revoked.map(Reply::respond)
}
