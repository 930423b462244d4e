//! `gatewright completions`: the completions of a shell, on stdout.

use std::io::Write;

use clap::CommandFactory;

use crate::arguments::{Arguments, Completions};

/// Prints the completions.
pub(crate) fn run(arguments: &Completions) {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "gatewright", &mut script);
    // A reader that went away, such as `head`, is no failure.
    let _ = std::io::stdout().write_all(&script);
}
