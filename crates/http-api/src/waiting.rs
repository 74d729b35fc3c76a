//! The HTTP server of a node that does not serve yet: one that asks to be taken into a cluster, perhaps for hours, or opens its
//! data. Who looks whether it lives is told so, and who calls is sent away at once; without it both would hang.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{Server, ServiceRequest, ServiceResponse};
use actix_web::http::header::HeaderValue;
use actix_web::middleware::Next;
use actix_web::{App, Error, HttpRequest, HttpResponse, ResponseError as _, middleware, web};
use tokio::sync::watch;

use crate::backend::Check;
use crate::names;
use crate::observe::{check_cluster, check_head, guard_headers};
use crate::problem::Problem;
use crate::reply::{Body, Held, Room};
use crate::request::may_have_run_before;
use crate::routes::probes::report;
use crate::server::{Serving, WATCHERS_MAX, serve};

/// All replies are made at once.
const GRACE: Duration = Duration::from_secs(1);

/// What such a node waits for, in a sentence, as it last said.
pub type Reason = watch::Receiver<String>;

/// What the application shares.
struct Node {
    reason: Reason,
    header: HeaderValue,
    cluster: String,
    replies: Room,
}

/// The server of a node, by the names of node and cluster, accepting on `listener`, with one thread; it runs when awaited.
/// Another one may take over a clone of the listener when this one was stopped: who connects meanwhile waits for it.
///
/// # Errors
/// When the listener cannot be used, or the name in no header.
pub fn waiting(
    listener: TcpListener,
    [name, cluster]: [&str; 2],
    reason: Reason,
    tls: Option<rustls::ServerConfig>,
) -> io::Result<Server> {
    let header = HeaderValue::from_str(name).map_err(io::Error::other)?;
    let node = web::Data::new(Node { reason, header, cluster: cluster.to_owned(), replies: Room::new() });
    let app = move || {
        App::new()
            .app_data(node.clone())
            .route("/livez", web::get().to(livez))
            .route("/readyz", web::get().to(readyz))
            .route("/healthz", web::get().to(healthz))
            .default_service(web::to(not_yet))
            .wrap(middleware::from_fn(observed))
    };
    serve(listener, app, Serving { workers: 1, connections: WATCHERS_MAX, tls, grace: GRACE })
}

/// As around the routes of a node that serves, but for counting.
async fn observed<B: MessageBody + 'static>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<Body>, Error> {
    let node = request.app_data::<web::Data<Node>>().expect("the application has it").clone();
    let held = Held::of(&mut request);
    let checked = check_head(&request).and_then(|()| check_cluster(request.headers(), &node.cluster));
    let response = match checked {
        Ok(()) => next.call(request).await?.map_into_left_body(),
        Err(problem) => request.into_response(problem.error_response()).map_into_right_body(),
    };
    let mut response = held.until_written(response, &node.replies);
    response.headers_mut().insert(names::NODE, node.header.clone());
    guard_headers(response.headers_mut());
    Ok(response)
}

async fn livez(request: HttpRequest, node: web::Data<Node>) -> Result<HttpResponse, Problem> {
    report(&request, "livez", &[Check { name: "starting", ok: true, detail: node.reason.borrow().clone() }])
}

async fn readyz(request: HttpRequest, node: web::Data<Node>) -> Result<HttpResponse, Problem> {
    not_ready(&request, "readyz", &node)
}

async fn healthz(request: HttpRequest, node: web::Data<Node>) -> Result<HttpResponse, Problem> {
    not_ready(&request, "healthz", &node)
}

fn not_ready(request: &HttpRequest, name: &str, node: &Node) -> Result<HttpResponse, Problem> {
    report(request, name, &[Check { name: "starting", ok: false, detail: node.reason.borrow().clone() }])
}

/// Whether another node has executed such a call before is not known here.
async fn not_yet(request: HttpRequest, node: web::Data<Node>) -> Result<HttpResponse, Problem> {
    let detail = format!("this node does not serve yet: {}; ask another node", *node.reason.borrow());
    let problem = Problem::unavailable("starting", detail);
    Err(if may_have_run_before(&request) { problem.unknown() } else { problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a node that leaves those hanging who look at it, or call it, while it waits; one that says that a call was
    /// not executed which another node may have executed; and a listener that the next server cannot take over.
    #[actix_web::test]
    async fn a_node_that_waits_says_so_until_another_server_takes_over() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = format!("http://{}", listener.local_addr().expect("bound"));
        let (says, reason) = watch::channel("it looks around".to_owned());
        let server = |reason: &Reason| {
            let listener = listener.try_clone().expect("a clone");
            let server = waiting(listener, ["a", "quorate"], reason.clone(), None).expect("a server");
            let handle = server.handle();
            actix_web::rt::spawn(server);
            handle
        };
        let first = server(&reason);
        _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::new();
        let get = async |path: &str| {
            let reply = client.get(format!("{at}{path}")).send().await.expect("an answer");
            (reply.status().as_u16(), reply.text().await.expect("a text"))
        };
        assert_eq!(get("/livez").await, (200, "ok\n".to_owned()));
        says.send_replace("nobody takes it in".to_owned());
        let (status, text) = get("/readyz").await;
        assert!(status == 503 && text.contains("[-]starting failed: nobody takes it in\n"), "{status} {text}");
        let put = |key: Option<&'static str>| {
            let call = client.post(format!("{at}/v1/functions/kv.put")).body("{}");
            key.into_iter().fold(call, |call, key| call.header("Idempotency-Key", key)).send()
        };
        for (key, outcome) in [(None, "not_executed"), (Some("k"), "unknown")] {
            let reply = put(key).await.expect("an answer");
            assert_eq!((reply.status().as_u16(), reply.headers().contains_key("Retry-After")), (503, true));
            let problem: serde_json::Value = serde_json::from_str(&reply.text().await.expect("a text")).expect("JSON");
            assert_eq!((problem["code"].as_str(), problem["outcome"].as_str()), (Some("starting"), Some(outcome)));
        }
        let reply =
            client.get(format!("{at}/livez")).header("Quorate-Cluster", "other").send().await.expect("an answer");
        assert_eq!(reply.status().as_u16(), 421);
        first.stop(true).await;
        let second = server(&watch::channel("another".to_owned()).1);
        assert!(get("/readyz").await.1.contains("another"));
        second.stop(true).await;
    }
}
