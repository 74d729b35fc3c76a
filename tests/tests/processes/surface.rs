//! Functions, values and refusals, through every node.

use quorate_tests::cluster::{Cluster, Gateway, Reply, eventually, quorate, send};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn assert_done(reply: &Reply, result: &Value) -> u64 {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let body = reply.json();
    assert_eq!(body["result"], *result, "{body}");
    assert_eq!(reply.header("Content-Type"), "application/json");
    assert!(!reply.header("Quorate-Node").is_empty() && !reply.replayed(), "{reply:?}");
    let command = reply.command().expect("every call says which state it left");
    assert!(body["command"].is_null() || body["command"] == command, "{reply:?}");
    command
}

/// A1b, A16: catches a node that does not pass a call on to the leader, a function that decides
/// something else than its page says, a number that is skipped or given twice (A1a), and a
/// replica that ends with another state (A1l).
#[tokio::test]
async fn every_function_through_every_node() {
    let cluster = Cluster::start("functions", 3, &[]).await;
    let mut commands = 0;
    for node in 0..cluster.size() {
        let names = cluster.get(node, "/v1/functions").await.json();
        let names: Vec<&str> =
            names["functions"].as_array().expect("a list").iter().filter_map(|f| f["name"].as_str()).collect();
        let (a, b, item) = (format!("A{node}"), format!("B{node}"), format!("item{node}"));
        let key = format!("key/{node}");
        let calls = [
            ("inventory.inbound", json!({"warehouse": a, "amount": 500}), json!({"stock": 500})),
            ("inventory.transfer", json!({"from": a, "to": b, "amount": 100}), json!({"from": 400, "to": 100})),
            ("inventory.outbound", json!({"warehouse": b, "amount": 100}), json!({"stock": 0})),
            ("inventory.inbound", json!({"warehouse": a, "amount": 7, "item": item}), json!({"stock": 7})),
            ("kv.put", json!({"key": key, "value": {"n": 1}}), json!({})),
            ("kv.compare_and_set", json!({"key": key, "expected": commands + 5, "value": 41}), json!({})),
            ("kv.increment", json!({"key": key}), json!({"value": 42})),
            ("kv.increment", json!({"key": key, "by": -50}), json!({"value": -8})),
            ("kv.delete", json!({"key": key}), json!({"deleted": true})),
        ];
        for (function, arguments, result) in &calls {
            assert!(names.contains(function), "{function} is not among {names:?}");
            let reply = cluster.call(node, function, arguments).await;
            commands += 1;
            assert_eq!(assert_done(&reply, result), commands, "{function} {arguments}");
            assert_eq!(reply.json()["command"], commands);
        }
        // Nothing to delete: no command, and the number of the state that this was seen in.
        let nothing = cluster.call(node, "kv.delete", &json!({"key": key})).await;
        assert_eq!(assert_done(&nothing, &json!({"deleted": false})), commands);
        assert!(nothing.json()["command"].is_null(), "{nothing:?}");
    }
    let history = cluster.assert_agreement().await;
    assert_eq!(history.last(), commands);
    let first = &history.commands()[0];
    assert_eq!(first["function"], "inventory.inbound", "{first}");
    assert_eq!(first["effects"], json!([{"put": {"key": "inventory/goods/A0", "value": 500}}]));
    let times: Vec<&str> = history.commands().iter().map(|command| command["time"].as_str().expect("text")).collect();
    assert!(times.is_sorted(), "time goes backwards: {times:?}");
}

/// A16: catches a refusal with another status or code than the page says, and one that left an
/// effect or a number behind (S-08, S-09).
#[tokio::test]
async fn every_refusal_through_every_node() {
    let cluster = Cluster::start("refusals", 3, &[]).await;
    let most = 9_007_199_254_740_991_u64;
    for (function, arguments) in [
        ("inventory.inbound", json!({"warehouse": "full", "amount": most})),
        ("inventory.inbound", json!({"warehouse": "A", "amount": 5})),
        ("kv.put", json!({"key": "text", "value": "x"})),
        ("kv.put", json!({"key": "top", "value": i64::MAX})),
    ] {
        assert_eq!(cluster.call(0, function, &arguments).await.status, 200);
    }
    let before = cluster.assert_agreement().await;
    let refusals = [
        ("inventory.inbound", json!({"warehouse": "A", "amount": 0}), 422, "invalid_amount"),
        ("inventory.inbound", json!({"warehouse": "A", "amount": -1}), 422, "invalid_amount"),
        ("inventory.inbound", json!({"warehouse": "A", "amount": 1.5}), 422, "invalid_amount"),
        ("inventory.inbound", json!({"warehouse": "A", "amount": most + 1}), 422, "invalid_amount"),
        ("inventory.inbound", json!({"warehouse": "full", "amount": 1}), 422, "invalid_amount"),
        ("inventory.outbound", json!({"warehouse": "A", "amount": 6}), 422, "insufficient_stock"),
        ("inventory.outbound", json!({"warehouse": "never", "amount": 1}), 422, "insufficient_stock"),
        ("inventory.transfer", json!({"from": "A", "to": "B", "amount": 6}), 422, "insufficient_stock"),
        ("inventory.transfer", json!({"from": "A", "to": "A", "amount": 1}), 422, "same_warehouse"),
        ("inventory.transfer", json!({"from": "A", "to": "full", "amount": 1}), 422, "invalid_amount"),
        ("kv.compare_and_set", json!({"key": "text", "expected": 0, "value": 1}), 422, "version_mismatch"),
        ("kv.compare_and_set", json!({"key": "none", "expected": 1, "value": 1}), 422, "version_mismatch"),
        ("kv.increment", json!({"key": "text"}), 422, "not_a_number"),
        ("kv.increment", json!({"key": "top"}), 422, "overflow"),
        ("kv.put", json!({"key": "k", "value": 1, "if_match": [999]}), 412, "precondition_failed"),
        ("inventory.inbound", json!({"warehouse": "A", "amount": "5"}), 400, "invalid_arguments"),
        ("inventory.inbound", json!({"warehouse": 5, "amount": 5}), 400, "invalid_arguments"),
        ("inventory.inbound", json!({"amount": 5}), 400, "invalid_arguments"),
        ("inventory.inbound", json!({"warehouse": "A", "amount": 5, "more": 1}), 400, "invalid_arguments"),
        ("inventory.inbound", json!({"warehouse": "a/b", "amount": 5}), 400, "invalid_arguments"),
        ("inventory.inbound", json!([1]), 400, "invalid_arguments"),
        ("kv.increment", json!({"key": "n", "by": 1.5}), 400, "invalid_arguments"),
        ("kv.put", json!({"key": "k".repeat(1025), "value": 1}), 400, "invalid_arguments"),
        ("kv.put", json!({"key": "", "value": 1}), 400, "invalid_arguments"),
        ("kv.nothing", json!({}), 404, "unknown_function"),
    ];
    for node in 0..cluster.size() {
        for (function, arguments, status, code) in &refusals {
            cluster.call(node, function, arguments).await.assert_problem(*status, code);
        }
    }
    assert_eq!(cluster.assert_agreement().await, before, "a refusal left something behind");
}

/// RELIABILITY 6, row 16. Catches a node or a gateway without data that takes the address for its metrics and does not listen
/// there, or still answers there where callers do, and one that passes the question on to a member.
#[tokio::test]
async fn metrics_have_a_listener_of_their_own() {
    // Free when it was asked for; nobody else gets it soon.
    let free = || std::net::TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a port");
    let at = [free(), free()];
    let cluster = Cluster::start("apart", 1, &[&format!("listen.metrics={}", at[0])]).await;
    let gateway = Gateway::boot(&cluster, &[0], &[format!("listen.metrics={}", at[1])]);
    gateway.ready().await;
    let callers = [cluster.url(0, "/metrics"), gateway.url("/metrics")];
    for (at, callers) in at.iter().zip(callers) {
        let ask = async |url: String| send(cluster.client().get(url)).await.expect("it answers");
        let metrics = ask(format!("http://{at}/metrics")).await;
        assert!(metrics.status == 200 && metrics.text().contains("quorate_build_info"), "{metrics:?}");
        assert_eq!(ask(format!("http://{at}/readyz")).await.status, 200);
        ask(format!("http://{at}/v1/cluster")).await.assert_problem(404, "unknown_route");
        ask(callers).await.assert_problem(404, "unknown_route");
    }
    assert_eq!(gateway.get("/v1/cluster").await.status, 200);
}

/// SECURITY, callers and nodes. Catches a node or a gateway without data that is open to a network and says nothing of it in its
/// log, and one that cries wolf.
#[tokio::test]
async fn who_is_open_to_a_network_says_so() {
    let open = ["listen.insecure=true".to_owned(), "listen.metrics=0.0.0.0:0".to_owned()];
    let cluster = Cluster::start("open", 1, &open.each_ref().map(String::as_str)).await;
    let says = ["WARN", "listen.insecure", "listen.metrics = 0.0.0.0:0 without TLS and tokens"];
    let line = cluster.logged(0, &says).await;
    assert!(!line.contains("listen.http") && !line.contains("listen.peer"), "they are on loopback: {line}");
    Gateway::boot(&cluster, &[0], &open).logged(&says).await;
    let closed = Gateway::start(&cluster, &[0]).await;
    assert!(!closed.log().contains("listen.insecure"), "{}", closed.log());
}

/// RELIABILITY 6, row 16. Catches a node that answers operators at the port of callers though they have one of their own, or
/// does not at theirs, and a gateway without data that opens what the port of callers has shut.
#[tokio::test]
async fn operators_have_a_listener_of_their_own() {
    // Free when it was asked for; nobody else gets it soon.
    let at = std::net::TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a port");
    let cluster = Cluster::start("operators", 1, &[&format!("listen.admin={at}")]).await;
    let gateway = Gateway::start(&cluster, &[0]).await;
    let set = async |base: &str| {
        let url = format!("{base}/v1/cluster/acceptors?dry_run=true");
        send(cluster.client().post(url).json(&json!({"node": "a", "weight": 2}))).await.expect("it answers")
    };
    set(&cluster.url(0, "")).await.assert_problem(403, "not_at_this_port");
    let through = set(&gateway.url("")).await;
    // Under a key of the gateway's own, which it sent nowhere else.
    through.assert_problem(403, "not_at_this_port");
    let removed = send(cluster.client().delete(gateway.url("/v1/cluster/acceptors/a"))).await.expect("it answers");
    removed.assert_problem(403, "not_at_this_port");
    let keyed = cluster.client().post(gateway.url("/v1/functions/cluster.remove")).header("Idempotency-Key", "k");
    let keyed = send(keyed.json(&json!({"node": "a"}))).await.expect("it answers");
    assert_eq!((keyed.status, &keyed.json()["outcome"]), (403, &json!("unknown")), "{}", keyed.text());
    cluster.call(0, "cluster.remove", &json!({"node": "a"})).await.assert_problem(403, "not_at_this_port");
    cluster.get(0, "/v1/backup").await.assert_problem(403, "not_at_this_port");
    let put = cluster.call(0, "kv.put", &json!({"key": "k", "value": 1})).await;
    assert_eq!((put.status, cluster.get(0, "/v1/cluster").await.status), (200, 200), "callers are as they were");

    let own = format!("http://{at}");
    assert_eq!(set(&own).await.status, 200, "{}", set(&own).await.text());
    for words in [vec!["status"], vec!["get", "k"], vec!["acceptor", "add", "a", "--weight", "2"]] {
        let mut command = quorate();
        command.args(&words).args(["--url", &own]);
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("it runs");
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let backup = send(cluster.client().get(format!("{own}/v1/backup"))).await.expect("it answers");
    assert_eq!(backup.status, 200, "{backup:?}");
}

/// Catches calls of one request that are mixed up, stop at the first refusal, or are told to
/// have the wrong outcome; and a stored outcome that another node does not know.
#[tokio::test]
async fn many_calls_in_one_request() {
    let cluster = Cluster::start("batch", 3, &[]).await;
    let follower = cluster.follower().await;
    let calls = json!([
        {"function": "inventory.inbound", "arguments": {"warehouse": "A", "amount": 10}, "idempotency_key": "in"},
        {"function": "inventory.outbound", "arguments": {"warehouse": "A", "amount": 11}},
        {"function": "inventory.outbound", "arguments": {"warehouse": "A", "amount": 4}, "idempotency_key": "out"},
        {"function": "nothing", "arguments": {}},
        {"function": "inventory.inbound", "arguments": {"warehouse": "A", "amount": 10}, "idempotency_key": "bad key"},
    ]);
    let ask = || send(cluster.client().post(cluster.url(follower, "/v1/calls")).json(&calls));
    let reply = ask().await.expect("a living node answers");
    assert_eq!((reply.status, reply.command()), (200, Some(2)), "{}", reply.text());
    let outcomes = reply.json();
    assert_eq!(outcomes[0], json!({"status": 200, "command": 1, "result": {"stock": 10}}));
    assert_eq!((&outcomes[1]["status"], &outcomes[1]["code"]), (&json!(422), &json!("insufficient_stock")));
    assert_eq!(outcomes[2], json!({"status": 200, "command": 2, "result": {"stock": 6}}));
    assert_eq!((&outcomes[3]["status"], &outcomes[3]["code"]), (&json!(404), &json!("unknown_function")));
    assert_eq!((&outcomes[4]["status"], &outcomes[4]["code"]), (&json!(400), &json!("invalid_idempotency_key")));
    let again = ask().await.expect("a living node answers").json();
    assert_eq!(again[0], json!({"status": 200, "replayed": true, "command": 1, "result": {"stock": 10}}));
    assert_eq!(again[2], json!({"status": 200, "replayed": true, "command": 2, "result": {"stock": 6}}));
    for node in 0..cluster.size() {
        let stored = cluster.get(node, "/v1/calls/out").await;
        assert!(stored.status == 200 && stored.replayed(), "{stored:?}");
        assert_eq!(stored.json(), json!({"command": 2, "result": {"stock": 6}}));
        // Another gateway may have it under way: no node can say that it never will be executed.
        let never = cluster.get(node, "/v1/calls/never").await;
        let problem = never.json();
        assert_eq!((never.status, &problem["code"]), (404, &json!("unknown_call")), "{problem}");
        assert_eq!(problem["outcome"], "unknown", "{problem}");
    }
    assert_eq!(cluster.assert_agreement().await.last(), 2);
}

/// Catches a call that is taken in and then forgotten, or whose outcome cannot be asked for at
/// another node.
#[tokio::test]
async fn calls_that_are_not_waited_for() {
    let cluster = Cluster::start("async", 3, &[]).await;
    for node in 0..cluster.size() {
        let url = cluster.url(node, "/v1/functions/inventory.inbound");
        let request = cluster.client().post(url).header("Prefer", "respond-async");
        let reply = send(request.json(&json!({"warehouse": format!("A{node}"), "amount": 5}))).await;
        let reply = reply.expect("a living node answers");
        assert_eq!((reply.status, reply.header("Preference-Applied")), (202, "respond-async"), "{}", reply.text());
        let location = reply.header("Location").to_owned();
        let other = (node + 1) % cluster.size();
        let stored = eventually("the outcome", async || {
            let stored = cluster.get(other, &location).await;
            (stored.status == 200).then_some(stored)
        });
        assert_eq!(stored.await.json()["result"], json!({"stock": 5}));
        // What will never have an outcome is not taken in.
        for (function, arguments, status, code) in [
            ("no.such", json!({}), 404, "unknown_function"),
            ("inventory.inbound", json!({"zz": 1}), 400, "invalid_arguments"),
        ] {
            let request = cluster.client().post(cluster.url(node, &format!("/v1/functions/{function}")));
            let reply = send(request.header("Prefer", "respond-async").json(&arguments)).await;
            reply.expect("a living node answers").assert_problem(status, code);
        }
    }
    assert_eq!(cluster.assert_agreement().await.last(), 3);
}

/// Catches values that come back changed, versions that are not the command's number, and
/// preconditions that are not kept or are decided by a replica's own state.
#[tokio::test]
async fn values_by_key() {
    let cluster = Cluster::start("values", 3, &[]).await;
    let path = |key: &str| format!("/v1/state/{key}");
    let put = async |node: usize, key: &str, value: &[u8], condition: Option<(&str, &str)>| {
        let mut request = cluster.client().put(cluster.url(node, &path(key))).body(value.to_vec());
        if let Some((name, tag)) = condition {
            request = request.header(name, tag);
        }
        send(request).await.expect("a living node answers")
    };
    let all = [0, 1, 2];
    assert_eq!(put(0, "a/b", b"{\"n\": 1}", None).await.header("ETag"), "\"1\"");
    assert_eq!(put(1, "bytes", b"\xff\x00", Some(("If-None-Match", "*"))).await.header("ETag"), "\"2\"");
    for node in all {
        let json = cluster.get(node, &path("a%2Fb")).await;
        let seen = (json.status, json.text(), json.header("ETag"), json.header("Content-Type"));
        assert_eq!(seen, (200, "{\"n\": 1}".to_owned(), "\"1\"", "application/json"));
        let same = cluster.client().get(cluster.url(node, &path("a%2Fb"))).header("If-None-Match", "\"1\"");
        assert_eq!(send(same).await.expect("a living node answers").status, 304);
        let bytes = cluster.get(node, &path("bytes")).await;
        let seen = (&bytes.body[..], bytes.header("ETag"), bytes.header("Content-Type"));
        assert_eq!(seen, (&b"\xff\x00"[..], "\"2\"", "application/octet-stream"));
        let page = cluster.get(node, "/v1/state?prefix=b&limit=1").await.json();
        let entry = json!({"key": "bytes", "value": {"base64": "/wA="}, "version": 2});
        assert_eq!(page, json!({"entries": [entry], "next": null}));
        put(node, "a/b", b"2", Some(("If-Match", "\"7\""))).await.assert_problem(412, "precondition_failed");
        put(node, "a/b", b"2", Some(("If-None-Match", "*"))).await.assert_problem(412, "precondition_failed");
        put(node, "absent", b"2", Some(("If-Match", "*"))).await.assert_problem(412, "precondition_failed");
        cluster.get(node, &path("absent")).await.assert_problem(404, "unknown_key");
    }
    assert_eq!(put(2, "a/b", b"2", Some(("If-Match", "\"1\""))).await.json()["command"], 3);
    let delete = async |node: usize| {
        send(cluster.client().delete(cluster.url(node, &path("bytes")))).await.expect("a living node answers").json()
    };
    assert_eq!(delete(1).await, json!({"command": 4, "result": {"deleted": true}}));
    assert_eq!(delete(2).await, json!({"command": null, "result": {"deleted": false}}));
    for node in all {
        cluster.get(node, &path("bytes")).await.assert_problem(404, "unknown_key");
    }
    assert_eq!(cluster.assert_agreement().await.last(), 4);
}

/// Catches requests that nobody can read and that each leave a line in the log: whoever reaches
/// the port could fill the disk with them.
#[tokio::test]
async fn what_cannot_be_read_is_not_logged() {
    let mut cluster = Cluster::start("quiet", 1, &[]).await;
    for head in [b"nonsense\r\n\r\n".to_vec(), [b"GET / HTTP/1.1\r\nA: ", vec![b'a'; 256 << 10].as_slice()].concat()] {
        let mut stream = TcpStream::connect(cluster.http_address(0)).await.expect("it listens");
        // It may close before all of it is sent.
        _ = stream.write_all(&head).await;
        let mut reply = Vec::new();
        _ = stream.read_to_end(&mut reply).await;
        assert!(reply.is_empty() || reply.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&reply));
    }
    cluster.terminate(0);
    assert_eq!(cluster.ended(0).await.code(), Some(0));
    let log = cluster.log(0);
    assert!(log.contains("the node runs") && !log.contains("ERROR") && !log.contains("actix_http"), "{log}");
}
