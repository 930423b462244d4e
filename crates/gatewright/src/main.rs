//! The executable: parses the command line, runs one command, and turns its outcome into an exit code.
//!
//! Exit codes: 0 success, 1 refused or failed, 2 wrong usage. A failure is one line on stderr.

#[cfg(not(any(feature = "control-plane", feature = "gateway")))]
compile_error!("an executable without either half does nothing: enable `control-plane` or `gateway`");

mod arguments;
mod commands;

#[cfg(feature = "control-plane")]
mod admin_client;
#[cfg(feature = "gateway")]
mod client_limits;
#[cfg(all(feature = "control-plane", feature = "gateway"))]
mod demo;
#[cfg(all(feature = "control-plane", feature = "gateway"))]
mod in_process;
#[cfg(feature = "gateway")]
mod remote;
#[cfg(feature = "gateway")]
mod upgrade;

mod announce;
mod logging;
#[cfg(all(feature = "control-plane", feature = "gateway"))]
mod probe;
#[cfg(feature = "control-plane")]
mod shell;
mod signals;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, Command};

/// Faster than the system's allocator where many threads allocate small things, which is what a proxy does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    logging::start(&arguments.log);
    match run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        #[cfg(all(feature = "control-plane", feature = "gateway"))]
        Command::Up(arguments) => commands::serve(commands::up::run(*arguments))?,
        #[cfg(feature = "control-plane")]
        Command::ControlPlane(arguments) => commands::serve(commands::control_plane::run(arguments))?,
        #[cfg(feature = "gateway")]
        Command::Gateway(arguments) => commands::serve(commands::gateway::run(*arguments))?,
        #[cfg(feature = "control-plane")]
        Command::Quick(arguments) => commands::quick::run(&arguments)?,
        #[cfg(feature = "control-plane")]
        Command::Publish(arguments) => commands::publish::run(&arguments)?,
        #[cfg(feature = "control-plane")]
        Command::Preview(arguments) => commands::preview::run(&arguments)?,
        #[cfg(feature = "control-plane")]
        Command::ReleaseSet(arguments) => commands::release_set::run(&arguments)?,
        #[cfg(feature = "control-plane")]
        Command::Diff(arguments) => commands::diff::run(&arguments)?,
        #[cfg(feature = "control-plane")]
        Command::Canary(arguments) => commands::canary::run(&arguments)?,
        #[cfg(feature = "control-plane")]
        Command::Audit(arguments) => commands::audit::run(&arguments)?,
        #[cfg(feature = "control-plane")]
        Command::Import(arguments) => commands::openapi::import(&arguments)?,
        #[cfg(feature = "control-plane")]
        Command::Export(arguments) => commands::openapi::export(&arguments)?,
        Command::Explain(arguments) => commands::explain::run(&arguments)?,
        Command::Expression(arguments) => commands::expression::run(&arguments)?,
        #[cfg(feature = "gateway")]
        Command::Validate(arguments) => commands::validate::run(&arguments)?,
        #[cfg(feature = "control-plane")]
        Command::GatewayGroup(arguments) => commands::gateway_group::run(&arguments)?,
        #[cfg(feature = "control-plane")]
        Command::Store(arguments) => commands::serve(commands::store::run(arguments))?,
        Command::Completions(arguments) => commands::completions::run(&arguments),
    }
    Ok(())
}
