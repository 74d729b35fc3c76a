//! `quorate serve`: one node.

use crate::cli::Serve;
use crate::client::show;
use crate::config::{Config, GatewayOnly, Settings, Sources};
use crate::failure::Failure;

/// Reads the configuration and runs the node until it is asked to stop.
///
/// # Errors
/// A wrong configuration (exit code 2), or what made the node fail (exit code 1).
pub(crate) fn run(serve: &Serve) -> Result<(), Failure> {
    let settings = Settings::collect(&Sources::of_this_process(serve.given.config.clone(), &serve.given.sets))?;
    if let Some(gateway) = GatewayOnly::from_settings(&settings)? {
        if serve.print_config {
            return Ok(show(settings.to_toml())?);
        }
        let _logging = crate::logging::start(&gateway.log)?;
        return crate::gateway::run(&gateway, serve.stop_with_parent);
    }
    let config = Config::from_settings(&settings)?;
    if serve.print_config {
        return Ok(show(settings.to_toml())?);
    }
    let _logging = crate::logging::start(&config.log)?;
    crate::node::run(config, serve.stop_with_parent)
}
