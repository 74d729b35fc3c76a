//! The issued commands.

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use protocol::{Command, CommandBody, CommandNumber, Effect, StateError, Verdict, token};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::api::Api;
use crate::json;
use crate::problem::{Problem, ProblemDocument};
use crate::read::{self, rfc3339};
use crate::request::{Query, Wishes};

/// The commands of a page when the caller does not say.
const LIMIT: usize = 100;
/// The most commands of a page.
const LIMIT_MAX: usize = 1_000;
/// A page ends when it has this many bytes of bodies, so that a reply stays in memory bounds.
const PAGE_BYTES: usize = 4 << 20;

/// A page of commands.
#[derive(Serialize, ToSchema)]
pub(crate) struct CommandPage {
    commands: Vec<CommandView>,
    /// Give it as `from` for the next page; null when there are no more yet.
    #[schema(required)]
    next: Option<u64>,
}

/// An issued command.
#[derive(Serialize, ToSchema)]
pub(crate) struct CommandView {
    /// Dense, from 1.
    number: u64,
    /// `function`: what a function changed. `answer`: what a call came to that changed nothing, kept
    /// for its repetitions.
    #[schema(example = "function")]
    kind: &'static str,
    /// When it was executed: RFC 3339, UTC.
    time: String,
    /// The caller's key where it gave one.
    request_id: String,
    /// The function that decided it.
    function: String,
    /// The changes, in order.
    effects: Vec<EffectView>,
}

/// A change.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EffectView {
    /// The key has a new value.
    Put {
        key: String,
        /// The value when it is JSON text, else `{"base64": "…"}`.
        #[schema(value_type = serde_json::Value)]
        value: Box<RawValue>,
    },
    /// The key is gone.
    Delete { key: String },
}

/// Issued commands, in order.
#[utoipa::path(get, path = "/v1/commands", operation_id = "list_commands", tag = "commands",
    params(("from" = Option<u64>, Query, description = "The first number; 1 if absent"),
        ("limit" = Option<u64>, Query, description = "The most commands, 1 to 1000; 100 if absent. A page may have fewer: go by `next`"),
        super::openapi::ReadParameters),
    responses(
        (status = 200, description = "A page", body = CommandPage),
        (status = 403, description = "The caller's token is not for all keys", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 406, description = "Following the commands as an event stream is not available in this version", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 410, description = "The first of them is no longer kept", body = ProblemDocument, content_type = "application/problem+json"),
    ))]
pub(crate) async fn list(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    let [consistency, min_command, at] = read::PARAMETERS;
    let query = Query::of(&request, &["from", "limit", consistency, min_command, at])?;
    let wishes = Wishes::of(&request, api.limits.wait_max)?;
    accepts_json(&request)?;
    let from = CommandNumber(query.number("from")?.unwrap_or(1));
    if from == CommandNumber::NULL {
        return Err(Problem::bad_request("invalid_query", "from is at least 1: commands are numbered from there"));
    }
    let limit = query.limit(LIMIT, LIMIT_MAX)?;
    let ready = read::ready(&api, &query, wishes.wait).await?;
    let applied = api.backend.applied();
    let backend = api.backend.clone();
    let made =
        ready.page(&api, PAGE_BYTES, move |bytes| -> Result<(Option<CommandNumber>, Vec<CommandView>), StateError> {
            let commands = backend.commands(from, limit, bytes)?;
            let first = commands.first().map(Command::number);
            Ok((first, commands.iter().map(view).collect::<Result<_, _>>()?))
        });
    let (first, commands) = made.await?;
    let last = commands.last().map(|command| CommandNumber(command.number));
    let shown = last.unwrap_or_default().max(applied);
    if first != Some(from) && from <= applied {
        let none = || format!("; none is kept up to {applied}, where the state of this node begins");
        let kept = first.map_or_else(none, |first| format!("; the oldest one that is kept is {first}"));
        let detail = format!("command {from} is no longer kept{kept}");
        return Err(ready.label_problem(shown, Problem::new(StatusCode::GONE, "history_truncated", detail)));
    }
    let next = last.filter(|last| *last < shown).map(|last| last.next().0);
    let mut response = HttpResponse::Ok();
    ready.label(shown, &mut response);
    Ok(response.json(CommandPage { commands, next }))
}

/// A client that takes nothing but an event stream is told that there is none yet.
fn accepts_json(request: &HttpRequest) -> Result<(), Problem> {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    let takes = |kind: &str| {
        let kind = kind.split(';').next().unwrap_or_default().trim();
        ["*/*", "application/*", "application/json"].contains(&kind)
    };
    if accept.trim().is_empty() || accept.split(',').any(takes) {
        return Ok(());
    }
    let detail = "this version has the commands as application/json only; ask again from `next` to follow them";
    Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", detail))
}

fn view(command: &Command) -> Result<CommandView, StateError> {
    let number = command.number();
    let body = CommandBody::decode(&command.body).map_err(|error| StateError(format!("command {number}: {error}")))?;
    let effects = body.effects.iter().map(|effect| match effect {
        Effect::Put { key, value } => EffectView::Put {
            key: key.to_string(),
            value: RawValue::from_string(json::value_text(&token::shown(key, value))).expect("the text was checked"),
        },
        Effect::Delete { key } => EffectView::Delete { key: key.to_string() },
    });
    Ok(CommandView {
        number: number.0,
        kind: match body.verdict {
            Verdict::Changed(_) => "function",
            Verdict::Unchanged(_) | Verdict::Refused { .. } => "answer",
        },
        time: rfc3339(body.time),
        request_id: body.request.to_string(),
        function: body.function,
        effects: effects.collect(),
    })
}
