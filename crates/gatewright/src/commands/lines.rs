//! Lines in, lines out: what the commands share that answer a file of JSON objects.
//!
//! Every line gets its answer, also a wrong one, so that answers and questions can be put side by side.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Why the lines could not be answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinesError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The answers cannot be written.
    #[error("cannot write the answers: {0}")]
    Write(io::Error),
}

/// Writes the answer to each line of the file at `path` (`-`: stdin) to stdout. Blank lines are no questions.
pub(super) fn answer(path: &Path, answer: impl FnMut(&str) -> String) -> Result<(), LinesError> {
    let read = |source| LinesError::Read { path: path.to_owned(), source };
    let output = BufWriter::new(io::stdout().lock());
    if path == Path::new("-") {
        return answer_all(io::stdin().lock(), output, read, answer);
    }
    answer_all(BufReader::new(File::open(path).map_err(read)?), output, read, answer)
}

fn answer_all(
    input: impl BufRead,
    mut output: impl Write,
    read: impl Fn(io::Error) -> LinesError,
    mut answer: impl FnMut(&str) -> String,
) -> Result<(), LinesError> {
    for line in input.lines() {
        let line = line.map_err(&read)?;
        if !line.trim().is_empty() {
            match writeln!(output, "{}", answer(&line)) {
                // A reader that went away, such as `head`, is no failure.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                written => written.map_err(LinesError::Write)?,
            }
        }
    }
    match output.flush() {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        flushed => flushed.map_err(LinesError::Write),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_but_blank_ones_is_answered_in_order() {
        let mut output = Vec::new();
        let read = |source| LinesError::Read { path: PathBuf::new(), source };
        answer_all(&b"a\n\n b\r\n"[..], &mut output, read, |line| format!("<{}>", line.trim())).unwrap();
        assert_eq!(output, b"<a>\n<b>\n");
    }
}
