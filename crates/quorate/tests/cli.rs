//! The binary from outside: exit codes, error lines, the clients against a server that answers
//! as told, and that nothing outlives `dev`.
#![expect(clippy::disallowed_methods, reason = "a test of processes waits in real time")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Generous: these run beside everything else on small machines.
const DEADLINE: Duration = Duration::from_secs(60);

fn quorate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    command.args(arguments).env_remove("RUST_LOG");
    let ours = std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("QUORATE_"));
    for name in ours {
        command.env_remove(name);
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    quorate(arguments).output().expect("the binary runs")
}

/// Exit code, standard output, standard error.
fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A server that gives each connection one answer, in order, and hands over what was asked.
fn server(answers: Vec<String>) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (asked, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for answer in answers {
            let (stream, _) = listener.accept().expect("a client");
            let mut reader = BufReader::new(stream);
            let mut request = String::new();
            while !request.ends_with("\r\n\r\n") {
                reader.read_line(&mut request).expect("a line");
            }
            let lower = request.to_lowercase();
            let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
            let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a length"))];
            reader.read_exact(&mut body).expect("the body");
            request.push_str(&String::from_utf8(body).expect("text"));
            asked.send(request).expect("the test listens");
            reader.get_mut().write_all(answer.as_bytes()).expect("sent");
        }
    });
    (url, requests)
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}", body.len())
}

/// Catches a wrong configuration that exits like a failing disk, or with more than one line.
#[test]
fn wrong_configuration_is_one_line_and_exit_code_2() {
    for (arguments, says) in [
        (&["serve", "--set", "protocol.windw=5"][..], "quorate: protocol.windw (--set): unknown key"),
        (&["serve", "--config", "/nowhere/x.toml"], "quorate: --config /nowhere/x.toml: cannot be read"),
        (&["call", "f", "{"], "quorate: the arguments are not JSON"),
        (&["get", "k", "--url", "https://h:1"], "quorate: --url https://h:1: needs --ca FILE"),
        (&["bench", "--arguments", "{\"a\": \"$it\"}"], "quorate: --arguments: $it: known are"),
        (&["bench", "--setup", "gold:5"], "quorate: --setup: gold:5: must be inventory:N"),
    ] {
        let (code, out, error) = said(&run(arguments));
        assert_eq!(code, Some(2), "{arguments:?}: {error}");
        assert!(error.starts_with(says) && error.lines().count() == 1 && out.is_empty(), "{arguments:?}: {error}{out}");
    }
    assert_eq!(run(&["serve", "--nonsense"]).status.code(), Some(2));
    assert_eq!(run(&["call"]).status.code(), Some(2));
    let wrong = said(&run(&["status", "--token", "s3cret and more"]));
    assert!(wrong.0 == Some(2) && !wrong.2.contains("s3cret"), "{wrong:?}");
    let wrong = said(&run(&["status", "--url", "http://me:s3cret@h:1"]));
    assert!(wrong.0 == Some(2) && wrong.2.contains("--token @FILE") && !wrong.2.contains("s3cret"), "{wrong:?}");
}

/// RELIABILITY 6, row 8. Catches a token that other users of the machine see, and its owner is not told; and one of a file or of
/// the environment that he is warned of for nothing.
#[test]
fn a_token_among_the_arguments_is_warned_of() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "s3cret").expect("written");
    let of_file = format!("@{}", file.path().display());
    let dead = ["--url", "http://127.0.0.1:1"];
    let warns = |command: &mut Command| {
        let (code, _, error) = said(&command.output().expect("the binary runs"));
        assert!(code == Some(1) && !error.contains("s3cret"), "{error}");
        error.contains("other users of this machine see arguments; give --token @FILE")
    };
    for words in [&["status"][..], &["token", "list"], &["acceptor", "remove", "b"], &["get", "k"]] {
        let with = |token: &str| warns(quorate(&[words, &dead].concat()).args(["--token", token]));
        assert!(with("s3cret") && !with(&of_file), "{words:?}");
        assert!(!warns(quorate(&[words, &dead].concat()).env("QUORATE_TOKEN", "s3cret")), "{words:?}");
    }
}

/// Catches a misspelt variable that is ignored by the node and by `dev`.
#[test]
fn a_variable_that_is_no_key_is_not_ignored() {
    let data = tempfile::tempdir().expect("a directory");
    let data = data.path().to_str().expect("a plain path");
    for arguments in [&["serve", "--print-config"][..], &["dev", "--nodes", "1", "--data", data]] {
        let output = quorate(arguments).env("QUORATE_LISTEN_HTTP", "127.0.0.1:9").output().expect("the binary runs");
        let (code, out, error) = said(&output);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{error}");
        let says = "quorate: environment QUORATE_LISTEN_HTTP: unknown key; the nearest one is QUORATE_LISTEN__HTTP";
        assert!(error.starts_with(says) && error.lines().count() == 1, "{error}");
    }
}

/// Catches `--print-config` that starts a node, or an environment that is not read.
#[test]
fn print_config_shows_the_layers() {
    let output = quorate(&["serve", "--print-config", "--set", "log.format=json"])
        .env("QUORATE_LISTEN__HTTP", "127.0.0.1:9999")
        .output()
        .expect("the binary runs");
    let (code, out, error) = said(&output);
    assert_eq!(code, Some(0), "{error}");
    assert!(out.contains("http = \"127.0.0.1:9999\"  # environment QUORATE_LISTEN__HTTP"), "{out}");
    assert!(out.contains("format = \"json\"  # --set"), "{out}");
}

/// A11: catches a call without a key, which a second attempt would execute twice, and a client
/// that gives up although another node is there.
#[test]
fn a_call_tries_the_next_node_with_the_same_key() {
    let (url, requests) = server(vec![answer("200 OK", "", r#"{"command": 17, "result": {"stock": 500}}"#)]);
    let dead = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let urls = format!("http://{dead},{url}");
    let output = run(&["call", "inventory.inbound", r#"{"warehouse": "A"}"#, "--wait", "1500ms", "--url", &urls]);
    assert_eq!(said(&output), (Some(0), "{\"stock\":500}\ncommand 17\n".into(), String::new()));
    let request = requests.recv_timeout(DEADLINE).expect("a request");
    let lower = request.to_lowercase();
    assert!(request.starts_with("POST /v1/functions/inventory.inbound HTTP/1.1\r\n"), "{request}");
    assert!(lower.contains("\r\nidempotency-key: ") && lower.contains("\r\nprefer: wait=2\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n{\"warehouse\": \"A\"}"), "{request}");
}

/// Catches a refusal that looks like success, or whose outcome is kept from the caller.
#[test]
fn a_problem_is_one_line_and_exit_code_1() {
    let problem = r#"{"code": "no_leader", "detail": "nobody leads", "outcome": "unknown"}"#;
    let (url, _requests) = server(vec![answer("503 Service Unavailable", "", problem)]);
    let (code, out, error) = said(&run(&["call", "f", "--key", "k", "--url", &url]));
    let line = "quorate: no_leader: nobody leads (HTTP 503; whether it was executed is unknown: ask again with the same key)\n";
    assert_eq!((code, out.as_str(), error.as_str()), (Some(1), "", line));
}

/// Catches a program that reads standard output and finds nothing there when a call fails, and
/// a problem that loses what the node said of it.
#[test]
fn a_failure_is_a_document_for_programs() {
    let problem = r#"{"code":"no_leader","detail":"nobody leads","outcome":"unknown","status":503,"title":"T"}"#;
    let (url, _requests) = server(vec![
        answer("503 Service Unavailable", "", problem),
        answer("502 Bad Gateway", "", "<html>"),
        answer(
            "400 Bad Request",
            "",
            r#"{"code": "invalid_prefer", "detail": "at most 60", "outcome": "not_executed"}"#,
        ),
    ]);
    let dead = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let dead = format!("http://{dead}");
    for (arguments, url, exit, code, outcome) in [
        (&["call", "f"][..], &url, 1, "no_leader", "unknown"),
        (&["get", "k"], &url, 1, "bad_gateway", "unknown"),
        (&["call", "f", "--wait", "90s"], &url, 2, "invalid_prefer", "not_executed"),
        (&["status"], &dead, 1, "failed", "unknown"),
        (&["put", ".", "1"], &dead, 2, "usage", "not_executed"),
        (&["bench", "--arguments", "{"], &dead, 2, "usage", "not_executed"),
    ] {
        let output = quorate(arguments).args(["--output", "json", "--url", url]).output().expect("the binary runs");
        let (ended, out, error) = said(&output);
        assert_eq!((ended, out.lines().count(), error.lines().count()), (Some(exit), 1, 1), "{arguments:?} {error}");
        let document: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!((&document["code"], &document["outcome"]), (&code.into(), &outcome.into()), "{arguments:?} {out}");
        assert!(error.starts_with("quorate: "), "{error}");
        assert!(code != "no_leader" || out.trim_end() == problem, "{out}");
    }
}

/// Catches keys that become other keys in the URL, and conditions that are not sent.
#[test]
fn keys_and_conditions_arrive_as_given() {
    let headers = "ETag: \"9\"\r\nQuorate-Command: 12\r\nQuorate-Consistency: local\r\n";
    let (url, requests) = server(vec![
        answer("200 OK", headers, "[1]"),
        answer("200 OK", headers, "[1]"),
        answer("200 OK", "", r#"{"command": 13}"#),
        answer("200 OK", "", r#"{"command": null}"#),
    ]);
    let get = run(&["get", "a/../ü ?", "--consistency", "local", "--output", "json", "--url", &url]);
    let entry: serde_json::Value = serde_json::from_slice(&get.stdout).expect("JSON");
    assert_eq!((&entry["value"][0], &entry["version"], &entry["command"]), (&1.into(), &9.into(), &12.into()));
    let request = requests.recv_timeout(DEADLINE).expect("a request");
    assert!(request.starts_with("GET /v1/state/a%2F..%2F%C3%BC%20%3F?consistency=local HTTP/1.1"), "{request}");
    let get = run(&["get", "k", "--url", &url]);
    assert_eq!(said(&get), (Some(0), "[1]".into(), String::new()), "what goes into a file is the value");
    requests.recv_timeout(DEADLINE).expect("a request");
    let put = run(&["put", "k", "plain text", "--if-version", "9", "--url", &url]);
    assert_eq!(said(&put), (Some(0), "command 13\n".into(), String::new()));
    let request = requests.recv_timeout(DEADLINE).expect("a request").to_lowercase();
    assert!(request.contains("\r\nif-match: \"9\"\r\n") && request.contains("octet-stream"), "{request}");
    let delete = run(&["delete", "k", "--if-version", "0", "--url", &url]);
    assert_eq!(said(&delete), (Some(0), "no command: nothing changed\n".into(), String::new()));
    let request = requests.recv_timeout(DEADLINE).expect("a request").to_lowercase();
    assert!(request.starts_with("delete ") && request.contains("\r\nif-none-match: *\r\n"), "{request}");
}

/// Catches a node that loses its vote where it was to be removed, or the other way round, and a dry run that is none.
#[test]
fn acceptors_are_changed_as_it_was_said() {
    let body = r#"{"command": 7, "result": {"membership": {"nodes": [{"name": "a", "weight": 1}]}}}"#;
    let asked: [(&[&str], &str, &str); 3] = [
        (&["add", "d", "--weight", "2"], "set_acceptor", r#"{"dry_run":false,"node":"d","weight":2}"#),
        (&["remove", "4", "--wait", "1500ms"], "set_acceptor", r#"{"dry_run":false,"node":4,"weight":0}"#),
        (&["remove", "d", "--for-good", "--dry-run"], "remove", r#"{"dry_run":true,"node":"d"}"#),
    ];
    let (url, requests) = server(vec![answer("200 OK", "Content-Type: application/json\r\n", body); 3]);
    for (words, function, arguments) in asked {
        let (code, out, error) = said(&run(&[&["acceptor"], words, &["--url", &url]].concat()));
        assert!(code == Some(0) && out.contains(": a"), "{words:?}: {code:?} {out} {error}");
        let request = requests.recv_timeout(DEADLINE).expect("a request");
        assert!(request.starts_with(&format!("POST /v1/functions/cluster.{function} HTTP/1.1")), "{request}");
        assert!(request.ends_with(arguments), "{request}");
        assert_eq!(request.to_lowercase().contains("prefer: wait=2"), words.contains(&"--wait"), "{request}");
    }
}

/// Catches a bench that is told its nodes otherwise than every other command, and a measurement
/// that counts refusals as calls, or does not count them at all.
#[test]
fn bench_counts_answers_by_what_they_are() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.expect("a client"));
            std::thread::spawn(move || {
                let mut calls = 0;
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                    if line.starts_with("GET /metrics") {
                        return;
                    }
                    if line == "\r\n" {
                        let mut body = [0; 2];
                        reader.read_exact(&mut body).expect("the body, which is {}");
                        calls += 1;
                        let (status, body) = if calls % 4 == 0 { (422, r#"{"code":"no"}"#) } else { (200, "{}") };
                        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                        if reader.get_mut().write_all(head.as_bytes()).is_err() {
                            return;
                        }
                    }
                    line.clear();
                }
            });
        }
    });
    let arguments = ["bench", "f", "--arguments", "{}", "--clients", "2", "--calls", "400", "--warmup", "0"];
    let output = quorate(&arguments)
        .args(["--output", "json", "--url", &url, "--urls", &url])
        .output()
        .expect("the binary runs");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let (calls, refused) = (report["calls"].as_u64().expect("calls"), report["errors"]["no"].as_u64().expect("errors"));
    assert!((400..=402).contains(&(calls + refused)), "{report}");
    assert!((calls / 3).abs_diff(refused) <= 2, "{report}");
    assert!(report["latency_ms"]["p50"].as_f64().is_some_and(|millis| millis > 0.0), "{report}");
}

/// Two neighbouring ports that are free now, far from the default ones.
fn free_ports() -> (u16, u16) {
    let port = |_| TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    (port(0), port(1))
}

fn dev(data: &Path, http: u16, peer: u16) -> Child {
    quorate(&["dev", "--nodes", "1", "--http-base", &http.to_string(), "--peer-base", &peer.to_string(), "--data"])
        .arg(data)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs")
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < DEADLINE, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Catches nodes that outlive a killed `dev` and hold ports and data against the next one, and a
/// second `dev` that cannot continue the first one's cluster.
#[test]
fn nodes_end_with_dev_even_when_it_is_killed() {
    let data = tempfile::tempdir().expect("a directory");
    let (http, peer) = free_ports();
    for killed in [true, false] {
        let mut dev = dev(data.path(), http, peer);
        let out = BufReader::new(dev.stdout.take().expect("piped"));
        assert!(out.lines().any(|line| line.expect("text").starts_with("All 1 nodes are ready")), "not ready");
        assert!(TcpListener::bind(("127.0.0.1", http)).is_err(), "the node listens");
        a_second_dev_writes_nothing(data.path());
        let nodes = std::fs::read_to_string(data.path().join("nodes.json")).expect("nodes.json");
        let nodes: serde_json::Value = serde_json::from_str(&nodes).expect("JSON");
        let words = format!("/proc/{}/cmdline", nodes[0]["pid"]);
        if killed {
            dev.kill().expect("killed");
            dev.wait().expect("ended");
        } else {
            let pid = dev.id().to_string();
            assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
            assert_eq!(dev.wait().expect("ended").code(), Some(0), "stopped as asked");
            assert!(TcpListener::bind(("127.0.0.1", http)).is_ok(), "the node was stopped first");
        }
        wait_until("the end of the node", || TcpListener::bind(("127.0.0.1", http)).is_ok());
        wait_until("the end of its peer port", || TcpListener::bind(("127.0.0.1", peer)).is_ok());
        // Empty for a process that has ended and was not yet waited for.
        wait_until("the end of its process", || std::fs::read(&words).unwrap_or_default().is_empty());
    }
}

/// Under a running cluster, with ports that are free.
fn a_second_dev_writes_nothing(data: &Path) {
    let file = data.join("node-1/quorate.toml");
    let before = std::fs::read_to_string(&file).expect("the file of the node");
    let (http, peer) = free_ports();
    let second = dev(data, http, peer).wait_with_output().expect("the binary runs");
    assert_eq!(second.status.code(), Some(2));
    assert_eq!(std::fs::read_to_string(&file).expect("the file of the node"), before);
}

/// Catches a `dev` that leaves it to the log of a node to say what is wrong with a `--set`.
#[test]
fn dev_reads_the_configuration_before_it_starts_nodes() {
    let data = tempfile::tempdir().expect("a directory");
    let (http, peer) = free_ports();
    let output = quorate(&["dev", "--nodes", "1", "--http-base", &http.to_string(), "--peer-base", &peer.to_string()])
        .args(["--set", "log.levl=x", "--data"])
        .arg(data.path())
        .output()
        .expect("the binary runs");
    let (code, _, error) = said(&output);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.starts_with("quorate: log.levl (--set): unknown key") && error.lines().count() == 1, "{error}");
    assert!(!data.path().join("node-1/log").exists(), "no node was started");
}

/// Catches a client that panics when its output cannot be written.
#[test]
fn a_full_disk_behind_standard_output_is_a_failure() {
    let (url, _requests) = server(vec![answer("200 OK", "Content-Type: application/json\r\n", "{}")]);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let output = quorate(&["status", "--url", &url]).stdout(full).output().expect("the binary runs");
    let (code, _, error) = said(&output);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.starts_with("quorate: standard output cannot be written") && error.lines().count() == 1, "{error}");
}

/// Catches a `dev` that starts half of its nodes before it finds a port in use.
#[test]
fn a_port_in_use_is_said_before_anything_starts() {
    let data = tempfile::tempdir().expect("a directory");
    let (http, _) = free_ports();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let peer = taken.local_addr().expect("an address").port();
    let output = quorate(&["dev", "--nodes", "1", "--http-base", &http.to_string(), "--peer-base", &peer.to_string()])
        .arg("--data")
        .arg(data.path().join("new"))
        .output()
        .expect("the binary runs");
    let (code, _, error) = said(&output);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains(&format!("port {peer} cannot be used")) && error.contains("--peer-base"), "{error}");
    assert!(!data.path().join("new").exists(), "nothing was made");
}

/// Catches messages that panic where standard error cannot be written: the exit code would be 101.
#[test]
fn a_full_disk_behind_standard_error_changes_no_exit_code() {
    let dead = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    for (arguments, code) in
        [(&["get", "k", "--url", &format!("http://{dead}")][..], 1), (&["serve", "--set", "protocol.windw=5"], 2)]
    {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
        let status = quorate(arguments).stderr(full).stdout(Stdio::null()).status().expect("the binary runs");
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

/// Catches a backup that takes the place of a device, a socket or a link, or asks a node before it looks.
#[test]
fn a_backup_takes_the_place_of_regular_files_only() {
    let place = tempfile::tempdir().expect("a directory");
    let path = |name: &str| place.path().join(name).to_str().expect("a plain path").to_owned();
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).expect("a socket");
    std::os::unix::fs::symlink("nowhere", path("link")).expect("a link");
    let dead = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let dead = format!("http://{dead}");
    for (file, says) in [
        (path("socket"), "is no regular file"),
        (path("link"), "leads to no file"),
        (path("."), "is a directory"),
        ("-".to_owned(), "is no file"),
    ] {
        let (code, _, error) = said(&run(&["backup", "--force", &file, "--url", &dead]));
        assert!(code == Some(2) && error.contains(says) && error.lines().count() == 1, "{file}: {code:?} {error}");
    }
    let (code, _, error) = said(&run(&["restore", "-", "--dry-run"]));
    assert!(code == Some(2) && error.contains("`-` is no file"), "{code:?} {error}");
}

/// Catches a restore that is refused, and has written something before: a cluster that begins with nothing where a backup
/// was to be, and the configuration of one that is there.
#[test]
fn a_refused_restore_of_a_dev_cluster_leaves_everything_as_it_was() {
    let place = tempfile::tempdir().expect("a directory");
    let path = |name: &str| place.path().join(name).to_str().expect("a plain path").to_owned();
    std::fs::write(path("bad"), "no backup").expect("written");
    let restore = |dev: &str| said(&run(&["restore", &path("bad"), "--dev", &path(dev), "--nodes", "2"]));
    let (code, _, error) = restore("new");
    assert!(code == Some(1) && error.contains("bad: "), "{code:?} {error}");
    assert!(!Path::new(&path("new")).exists());

    let there = ["there/node-1", "there/node-2", "there/node-2/data"].map(&path);
    there.iter().for_each(|name| std::fs::create_dir_all(name).expect("a directory"));
    let files = ["there/node-1/quorate.toml", "there/node-2/data/IDENTITY"].map(&path);
    files.iter().for_each(|name| std::fs::write(name, "mine").expect("written"));
    let (code, _, error) = restore("there");
    assert!(code == Some(2) && error.contains("node-2/data is not empty"), "{code:?} {error}");
    files.iter().for_each(|name| assert_eq!(std::fs::read_to_string(name).expect("readable"), "mine"));
    let entries = |name: &String| std::fs::read_dir(name).expect("a directory").count();
    assert_eq!(there.each_ref().map(entries), [1, 1, 1], "nothing is added");
}

/// Catches a cluster that begins with some nodes from a backup and others empty, and advice that is not the way out.
#[test]
fn a_cluster_of_which_a_restore_was_cut_short_is_not_started() {
    let place = tempfile::tempdir().expect("a directory");
    std::fs::create_dir_all(place.path().join("node-1")).expect("made");
    std::fs::write(place.path().join("RESTORING"), "").expect("written");
    let dev = place.path().to_str().expect("a plain path");
    let (code, _, error) = said(&run(&["dev", "--data", dev]));
    let advice = format!("quorate restore FILE --dev {dev}");
    assert!(code == Some(1) && error.contains(&advice) && error.lines().count() == 1, "{code:?} {error}");
    let backup = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/backup-1.quorate");
    let (code, _, error) = said(&run(&["restore", backup, "--dev", dev]));
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert!(!place.path().join("RESTORING").exists() && place.path().join("node-3/data/IDENTITY").exists());
}

/// Catches advice that fits calls only, and none where there is something to do.
#[test]
fn a_refused_backup_has_no_key() {
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("b");
    let problem = r#"{"code": "busy", "detail": "wait", "outcome": "unknown"}"#;
    let (url, _requests) = server(vec![answer("503 Service Unavailable", "", problem)]);
    let (code, _, error) = said(&run(&["backup", file.to_str().expect("a plain path"), "--url", &url]));
    assert_eq!((code, error.as_str()), (Some(1), "quorate: busy: wait (HTTP 503)\n"));
    let problem = r#"{"code": "no_leader", "detail": "none", "outcome": "not_executed"}"#;
    let (url, requests) = server(vec![answer("503 Service Unavailable", "", problem)]);
    let (code, _, error) = said(&run(&["backup", file.to_str().expect("a plain path"), "--url", &url]));
    assert!(code == Some(1) && error.contains("--local") && error.lines().count() == 1, "{code:?} {error}");
    assert!(requests.recv().expect("asked").starts_with("GET /v1/backup HTTP"));
}

/// Catches two backups to one name of which one cuts off what the other has verified and is about to name.
#[test]
fn two_backups_do_not_write_to_one_name() {
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("b").to_str().expect("a plain path").to_owned();
    // It takes the request, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    let mut first = quorate(&["backup", &file, "--url", &url]).stderr(Stdio::null()).spawn().expect("the binary runs");
    let _asks = silent.accept().expect("it asks once it has begun its file");
    let (code, _, error) = said(&run(&["backup", &file, "--url", &url]));
    assert!(code == Some(2) && error.contains("under way") && error.lines().count() == 1, "{code:?} {error}");
    assert!(place.path().join("b.part").exists(), "that of the first one stays");
    first.kill().expect("killed");
    first.wait().expect("ended");
    // What the first has left keeps nobody away.
    let (url, _requests) = server(vec![answer("200 OK", "", "no backup")]);
    let (code, _, error) = said(&run(&["backup", &file, "--url", &url]));
    assert!(code == Some(1) && error.contains("what arrived is not usable"), "{code:?} {error}");
    assert_eq!(std::fs::read_dir(place.path()).expect("a directory").count(), 0, "nothing is left of it");
}

/// Catches a recovery that takes the vote of a new disk away unasked, a dry run that ends otherwise than the real one,
/// and one that goes on with the directory of another cluster.
#[test]
fn a_recovery_takes_nothing_unasked() {
    let place = tempfile::tempdir().expect("a directory");
    let (http, peer) = free_ports();
    let (data, file) = (place.path().join("data"), place.path().join("a.toml"));
    let text = format!(
        "[node]\nname = \"a\"\ndata_dir = {data:?}\n[cluster]\nname = \"q\"\n\
         members = [\"a=127.0.0.1:{peer}\", \"b=127.0.0.1:1\", \"c=127.0.0.1:2\"]\n\
         [listen]\nhttp = \"127.0.0.1:{http}\"\npeer = \"127.0.0.1:{peer}\"\n"
    );
    std::fs::write(&file, text).expect("written");
    let config = file.to_str().expect("a plain path");
    let recover = |more: &[&str]| said(&run(&[&["recover", "--config", config], more].concat()));
    let says = |(code, _, error): (Option<i32>, String, String), says: &str| {
        assert!(code == Some(2) && error.contains(says) && error.lines().count() == 1, "{code:?} {error}");
    };
    says(recover(&["--set", &format!("node.data_dir={config}")]), "node.data_dir");
    let (code, out, _) = recover(&["--dry-run"]);
    assert!(code == Some(0) && out.contains("as a new one") && out.contains("nothing was changed"), "{code:?} {out}");
    let mut node = quorate(&["serve", "--config", config]).stderr(Stdio::null()).spawn().expect("the binary runs");
    wait_until("the directory", || data.join("IDENTITY").exists());
    node.kill().expect("killed");
    node.wait().expect("ended");
    for more in [&[][..], &["--dry-run"]] {
        says(recover(more), "--force");
    }
    assert!(!data.join("before-recovery-1").exists());
    let begun = format!("before-recovery-1\n{}\nother\n1\na\n", "0f".repeat(16));
    std::fs::write(data.join("RECOVERING"), begun).expect("written");
    says(recover(&["--force"]), "belongs to node `a` (id 1) of cluster `other`");
}

/// Catches a health check that calls a node healthy that is not, that hides why, or that needs to be told where the
/// node of its own environment listens.
#[test]
fn health_is_an_exit_code() {
    let well = answer("200 OK", "", "[+]process ok: it answers\nlivez check passed\n");
    let ill = answer("503 S", "", "[+]process ok: it answers\n[-]leader failed: none\nreadyz check failed\n");
    let foreign = answer("200 OK", "", "<html>hello</html>");
    let (url, requests) = server(vec![well, ill.clone(), ill, foreign]);
    let own = format!("QUORATE_LISTEN__HTTP={}", &url["http://".len()..]);
    let (variable, address) = own.split_once('=').expect("it has one");
    let health = |arguments: &[&str]| {
        let mut command = quorate(&[&["health"], arguments].concat());
        said(&command.env(variable, address).output().expect("the binary runs"))
    };
    let (code, out, error) = health(&["--live"]);
    assert_eq!((code, error.as_str()), (Some(0), ""), "{out}");
    assert!(requests.recv().expect("asked").starts_with("GET /livez?verbose "));
    let (code, out, error) = health(&[]);
    assert!(requests.recv().expect("asked").starts_with("GET /readyz?verbose "));
    assert_eq!(code, Some(1));
    assert!(out.contains("[-]leader failed: none") && error.contains("is not ready: leader"), "{out}{error}");
    let (code, out, _) = health(&["--output", "json"]);
    let document: serde_json::Value = serde_json::from_str(&out).expect("one document");
    assert_eq!((code, &document["ok"], &document["checks"][1]["name"]), (Some(1), &false.into(), &"leader".into()));
    let (code, _, error) = health(&["--url", &url]);
    assert!(code == Some(1) && error.contains("does not answer as a node"), "{error}");
    let (code, _, error) = health(&[]);
    assert!(code == Some(1) && error.contains("no answer from"), "nobody listens any more: {error}");
    assert_eq!(said(&run(&["health", "--set", "listen.http=here"])).0, Some(2));
}
