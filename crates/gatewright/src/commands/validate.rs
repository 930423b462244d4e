//! `gatewright validate`: checks a configuration file with the code that a gateway reads it with.

use gatewright_gateway::source::file;

use super::Failure;
use crate::announce;
use crate::arguments::Validate;

/// Says whether a gateway would serve the file; warnings go to the log, what is wrong is the failure.
pub(crate) fn run(arguments: &Validate) -> Result<(), Failure> {
    let path = &arguments.file;
    for warning in file::validate(path)?.iter() {
        tracing::warn!(file = %path.display(), at = warning.path, "{}", warning.message);
    }
    announce::line(format_args!("{} is valid", path.display()));
    Ok(())
}
