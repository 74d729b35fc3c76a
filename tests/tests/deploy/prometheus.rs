//! Real Prometheus reads what nodes say, the rules and the dashboard.

use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use quorate_tests::cluster::{Cluster, Gateway, eventually, send};
use serde_json::{Value, json};

use super::{deploy, done, has};

/// Where Prometheus answers.
pub(crate) struct Answers {
    pub(crate) url: String,
    pub(crate) client: reqwest::Client,
}

/// Ends with the test.
struct Prometheus {
    process: Child,
    answers: Answers,
    _directory: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Prometheus {
    fn watches(cluster: &Cluster, gateway: &Gateway) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let addresses = (0..cluster.size()).map(|node| cluster.http_address(node).to_string());
        // JSON is YAML.
        let config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [deploy("prometheus/alerts.yaml").canonicalize().expect("the rules")],
            "scrape_configs": [
                {"job_name": "quorate", "static_configs": [{"targets": addresses.collect::<Vec<_>>()}]},
                {"job_name": "quorate-gateway", "static_configs": [{"targets": [gateway.address().to_string()]}]},
            ],
        });
        let file = directory.path().join("prometheus.yaml");
        std::fs::write(&file, config.to_string()).expect("written");
        let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it is bound");
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()));
        command.arg(format!("--web.listen-address={free}")).arg("--log.level=error");
        let process = command.stdin(Stdio::null()).spawn().expect("it runs");
        let answers = Answers { url: format!("http://{free}"), client: cluster.client().clone() };
        Self { process, answers, _directory: directory }
    }
}

impl Answers {
    async fn ask(&self, path: &str, query: &[(&str, &str)]) -> Option<Value> {
        let reply = send(self.client.get(format!("{}{path}", self.url)).query(query)).await.ok()?;
        serde_json::from_slice(&reply.body).ok()
    }

    /// What an expression is now; an error is `None` too.
    async fn query(&self, expression: &str) -> Option<Vec<Value>> {
        let answer = self.ask("/api/v1/query", &[("query", expression)]).await?;
        if answer["status"] == "success" { answer["data"]["result"].as_array().cloned() } else { None }
    }

    pub(crate) async fn becomes(&self, expression: &str, expected: &str) {
        eventually(&format!("{expression} = {expected}"), async || {
            let result = self.query(expression).await?;
            result.first().is_some_and(|sample| sample["value"][1] == expected).then_some(())
        })
        .await;
    }
}

/// Catches metrics that Prometheus would not take, or that its own linter finds wanting.
fn assert_clean(metrics: &str) {
    let mut lint = Command::new("promtool");
    lint.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = lint.spawn().expect("it runs");
    process.stdin.take().expect("it has one").write_all(metrics.as_bytes()).expect("it reads");
    let said = process.wait_with_output().expect("it ends");
    let text = [said.stdout, said.stderr].concat();
    assert!(said.status.success() && text.is_empty(), "{}", String::from_utf8_lossy(&text));
}

/// Catches an alert that does not fire when it should, or does when it should not, and files that are not read at all.
#[test]
fn the_rules_pass_their_tests() {
    if !has("promtool", &["--version"]) {
        return;
    }
    done(Command::new("promtool").args(["check", "config"]).arg(deploy("prometheus/prometheus.yaml")));
    done(Command::new("promtool").args(["test", "rules"]).arg(deploy("prometheus/alerts.test.yaml")));
    let rules = std::fs::read_to_string(deploy("prometheus/alerts.yaml")).expect("rules");
    let tests = std::fs::read_to_string(deploy("prometheus/alerts.test.yaml")).expect("tests");
    let page = std::fs::read_to_string(deploy("../docs/operations.md")).expect("a page");
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in alerts {
        assert!(tests.contains(&format!("alertname: {alert}\n")), "{alert} has no test");
        assert!(page.contains(&format!("`{alert}`")), "docs/operations.md does not say what to do about {alert}");
        assert!(
            rules.contains(&format!("runbook: 'docs/operations.md, section 6, {alert}'")),
            "{alert} has no runbook"
        );
    }
}

/// As it asks them of the job `quorate`.
fn questions_of_the_dashboard() -> Vec<String> {
    let dashboard = std::fs::read_to_string(deploy("grafana/dashboards/quorate.json")).expect("a dashboard");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let expressions = targets.map(|target| target["expr"].as_str().expect("an expression"));
    expressions.map(|text| text.replace("$job", "quorate").replace("$__rate_interval", "20s")).collect()
}

/// Catches metrics that are wrong, missing or lie: real Prometheus reads real nodes, and every question of the
/// dashboard is asked.
#[tokio::test]
async fn prometheus_reads_nodes_and_the_dashboard_is_answered() {
    if !has("prometheus", &["--version"]) || !has("promtool", &["--version"]) {
        return;
    }
    let mut cluster = Cluster::start("watched", 3, &[]).await;
    let gateway = Gateway::start(&cluster, &[0, 1, 2]).await;
    let prometheus = Prometheus::watches(&cluster, &gateway);
    let answers = &prometheus.answers;
    let leader = cluster.leader().await;
    for amount in [500, 600] {
        let arguments = json!({"warehouse": "A", "amount": amount});
        assert_eq!(cluster.call(leader, "inventory.inbound", &arguments).await.status, 200);
    }
    let call = cluster.client().post(gateway.url("/v1/functions/kv.put")).json(&json!({"key": "k", "value": 1}));
    assert_eq!(send(call).await.expect("the gateway answers").status, 200);
    assert_eq!(
        cluster.call(leader, "inventory.outbound", &json!({"warehouse": "A", "amount": 9_000})).await.status,
        422
    );
    assert_eq!(cluster.call(leader, &"x".repeat(50), &json!({})).await.status, 404);
    answers.becomes("sum(up{job=\"quorate\"})", "3").await;
    answers.becomes("sum(quorate_leader_leads)", "1").await;
    answers.becomes("sum(quorate_ready)", "3").await;
    answers.becomes("sum(quorate_members_unheard)", "0").await;
    answers.becomes("sum(up{job=\"quorate-gateway\"})", "1").await;
    answers.becomes("quorate_gateway_members_ready{job=\"quorate-gateway\"}", "3").await;
    answers.becomes("sum(quorate_gateway_calls_total{function=\"inventory.inbound\", outcome=\"issued\"})", "2").await;
    answers.becomes("sum(quorate_gateway_calls_total{outcome=\"refused\"})", "1").await;
    // Names that callers make up are no labels.
    answers.becomes("sum(quorate_gateway_calls_total{function=\"unknown\", outcome=\"unknown_function\"})", "1").await;
    for stage in ["gateway_call", "leader_execute", "leader_vote", "acceptor_sync", "learner_apply", "mailbox_wait"] {
        answers.becomes(&format!("sum(quorate_{stage}_seconds_count) > bool 0"), "1").await;
    }
    answers.becomes("sum(quorate_store_bytes) > bool 0", "1").await;
    for node in 0..3 {
        assert_clean(&cluster.get(node, "/metrics").await.text());
    }
    assert_clean(&gateway.get("/metrics").await.text());
    let expressions = questions_of_the_dashboard();
    // A rate needs two looks at a series.
    eventually("most questions of the dashboard, and all about gateways, have an answer", async || {
        let (mut answered, mut of_gateways) = (0, true);
        for expression in &expressions {
            let answer = answers.query(expression).await;
            let is_answered = !answer.unwrap_or_else(|| panic!("wrong: {expression}")).is_empty();
            answered += usize::from(is_answered);
            of_gateways &= is_answered || !expression.contains("-gateway");
        }
        (answered > 20 && of_gateways).then_some(())
    })
    .await;
    let rules = answers.ask("/api/v1/rules", &[]).await.expect("rules");
    for rule in rules["data"]["groups"][0]["rules"].as_array().expect("rules") {
        assert!(rule["health"] == "ok" && rule["state"] != "firing", "{rule}");
    }
    // A leader that is lost is seen to be lost, and the next one leads.
    cluster.kill9(leader);
    answers.becomes("sum(up{job=\"quorate\"})", "2").await;
    answers.becomes("sum(quorate_leader_leads)", "1").await;
    answers.becomes("max(quorate_members_unheard)", "1").await;
    answers.becomes("quorate_gateway_members_ready", "2").await;
}
