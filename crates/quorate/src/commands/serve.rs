//! `quorate serve`: one node.

use crate::cli::Serve;
use crate::client::show;
use crate::config::{Config, Sources};
use crate::failure::Failure;

/// Reads the configuration and runs the node until it is asked to stop.
///
/// # Errors
/// A wrong configuration (exit code 2), or what made the node fail (exit code 1).
pub(crate) fn run(serve: &Serve) -> Result<(), Failure> {
    let (config, settings) = Config::load(&Sources::of_this_process(serve.given.config.clone(), &serve.given.sets))?;
    if serve.print_config {
        return Ok(show(settings.to_toml())?);
    }
    let _logging = crate::logging::start(&config.log)?;
    crate::node::run(config, serve.stop_with_parent)
}
