//! `quorate serve`: one node.

use crate::cli::Serve;
use crate::config::{Config, Sources};
use crate::failure::Failure;

/// Reads the configuration and runs the node until it is asked to stop.
///
/// # Errors
/// A wrong configuration (exit code 2), or what made the node fail (exit code 1).
pub(crate) fn run(serve: &Serve) -> Result<(), Failure> {
    let (config, settings) =
        Config::load(&Sources { file: serve.config.clone(), environment: environment(), sets: serve.sets.clone() })?;
    if serve.print_config {
        print!("{}", settings.to_toml());
        return Ok(());
    }
    let _logging = crate::logging::start(&config.log)?;
    crate::node::run(config, serve.stop_with_parent)
}

/// The environment; what is not UTF-8 cannot be one of our values.
fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(variable, text)| Some((variable.into_string().ok()?, text.to_string_lossy().into_owned())))
        .collect()
}
