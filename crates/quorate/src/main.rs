//! The binary: one node (`serve`), a cluster to try things out (`dev`), and the clients.
//!
//! Exit codes: 0 done, or stopped as asked; 1 failed while running; 2 wrong usage or
//! configuration. Every failure is one line on standard error that says what to do.

use std::process::ExitCode;

use clap::Parser as _;

mod bench;
mod cli;
mod client;
mod clock;
mod commands;
mod config;
mod dev;
mod failure;
mod logging;
mod node;
mod stop;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(serve) => commands::serve::run(&serve),
        Command::Dev(dev) => dev::run(&dev),
        Command::Call(call) => commands::call::run(&call),
        Command::Get(get) => commands::state::get(&get),
        Command::Put(put) => commands::state::put(&put),
        Command::Delete(delete) => commands::state::delete(&delete),
        Command::Status(status) => commands::status::run(&status),
        Command::Bench(bench) => bench::run(&bench),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("quorate: {failure}");
            failure.exit_code()
        }
    }
}
