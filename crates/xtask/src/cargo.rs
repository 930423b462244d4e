//! Cargo, asked by a chore.
//!
//! What cargo tells a program it runs about the program's package must not reach a cargo that this program runs:
//! there are build scripts that take a change of it as a reason to build again, and with them half of the executable.

use std::env;
use std::process::Command;

/// A call of cargo like one from the shell.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env!("CARGO"));
    for (name, _) in env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_MANIFEST_") || name.starts_with("CARGO_PKG_"))
        {
            command.env_remove(name);
        }
    }
    command
}
