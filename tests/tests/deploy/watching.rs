//! The Prometheus of `compose.yaml`, with a real engine.

use std::path::Path;
use std::process::{Command, Stdio};

use super::project::{Project, SERVICES};
use super::prometheus::Answers;
use super::{done, has};

/// An image of the Prometheus of this machine, which goes away with the test: nothing is fetched.
pub(crate) struct Image(pub(crate) String);

impl Image {
    fn new() -> Self {
        let name = format!("quorate-test-prometheus-{}", std::process::id());
        let root = tempfile::tempdir().expect("a directory");
        let place = |file: &Path, at: &Path| {
            let target = root.path().join(at.strip_prefix("/").expect("an absolute path"));
            std::fs::create_dir_all(target.parent().expect("it has one")).expect("made");
            std::fs::copy(file, target).expect("copied");
        };
        let program = done(Command::new("sh").args(["-c", "command -v prometheus"]));
        place(Path::new(&program), Path::new("/bin/prometheus"));
        // A program that needs no libraries is one of which `ldd` says so, with an error.
        let libraries = Command::new("ldd").arg(&program).output().expect("it runs");
        let said = String::from_utf8_lossy(&libraries.stdout).into_owned();
        for library in said.split_whitespace().filter(|word| word.starts_with('/')) {
            place(Path::new(library), Path::new(library));
        }
        let tar = Command::new("tar").args(["-C"]).arg(root.path()).args(["-c", "."]).stdout(Stdio::piped()).spawn();
        let packed = tar.expect("tar runs").stdout.take().expect("it has one");
        done(
            Command::new("docker")
                .args(["import", "--change", r#"ENTRYPOINT ["/bin/prometheus"]"#, "-", &name])
                .stdin(packed),
        );
        Self(name)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // One that stays behind does no harm.
        _ = Command::new("docker").args(["rmi", "--force", &self.0]).output();
    }
}

/// Catches containers that compose scales and Prometheus does not see, or sees for ever; one that is lost and of which nobody
/// is told, since its name is gone with it; and gateways taken for nodes.
#[tokio::test]
async fn prometheus_sees_the_containers_that_are_scaled() {
    if !has("prometheus", &["--version"]) {
        return;
    }
    let Some(mut project) = Project::new("quorate-watch") else { return };
    project.watch(Image::new());
    // All but Grafana.
    let services = ["a", "b", "c", "gateway", "acceptor", "prometheus"];
    let scaled = |scales: &[&str]| {
        let scales = scales.iter().flat_map(|scale| ["--scale", *scale]);
        let words = ["up", "--detach", "--no-recreate"].into_iter().chain(scales).chain(services);
        done(&mut project.compose(&words.collect::<Vec<_>>()));
    };
    scaled(&[]);
    project.healthy(&SERVICES).await;
    let url = format!("http://{}", done(&mut project.compose(&["port", "prometheus", "9090"])));
    let answers = Answers { url, client: project.client.clone() };
    answers.becomes("sum(quorate_ready{job=\"quorate\"})", "3").await;
    answers.becomes("sum(quorate_gateway_members_ready{job=\"quorate-gateway\"} > 2)", "3").await;

    scaled(&["acceptor=2", "gateway=2"]);
    answers.becomes("sum(quorate_ready{job=\"quorate\"})", "5").await;
    answers.becomes("count(quorate_gateway_members_ready{job=\"quorate-gateway\"})", "2").await;
    answers.becomes("sum(quorate_members_unheard)", "0").await;

    scaled(&["acceptor=1", "gateway=2"]);
    answers.becomes("count(up{job=\"quorate\"})", "4").await;
    answers.becomes("sum(quorate_members_unheard)", "0").await;
    done(Command::new("docker").args(["kill", &project.container("acceptor")]));
    answers.becomes("count(ALERTS{alertname=\"QuorateMemberUnheard\"})", "1").await;
    done(&mut project.compose(&["stop", "gateway"]));
    answers.becomes("count(ALERTS{alertname=\"QuorateNoGateway\"})", "1").await;
}
