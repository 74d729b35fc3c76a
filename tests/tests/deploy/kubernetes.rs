//! The manifests against the schemas of the API.

use std::process::Command;

use super::{deploy, done, has};
use quorate_tests::skip::skipped;

/// `kubernetes-validate` of PyPI: `cargo xtask test` says where it is.
fn validator() -> Option<String> {
    let program = std::env::var("KUBERNETES_VALIDATE").unwrap_or_else(|_| "kubernetes-validate".to_owned());
    let there = Command::new(&program).arg("--version").output().is_ok_and(|done| done.status.success());
    if !there {
        skipped("kubernetes-validate");
    }
    there.then_some(program)
}

/// Catches a field that the API does not know, or knows elsewhere: it would be refused, or silently dropped.
#[test]
fn manifests_are_what_the_api_takes() {
    let Some(validator) = validator() else { return };
    let files = std::fs::read_dir(deploy("kubernetes")).expect("a directory").flatten().map(|entry| entry.path());
    let manifests: Vec<_> = files.filter(|path| !path.ends_with("kustomization.yaml")).collect();
    assert!(manifests.len() > 3, "{manifests:?}");
    let said = done(Command::new(validator).arg("--strict").args(&manifests));
    let kinds = [
        "statefulset/quorate",
        "statefulset/quorate-acceptor",
        "deployment/quorate-gateway",
        "service/quorate-peers",
        "poddisruptionbudget/quorate",
        "poddisruptionbudget/quorate-gateway",
        "networkpolicy/quorate",
    ];
    for kind in kinds {
        assert!(said.contains(&format!("passed for resource {kind} ")), "{said}");
    }
}

/// Catches probes, or a hint for Prometheus, at a port at which nothing listens, or that the network policy of the pod closes.
#[test]
fn who_watches_finds_the_port() {
    let read = |file: &str| std::fs::read_to_string(deploy("kubernetes").join(file)).expect("a manifest");
    for (pods, policy) in
        [("nodes.yaml", "network.yaml"), ("acceptors.yaml", "network.yaml"), ("gateway.yaml", "gateway.yaml")]
    {
        let (manifest, policy) = (read(pods), read(policy));
        assert!(manifest.contains(r#"prometheus.io/port: "9080""#), "{pods}");
        assert!(manifest.contains("- {name: metrics, containerPort: 9080}"), "{pods}");
        assert!(manifest.contains(r#"- {name: QUORATE_LISTEN__METRICS, value: "0.0.0.0:9080"}"#), "{pods}");
        let probes: Vec<&str> = manifest.lines().filter(|line| line.contains("httpGet:")).collect();
        assert!(probes.len() > 1 && probes.iter().all(|probe| probe.contains("port: metrics}")), "{pods}: {probes:?}");
        assert!(policy.contains("- {protocol: TCP, port: metrics}"), "{pods}: its policy closes the port");
    }
}

/// Catches callers who are led to a pod that is no gateway, which would tell them 421.
#[test]
fn rest_is_asked_of_those_who_serve_it() {
    let read = |file: &str| std::fs::read_to_string(deploy("kubernetes").join(file)).expect("a manifest");
    let selects = "selector: {app.kubernetes.io/name: quorate, app.kubernetes.io/component: member}";
    let services = read("services.yaml");
    let rest = services.split("\n---\n").find(|service| service.contains("port: 8080")).expect("a service of REST");
    assert!(rest.contains(selects), "{rest}");
    let is_member = |file: &str| {
        read(file).contains("labels: {app.kubernetes.io/name: quorate, app.kubernetes.io/component: member}")
    };
    let has_roles = |file: &str| read(file).contains("- {name: QUORATE_NODE__ROLES");
    assert!(is_member("nodes.yaml") && !has_roles("nodes.yaml"), "without a word about roles a node has all of them");
    assert!(!is_member("acceptors.yaml"));
}

/// Catches a manifest that the kustomization does not name, and settings that a node would refuse.
#[test]
fn the_kustomization_has_it_all() {
    if !has("kubectl", &["kustomize", "--help"]) {
        return;
    }
    let built = done(Command::new("kubectl").arg("kustomize").arg(deploy("kubernetes")));
    for part in ["kind: StatefulSet", "kind: PodDisruptionBudget", "kind: NetworkPolicy", "image: quorate:latest"] {
        assert!(built.contains(part), "{part} is missing in {built}");
    }
    let pods = [
        ("kind: StatefulSet\n", "name: quorate\n", "quorate-2.quorate-peers:7080"),
        ("kind: StatefulSet\n", "name: quorate-acceptor\n", "leave = \"on_stop\""),
        ("kind: Deployment\n", "name: quorate-gateway\n", "quorate-2.quorate-peers:8080"),
    ];
    for (kind, name, says) in pods {
        let named = format!("\n  {name}");
        let manifest = built.split("\n---\n").find(|part| part.contains(kind) && part.contains(&named)).expect(name);
        let config = done(&mut serve_as(manifest));
        assert!(config.contains(says), "{config}");
    }
}

/// What shows the configuration that a pod of this manifest has.
fn serve_as(manifest: &str) -> Command {
    let mut serve = quorate_tests::cluster::quorate();
    serve.args(["serve", "--print-config"]);
    let mut name = None;
    for line in manifest.lines().map(|line| line.trim_start().trim_start_matches("- ")) {
        if let Some(variable) = line.strip_prefix("name: ").filter(|name| name.starts_with("QUORATE_")) {
            name = Some(variable.to_owned());
        } else if let Some(value) = line.strip_prefix("value: ")
            && let Some(variable) = name.take()
        {
            // What Kubernetes puts in.
            let value = value.trim_matches('"').replace("$(QUORATE_NODE__NAME)", "quorate-0");
            serve.env(variable, value);
        }
    }
    serve.env("QUORATE_NODE__NAME", "quorate-0");
    serve
}
