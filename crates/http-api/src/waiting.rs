//! The HTTP server of a node that does not serve yet: one that asks to be taken into a cluster, perhaps for hours, or opens its
//! data. Who looks whether it lives is told so, and who calls is sent away at once; without it both would hang.

use std::io;
use std::net::TcpListener;

use actix_web::body::MessageBody;
use actix_web::dev::{Server, ServiceRequest, ServiceResponse};
use actix_web::http::header::HeaderValue;
use actix_web::middleware::Next;
use actix_web::{App, Error, HttpRequest, HttpResponse, middleware, web};
use tokio::sync::watch;

use crate::backend::Check;
use crate::names;
use crate::observe::guard_headers;
use crate::problem::Problem;
use crate::request::may_have_run_before;
use crate::routes::probes::report;
use crate::server::{Serving, serve};

/// What such a node waits for, in a sentence, as it last said.
pub type Reason = watch::Receiver<String>;

/// What the application shares.
struct Node {
    reason: Reason,
    header: HeaderValue,
}

/// The server of the node `name`, accepting on `listener`, with one thread; it runs when awaited. Another one may take over a clone of the
/// listener when this one was stopped: who connects meanwhile waits for it.
///
/// # Errors
/// When the listener cannot be used.
pub fn waiting(listener: TcpListener, name: &str, reason: Reason, serving: Serving) -> io::Result<Server> {
    let header = HeaderValue::from_str(name).map_err(io::Error::other)?;
    let node = web::Data::new(Node { reason, header });
    let app = move || {
        App::new()
            .app_data(node.clone())
            .route("/livez", web::get().to(livez))
            .route("/readyz", web::get().to(readyz))
            .route("/healthz", web::get().to(readyz))
            .default_service(web::to(not_yet))
            .wrap(middleware::from_fn(guarded))
    };
    serve(listener, app, Serving { workers: 1, ..serving })
}

async fn guarded<B: MessageBody>(request: ServiceRequest, next: Next<B>) -> Result<ServiceResponse<B>, Error> {
    let header = request.app_data::<web::Data<Node>>().expect("the application has it").header.clone();
    let mut response = next.call(request).await?;
    guard_headers(response.headers_mut());
    response.headers_mut().insert(names::NODE, header);
    Ok(response)
}

async fn livez(request: HttpRequest, node: web::Data<Node>) -> Result<HttpResponse, Problem> {
    report(&request, "livez", &[Check { name: "starting", ok: true, detail: node.reason.borrow().clone() }])
}

async fn readyz(request: HttpRequest, node: web::Data<Node>) -> Result<HttpResponse, Problem> {
    report(&request, "readyz", &[Check { name: "starting", ok: false, detail: node.reason.borrow().clone() }])
}

/// Whether another node has executed such a call before is not known here.
async fn not_yet(request: HttpRequest, node: web::Data<Node>) -> Result<HttpResponse, Problem> {
    let detail = format!("this node does not serve yet: {}; ask another node", *node.reason.borrow());
    let problem = Problem::unavailable("starting", detail);
    Err(if may_have_run_before(&request) { problem.unknown() } else { problem })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Catches a node that leaves those hanging who look at it, or call it, while it waits; one that says that a call was
    /// not executed which another node may have executed; and a listener that the next server cannot take over.
    #[actix_web::test]
    async fn a_node_that_waits_says_so_until_another_server_takes_over() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = format!("http://{}", listener.local_addr().expect("bound"));
        let (says, reason) = watch::channel("it looks around".to_owned());
        let serving = || Serving { workers: 1, connections: 8, tls: None, grace: Duration::from_secs(1) };
        let server = |reason: &Reason| {
            let server =
                waiting(listener.try_clone().expect("a clone"), "a", reason.clone(), serving()).expect("a server");
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
        first.stop(false).await;
        let second = server(&watch::channel("another".to_owned()).1);
        assert!(get("/readyz").await.1.contains("another"));
        second.stop(false).await;
    }
}
