//! The routes as a whole: what there is, how it is described, and the pages and probes.

use std::collections::BTreeSet;
use std::path::Path;

use actix_web::http::Method;
use actix_web::test::TestRequest;
use serde_json::Value;

use super::world::{World, check, not_executed};
use crate::backend::Health;
use crate::core::access::Denied;
use crate::routes::ROUTES;

fn world() -> World {
    World::new(|_| None)
}

/// A path that the pattern takes.
fn example(pattern: &str) -> String {
    match pattern.split_once('{') {
        Some((start, _)) => format!("{start}x"),
        None => pattern.to_owned(),
    }
}

/// Catches a route that the table does not have, or that does not exist, and errors of the
/// framework's own that are not problems.
#[actix_web::test]
async fn the_table_of_routes_is_what_is_served() {
    let world = world();
    for (pattern, methods) in ROUTES {
        for method in
            [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::TRACE]
        {
            let reply = world.with_header(method.clone(), &example(pattern), ("Accept", "*/*")).await;
            let listed = methods.split(", ").any(|known| known == method.as_str());
            assert_eq!(reply.status != 405, listed, "{method} {pattern}: {}", reply.status);
            if !listed {
                assert_eq!(reply.problem(), not_executed(405, "method_not_allowed"));
                assert_eq!(reply.header("allow"), Some(methods));
            }
        }
    }
    for uri in
        ["/nowhere", "/v1", "/v1/functions/a/b", "/v1/functions/", "/v1/transactions", "//", "/v1/cluster/learner"]
    {
        assert_eq!(world.get(uri).await.problem(), not_executed(404, "unknown_route"), "{uri}");
    }
}

/// ADR 0044. Catches a route of callers that a node without the role gateway answers, with any method; how it is that it does not
/// tell; a call that another node may have had and that it calls undone; and metrics that it has at another listener, or promises
/// where they are not.
#[actix_web::test]
async fn a_node_that_is_no_gateway_says_how_it_is_and_nothing_else() {
    let world = world();
    for has_metrics in [true, false] {
        let ask = async |method: &Method, path: &str, header: (&str, &str)| {
            let request = TestRequest::with_uri(path).method(method.clone()).insert_header(header);
            world.ask_no_gateway(request.set_payload("{}"), has_metrics).await
        };
        let answers = |pattern: &str| match pattern {
            "/livez" | "/readyz" | "/healthz" => true,
            "/metrics" => has_metrics,
            _ => false,
        };
        for (pattern, _) in ROUTES {
            for method in [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE] {
                let reply = ask(&method, &example(pattern), ("Idempotency-Key", "k")).await;
                let reads = [Method::GET, Method::HEAD].contains(&method);
                if answers(pattern) {
                    let refused = !reads;
                    assert_eq!(reply.status == 405, refused, "{method} {pattern}: {}", reply.status);
                    continue;
                }
                let outcome = if reads { "not_executed" } else { "unknown" };
                let problem = (421, "not_a_gateway".to_owned(), outcome.to_owned());
                assert_eq!(reply.problem(), problem, "{method} {pattern}");
                assert_eq!(reply.text().contains("/metrics"), has_metrics, "{}", reply.text());
            }
        }
        let plain = ask(&Method::POST, "/v1/functions/kv.put", ("Accept", "*/*")).await;
        assert_eq!(plain.problem(), not_executed(421, "not_a_gateway"));
        let batch = ask(&Method::POST, "/v1/calls", ("Accept", "*/*")).await;
        assert_eq!(batch.problem(), (421, "not_a_gateway".to_owned(), "unknown".to_owned()));
    }
}

/// RELIABILITY 6, row 16. Catches metrics that stay at the port of callers though they have a listener of their own, anything
/// else of callers there, and metrics without a token there.
#[actix_web::test]
async fn metrics_are_apart_where_they_have_a_listener() {
    let world = World::with_root("root", |_| None);
    let statuses = async |path: &str, token: &str| {
        let header = ("Authorization", format!("Bearer {token}"));
        world
            .ask_apart(|| TestRequest::get().uri(path).insert_header(header.clone()))
            .await
            .map(|reply| reply.status.as_u16())
    };
    assert_eq!(statuses("/metrics", "root").await, [404, 200]);
    assert_eq!(statuses("/metrics", "other").await, [404, 401]);
    for (pattern, methods) in ROUTES.iter().filter(|(pattern, _)| *pattern != "/metrics") {
        let both = ["/livez", "/readyz", "/healthz"].contains(pattern);
        let [callers, watchers] = statuses(&example(pattern), "root").await;
        assert!(callers != 404 || pattern.ends_with(":.*}"), "{pattern} {methods}: {callers}");
        assert_eq!(watchers != 404, both, "{pattern}: {watchers}");
    }
}

/// The codes of problems that a source writes out: the first text of what makes one.
fn codes(source: &str) -> BTreeSet<&str> {
    let is_code = |text: &str| text.len() > 3 && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    ["Problem::new(", "Self::new(", "bad_request(", "not_found(", "too_large(", "unavailable("]
        .iter()
        .flat_map(|made| source.split(made).skip(1))
        .filter_map(|rest| rest.get(..rest.len().min(100)).unwrap_or(rest).split('"').nth(1))
        .filter(|text| is_code(text))
        .collect()
}

/// Catches a problem that callers are not told of.
#[test]
fn the_page_for_users_lists_every_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("../../docs/api.md")).expect("a page");
    let mut listed = 0;
    for directory in ["src", "src/routes", "src/proxy"] {
        for source in std::fs::read_dir(root.join(directory)).expect("a directory").flatten() {
            let Ok(source) = std::fs::read_to_string(source.path()) else { continue };
            for code in codes(&source) {
                listed += 1;
                assert!(page.contains(&format!("`{code}`")), "docs/api.md does not list {code}");
            }
        }
    }
    assert!(listed > 30, "only {listed} were found");
    use Denied::{Confined, Elsewhere, Expired, Forbidden, NoToken, NotCurrent, Unknown};
    for denied in [NoToken, Unknown, Expired, Forbidden, Confined, NotCurrent, Elsewhere] {
        assert!(page.contains(&format!("`{}`", denied.name())), "docs/api.md does not list {}", denied.name());
    }
}

/// Catches a route that is not described, and a description of one that is not there.
#[actix_web::test]
async fn openapi_describes_exactly_the_routes() {
    let reply = world().get("/openapi.json").await;
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let document = reply.json();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    let mut described = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            described.insert(format!("{} {path}", method.to_uppercase()));
            let name = format!("{method} {path}");
            assert!(operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{name}");
            let problem = &operation["responses"]["default"]["content"]["application/problem+json"]["schema"]["$ref"];
            assert_eq!(problem, "#/components/schemas/Problem", "{name}");
        }
    }
    let routes: BTreeSet<_> = ROUTES
        .iter()
        .flat_map(|(pattern, methods)| methods.split(", ").map(move |method| (pattern, method)))
        .filter(|(_, method)| *method != "HEAD")
        .map(|(pattern, method)| format!("{method} {}", pattern.replace(":.*", "")))
        .collect();
    assert_eq!(described, routes);
    check_references(&document, &document);
    // Types of one name would silently take each other's place.
    for (schema, field) in [
        ("StatePage", "entries"),
        ("CommandPage", "commands"),
        ("Executed", "command"),
        ("Problem", "outcome"),
        ("ClusterView", "membership"),
    ] {
        let described = &document["components"]["schemas"][schema]["properties"][field];
        assert!(described.is_object(), "{schema} has {field}");
    }
    assert_eq!(document["components"]["schemas"]["Outcome"]["enum"], serde_json::json!(["not_executed", "unknown"]));
}

/// Catches a reference into nowhere, which makes the whole description useless to tools.
fn check_references(document: &Value, part: &Value) {
    match part {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                let pointer = reference.strip_prefix('#').expect("a reference into this document");
                assert!(document.pointer(pointer).is_some(), "{reference} is not there");
            }
            fields.values().for_each(|field| check_references(document, field));
        }
        Value::Array(items) => items.iter().for_each(|item| check_references(document, item)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Catches a probe that says yes when something fails, or that does not say what.
#[actix_web::test]
async fn probes_say_what_holds() {
    let world = world();
    let disk = check("disk", true, "writable");
    world.change(|node| {
        node.health = Health { live: vec![disk.clone()], ready: vec![check("leader", true, "node a, heard 3 ms ago")] };
    });
    for uri in ["/livez", "/readyz", "/healthz"] {
        let reply = world.get(uri).await;
        assert_eq!((reply.status.as_u16(), reply.text()), (200, "ok\n"), "{uri}");
    }
    assert_eq!(world.get("/livez?verbose").await.text(), "[+]disk ok: writable\nlivez check passed\n");
    world.change(|node| node.health.ready[0] = check("leader", false, "none is known"));
    assert_eq!(world.get("/livez").await.status, 200, "a node without a leader need not be restarted");
    for uri in ["/readyz", "/readyz?verbose", "/healthz"] {
        let reply = world.get(uri).await;
        assert_eq!(reply.status, 503);
        assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
        assert!(reply.text().contains("[+]disk ok: writable\n[-]leader failed: none is known\n"), "{}", reply.text());
        assert!(reply.text().ends_with("check failed\n"));
    }
    world.change(|node| node.health.live[0] = check("disk", false, "a sync failed"));
    assert_eq!(world.get("/livez").await.status, 503);
}

/// Catches pages that need the internet, or that let a name become markup.
#[actix_web::test]
async fn pages_stand_alone() {
    let world = world();
    for uri in ["/", "/docs"] {
        let reply = world.get(uri).await;
        assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"));
        assert!(reply.header("content-security-policy").is_some_and(|policy| policy.contains("default-src 'none'")));
        assert!(!reply.text().contains("http://") && !reply.text().contains("https://"), "{uri}");
        assert!(!reply.text().contains("{{"), "{uri} has a place holder left");
    }
    let home = world.get("/").await;
    assert!(home.text().contains("&#60;demo&#62;") && !home.text().contains("<demo>"));
    assert!(home.text().contains("b (id 2)"));
}

/// Catches a cluster view or a list of functions without the documented fields.
#[actix_web::test]
async fn cluster_and_functions_are_shown() {
    let world = world();
    let cluster = world.get("/v1/cluster").await.json();
    assert_eq!(cluster["leader"]["name"], "b");
    let node = cluster["nodes"][0].as_object().expect("a node");
    for field in ["id", "name", "roles", "addresses", "reachable", "ballot", "issued", "applied", "durable", "space"] {
        assert!(node.contains_key(field), "{field}");
    }
    assert_eq!(cluster["membership"]["number"], 0);
    let functions = world.get("/v1/functions").await.json();
    assert_eq!(functions["functions"][0]["name"], "inventory.inbound");
    assert!(functions["functions"][0]["arguments_schema"].is_object());
}

/// Catches requests that are not counted, and labels that a stranger can multiply.
#[actix_web::test]
async fn requests_are_counted_by_route_and_status() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let guard = metrics::set_default_local_recorder(&recorder);
    let world = world();
    world.get("/v1/state/a?consistency=local").await;
    world.get("/v1/state/b?consistency=local").await;
    world.get("/nowhere/1").await;
    world.get("/nowhere/2").await;
    world.get(&format!("/{}", "x".repeat(9 << 10))).await;
    drop(guard);
    let text = handle.render();
    let line = |text: &str| format!("quorate_http_requests_total{{{text}}}");
    assert!(text.contains(&(line("route=\"/v1/state/{key:.*}\",status=\"404\"") + " 2")), "{text}");
    assert!(text.contains(&(line("route=\"unknown\",status=\"404\"") + " 2")), "{text}");
    assert!(text.contains(&(line("route=\"unknown\",status=\"414\"") + " 1")), "{text}");
    assert!(text.contains("quorate_http_request_duration_seconds_count{route=\"/v1/state/{key:.*}\"} 2"), "{text}");
    assert_eq!(world.get("/metrics").await.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
}
