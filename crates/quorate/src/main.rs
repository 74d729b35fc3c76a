//! The binary: one node (`serve`), a cluster to try things out (`dev`), and the clients.
//!
//! Exit codes: 0 done, or stopped as asked; 1 failed while running; 2 wrong usage or
//! configuration. Every failure is one line on standard error that says what to do; a client
//! that was told `--output json` gives a problem document on standard output, too.

#![warn(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "they panic where nothing can be written: `client::say`, `show`"
)]

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};

mod audit;
mod backup;
mod bench;
mod certificates;
mod cli;
mod client;
mod clock;
mod commands;
mod config;
mod dev;
mod failure;
mod files;
mod gateway;
mod logging;
mod node;
mod sealed;
mod seat;
mod secret;
mod stop;
mod traces;

use cli::{Certificates, Cli, Command, Output};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    transport::tls::install();
    let matches = Cli::command().get_matches();
    if cli::shows_token(&matches) {
        client::say("quorate: other users of this machine see arguments; give --token @FILE, or QUORATE_TOKEN");
    }
    let command = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()).command;
    let done = match &command {
        Command::Serve(serve) => commands::serve::run(serve),
        Command::Dev(dev) => dev::run(dev),
        Command::Call(call) => commands::call::run(call),
        Command::Get(get) => commands::state::get(get),
        Command::Put(put) => commands::state::put(put),
        Command::Delete(delete) => commands::state::delete(delete),
        Command::Status(status) => commands::status::run(status),
        Command::Health(health) => commands::health::run(health),
        Command::Bench(bench) => bench::run(bench),
        Command::Backup(backup) => backup::fetch(backup),
        Command::Restore(restore) => backup::restore(restore),
        Command::Recover(recover) => commands::recover::run(recover),
        Command::Acceptor(acceptor) => commands::acceptor::run(acceptor),
        Command::Majority(majority) => commands::majority::run(majority),
        Command::Leader(leader) => commands::leader::run(leader),
        Command::Audit(audit) => commands::audit::run(audit),
        Command::Token(token) => commands::token::run(token),
        Command::Certificates(Certificates::Create(create)) => certificates::create::run(create),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if command.output() == Output::Json
                && let Some(document) = failure.document()
            {
                // Standard output may be what failed; the line below says so.
                let _ = client::show(format!("{document}\n"));
            }
            client::say(format_args!("quorate: {failure}"));
            failure.exit_code()
        }
    }
}
