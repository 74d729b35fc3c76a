//! `[tracing]`: whether calls are followed, and where their spans go (ADR 0035).

use std::path::PathBuf;
use std::time::Duration;

use protocol::trace::Sampling;
use reqwest::Url;

use super::layers::{ConfigError, Settings};
use super::{MILLISECOND, SECOND};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tracing {
    /// Where spans are sent, with the path.
    pub(crate) endpoint: Url,
    /// The file with the authorities behind the collector's certificate. Nothing: it speaks plain HTTP.
    pub(crate) authorities: Option<PathBuf>,
    /// Which calls are followed.
    pub(crate) sampling: Sampling,
    /// What this cluster is called among the services that the collector knows.
    pub(crate) service: String,
    /// How long the collector may take for one request.
    pub(crate) timeout: Duration,
}

/// Where collectors take spans, below the address that one gives.
const PATH: &str = "/v1/traces";

impl Tracing {
    /// Nothing: no call is followed.
    pub(super) fn from_settings(settings: &Settings) -> Result<Option<Self>, ConfigError> {
        let sampling = settings.number("tracing.sample").and_then(Sampling::new);
        let sampling = sampling.ok_or_else(|| settings.wrong("tracing.sample"))?;
        let timeout = settings.duration("tracing.timeout", 100 * MILLISECOND..=60 * SECOND)?;
        let service = settings.text("tracing.service")?;
        if service.is_empty() {
            return Err(settings.wrong("tracing.service"));
        }
        let key = "tracing.otlp_ca";
        let authorities = Some(settings.text(key)?).filter(|file| !file.is_empty()).map(PathBuf::from);
        if settings.text("tracing.otlp_endpoint")?.is_empty() {
            let needs = "leave it out, or say where spans go: tracing.otlp_endpoint";
            return authorities.map_or(Ok(None), |_| Err(settings.refuse(key, needs)));
        }
        let endpoint = endpoint(settings)?;
        match (endpoint.scheme(), &authorities) {
            ("https", None) => {
                let needs =
                    "must name the authorities that sign for the collector: tracing.otlp_endpoint begins with https";
                return Err(settings.refuse(key, needs));
            }
            ("http", Some(_)) => {
                let needs = "leave it out, or let tracing.otlp_endpoint begin with https";
                return Err(settings.refuse(key, needs));
            }
            _ => {}
        }
        Ok(Some(Self { endpoint, authorities, sampling, service, timeout }))
    }
}

fn endpoint(settings: &Settings) -> Result<Url, ConfigError> {
    let key = "tracing.otlp_endpoint";
    let wrong = || settings.wrong(key);
    let mut url = Url::parse(&settings.text(key)?).map_err(|_| wrong())?;
    let is_plain = url.query().is_none() && url.fragment().is_none();
    if !["http", "https"].contains(&url.scheme()) || url.host_str().is_none_or(str::is_empty) || !is_plain {
        return Err(wrong());
    }
    if !url.username().is_empty() || url.password().is_some() {
        let needs =
            "must hold no secret: it is printed; let a collector on this machine pass spans on to one that asks for it";
        return Err(ConfigError(format!("{key}: {needs}")));
    }
    if url.path() == "/" {
        url.set_path(PATH);
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::super::Sources;
    use super::*;

    fn read(sets: &[&str]) -> Result<Option<Tracing>, String> {
        let sources = Sources { sets: sets.iter().map(ToString::to_string).collect(), ..Sources::default() };
        let settings = Settings::collect(&sources).map_err(|error| error.to_string())?;
        Tracing::from_settings(&settings).map_err(|error| error.to_string())
    }

    fn endpoint_of(given: &str) -> String {
        let set = format!("tracing.otlp_endpoint={given}");
        read(&[&set]).expect("a good one").expect("it is on").endpoint.to_string()
    }

    /// Catches spans that are sent to a path where no collector takes them, and a path that is given and not kept.
    #[test]
    fn the_path_of_a_collector_is_added_where_none_is_given() {
        for (given, expected) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://collector:4318/", "http://collector:4318/v1/traces"),
            ("http://[::1]:4318/otlp/v1/traces", "http://[::1]:4318/otlp/v1/traces"),
        ] {
            assert_eq!(endpoint_of(given), expected);
        }
    }

    /// Catches tracing that is on without anybody having asked, and a setting that is wrong and found out only when the
    /// first span is lost.
    #[test]
    fn tracing_is_off_until_it_is_asked_for_and_then_checked() {
        assert_eq!(read(&[]), Ok(None));
        let on = "tracing.otlp_endpoint=http://collector:4318";
        let sampled = read(&[on, "tracing.sample=1"]).expect("all there is").expect("it is on");
        assert_eq!(sampled.sampling, Sampling::new(1.0).expect("a share"));
        let secure = ["tracing.otlp_endpoint=https://collector", "tracing.otlp_ca=ca.pem"];
        assert_eq!(read(&secure).expect("all there is").expect("it is on").authorities, Some("ca.pem".into()));
        for (key, sets) in [
            ("tracing.otlp_endpoint", &["tracing.otlp_endpoint=collector:4318"][..]),
            ("tracing.otlp_endpoint", &["tracing.otlp_endpoint=grpc://collector:4317"]),
            ("tracing.otlp_endpoint", &["tracing.otlp_endpoint=http://"]),
            ("tracing.otlp_endpoint", &["tracing.otlp_endpoint=http://collector/?key=1"]),
            ("tracing.otlp_endpoint", &["tracing.otlp_endpoint=http://me:secret@collector"]),
            ("tracing.otlp_ca", &["tracing.otlp_endpoint=https://collector"]),
            ("tracing.otlp_ca", &[on, "tracing.otlp_ca=ca.pem"]),
            ("tracing.otlp_ca", &["tracing.otlp_ca=ca.pem"]),
            ("tracing.sample", &[on, "tracing.sample=1.1"]),
            ("tracing.sample", &[on, "tracing.sample=-0.1"]),
            ("tracing.sample", &[on, "tracing.sample=nan"]),
            ("tracing.sample", &[on, "tracing.sample=all"]),
            ("tracing.service", &[on, "tracing.service="]),
            ("tracing.timeout", &[on, "tracing.timeout=0s"]),
        ] {
            let error = read(sets).expect_err("wrong");
            assert!(error.starts_with(key) && !error.contains("secret@"), "{sets:?}: {error}");
        }
    }
}
