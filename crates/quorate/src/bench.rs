//! `quorate bench`: clients in a closed or an open loop, and what it costs. The loop is the crate `load`.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use load::{Law, Plan, Report, Rest, STOCK, Target, Template};
use rustls::ClientConfig;

use crate::cli::{Bench, Output, Trust};
use crate::client::{authorities, base_url, bearer, percent_encode, say, show};
use crate::clock::since_1970;
use crate::failure::Failure;

/// Files that are open beside the connections of clients.
const OTHER_FILES: u64 = 64;

/// Runs the measurement and shows the result.
///
/// # Errors
/// Wrong arguments; no node to talk to; a setup that fails; not one successful call.
pub(crate) fn run(bench: &Bench) -> Result<(), Failure> {
    let setup = bench.setup.as_deref().map(load::warehouses).transpose().map_err(|why| usage("--setup", &why))?;
    let template = template(bench)?;
    let plan = plan(bench, &template)?;
    allow(bench.clients)?;
    let rest = Rc::new(Rest {
        function: if bench.batch == 1 { percent_encode(&bench.function) } else { bench.function.clone() },
        batch: bench.batch,
        template,
        targets: bench.urls.iter().map(|url| target(url, &bench.trust)).collect::<Result<Vec<Target>, Failure>>()?,
        retry: bench.retry,
        timeout: seconds("--timeout", bench.timeout, 0.1)?,
        run_key: format!("bench-{:x}", since_1970().as_micros()),
    });
    let report = load::block_on(async {
        if let Some(count) = setup {
            let target = rest.targets.first().ok_or_else(|| anyhow!("no --url"))?;
            load::stock(target, 0..count, &rest.run_key).await?;
            say(format_args!("setup: {count} warehouses with {STOCK} goods more"));
        }
        load::measure(&plan, &rest).await
    })?;
    show_report(bench, &report)
}

/// Each client has a connection.
fn allow(clients: u32) -> Result<(), Failure> {
    let needed = OTHER_FILES + u64::from(clients);
    match crate::files::raise(needed) {
        // What cannot be seen is tried.
        Err(_) => Ok(()),
        Ok(limit) if limit >= needed => Ok(()),
        Ok(limit) => {
            let most = limit.saturating_sub(OTHER_FILES);
            Err(usage(
                "--clients",
                &format!("{clients}: this process may have {most} at most; raise `ulimit -n`, {limit} now"),
            ))
        }
    }
}

fn show_report(bench: &Bench, report: &Report) -> Result<(), Failure> {
    match bench.output {
        Output::Json => show(format!("{}\n", report.to_json()))?,
        Output::Text => show(report.to_string())?,
    }
    if report.successes() == 0 {
        return Err(Failure::Reported(anyhow!("not one call succeeded; the codes above say why")));
    }
    Ok(())
}

/// The arguments of a call: what was given, or a transfer between the warehouses.
fn template(bench: &Bench) -> Result<Template, Failure> {
    let given = bench.arguments.clone().unwrap_or_else(|| {
        let last = bench.warehouses - 1;
        format!(r#"{{"from": "w$int(0,{last})", "to": "w$distinct(0,{last})", "amount": 1}}"#)
    });
    Template::parse(&given).map_err(|why| usage("--arguments", &why))
}

fn plan(bench: &Bench, template: &Template) -> Result<Plan, Failure> {
    let law = match bench.zipf {
        Some(exponent) => Law::zipf(exponent, template.widest()).map_err(|why| usage("--zipf", &why))?,
        None => Law::Even,
    };
    if let Some(rate) = bench.rate
        && !(0.1..=1e6).contains(&rate)
    {
        return Err(usage("--rate", &format!("{rate}: must be a number of calls a second from 0.1 to 1000000")));
    }
    Ok(Plan {
        what: bench.function.clone(),
        clients: bench.clients,
        rate: bench.rate,
        warmup: seconds("--warmup", bench.warmup, 0.0)?,
        length: seconds("--seconds", bench.seconds, 0.1)?,
        calls: bench.calls,
        seed: bench.seed,
        law: Rc::new(law),
        pids: bench.pids.clone(),
        progress: Some(|line: fmt::Arguments<'_>| say(line)),
    })
}

fn seconds(flag: &str, value: f64, least: f64) -> Result<Duration, Failure> {
    let good = (least..=86_400.0).contains(&value);
    good.then(|| Duration::from_secs_f64(value))
        .ok_or_else(|| usage(flag, &format!("{value}: must be a number of seconds from {least} to 86400")))
}

fn usage(key: &str, why: &str) -> Failure {
    Failure::Usage(format!("{key}: {why}"))
}

/// The node of a URL.
fn target(url: &str, trust: &Trust) -> Result<Target, Failure> {
    let base = base_url(url, trust)?;
    let (host, encrypted) = match base.strip_prefix("https://") {
        Some(host) => (host, true),
        None => (base.trim_start_matches("http://"), false),
    };
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let host = match (has_port, encrypted) {
        (true, _) => host.to_owned(),
        (false, true) => format!("{host}:443"),
        (false, false) => format!("{host}:80"),
    };
    let target = if encrypted {
        let config = ClientConfig::builder_with_provider(transport::tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| usage("--url", &format!("{url}: {error}")))?
            .with_root_certificates(authorities(trust)?)
            .with_no_client_auth();
        let made = Target::encrypted(host, Arc::new(config));
        made.map_err(|error| usage("--url", &format!("{url}: {error}")))?
    } else {
        Target::plain(host)
    };
    Ok(target.presenting(bearer(trust)?.as_deref()))
}
