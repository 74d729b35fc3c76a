//! A gateway without data, in front of real servers whose nodes are scripts.

use std::net::SocketAddr;

use actix_web::dev::ServerHandle;

use super::wire::{LONG, Served, exchange, options};
use crate::backend::Limits;
use crate::proxy::{self, Proxy};
use crate::server::{Options, listen};

/// A gateway of the cluster `ours` that looks at nobody by itself.
struct Front {
    address: SocketAddr,
    handle: ServerHandle,
}

impl Front {
    fn start(members: &[&Served]) -> Self {
        Self::with_room(members, 100)
    }

    /// One that takes so many requests at a time.
    fn with_room(members: &[&Served], requests: usize) -> Self {
        let options = proxy::Options {
            name: "front".to_owned(),
            cluster: "ours".to_owned(),
            members: members.iter().map(|member| member.address.to_string()).collect(),
            authorities: None,
            limits: Limits::default(),
            requests,
            server: options(),
        };
        let proxy = Proxy::new(&options).expect("a client");
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0)), LONG).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let server = proxy::server(listener, proxy, &options).expect("it listens");
        let handle = server.handle();
        actix::spawn(server);
        Self { address, handle }
    }

    async fn post(&self, path: &str, body: &str) -> String {
        let head = "Host: a\r\nConnection: close\r\nContent-Type: application/json\r\n";
        let request = format!("POST {path} HTTP/1.1\r\n{head}Content-Length: {}\r\n\r\n{body}", body.len());
        exchange(self.address, request.as_bytes()).await
    }
}

/// Catches a call that another cluster executes, because its node was not looked at yet, or has its address from one of ours;
/// a batch that is given up since it may have been executed; and a caller who names another cluster and is served.
#[actix_web::test]
async fn a_member_that_was_not_looked_at_takes_nothing_of_another_cluster() {
    let (theirs, ours) = (Served::start(), Served::start());
    ours.world.backend.cluster.set("ours").expect("it is said once");
    for (path, body) in [("/v1/functions/f", "{}"), ("/v1/calls", r#"[{"function": "f", "arguments": {}}]"#)] {
        let front = Front::start(&[&theirs, &ours]);
        for _ in 0..4 {
            let reply = front.post(path, body).await;
            assert!(reply.starts_with("HTTP/1.1 200 ") && reply.contains("\"command\":17"), "{reply}");
        }
        front.handle.stop(true).await;
    }
    assert!(theirs.world.calls().is_empty());
    assert_eq!(ours.world.calls().len(), 8);
    let front = Front::start(&[&ours]);
    let asked = "GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\nQuorate-Cluster: theirs\r\n\r\n";
    for address in [front.address, ours.address] {
        let reply = exchange(address, asked.as_bytes()).await;
        assert!(reply.starts_with("HTTP/1.1 421 ") && reply.contains("\"code\":\"other_cluster\""), "{reply}");
        assert!(reply.contains("\"outcome\":\"not_executed\""), "{reply}");
        let named = exchange(address, asked.replace("theirs", "ours").as_bytes()).await;
        assert!(named.starts_with("HTTP/1.1 200 "), "{named}");
    }
    for handle in [front.handle, ours.handle, theirs.handle] {
        handle.stop(false).await;
    }
}

/// Catches a gateway that lets its caller fear that a call was executed which the only member that had it forbids, because that
/// member takes the gateway's key for one that others know; and one that promises the same of a caller's key.
#[actix_web::test]
async fn a_call_under_a_key_of_the_gateway_is_undone_where_it_is_forbidden() {
    let member = Served::with(Options { admin_apart: true, ..options() });
    member.world.backend.cluster.set("ours").expect("it is said once");
    let front = Front::start(&[&member]);
    for (path, key, outcome) in [
        ("/v1/functions/cluster.remove", "", "not_executed"),
        ("/v1/cluster/leader", "", "not_executed"),
        ("/v1/functions/cluster.remove", "Idempotency-Key: k\r\n", "unknown"),
    ] {
        let head =
            format!("Host: a\r\nConnection: close\r\n{key}Content-Type: application/json\r\nContent-Length: 2\r\n");
        let reply = exchange(front.address, format!("POST {path} HTTP/1.1\r\n{head}\r\n{{}}").as_bytes()).await;
        assert!(reply.starts_with("HTTP/1.1 403 ") && reply.contains("\"code\":\"not_at_this_port\""), "{reply}");
        assert!(reply.contains(&format!("\"outcome\":\"{outcome}\"")), "{path} {key}: {reply}");
        assert!(reply.contains("\r\nquorate-node: b\r\n"), "it is the member's: {reply}");
    }
    for handle in [front.handle, member.handle] {
        handle.stop(false).await;
    }
}

/// S-22: catches a gateway that calls what another one may have executed *not executed*, because it has no room for it
/// itself; and one that calls *unknown* what nobody can have had.
#[actix_web::test]
async fn a_gateway_without_room_speaks_for_itself_only() {
    let front = Front::with_room(&[], 0);
    let asked = [
        ("/v1/functions/f", "Idempotency-Key: k\r\n", "unknown"),
        ("/v1/calls", "", "unknown"),
        ("/v1/functions/f", "", "not_executed"),
    ];
    for (path, key, outcome) in asked {
        let head = format!("Host: a\r\nConnection: close\r\n{key}Content-Length: 2\r\n");
        let reply = exchange(front.address, format!("POST {path} HTTP/1.1\r\n{head}\r\n{{}}").as_bytes()).await;
        assert!(reply.starts_with("HTTP/1.1 429 "), "{reply}");
        assert!(reply.contains(&format!("\"outcome\":\"{outcome}\"")), "{path} {key}: {reply}");
    }
    front.handle.stop(false).await;
}
