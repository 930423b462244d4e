//! Regular expressions in the reference's dialect, bounded in time and memory.
//!
//! The dialect is PCRE on bytes. A pattern is rewritten where the same spelling means something else to our
//! engines, then compiled for the linear engine; only what that engine cannot express (lookaround, backreferences)
//! goes to the backtracking one, with a limit on its steps. A pattern that hits the limit answers "no match" and is
//! counted: a worker never stalls on it.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits;

mod dialect;

/// A compiled regular expression of a user.
#[derive(Clone, Debug)]
pub struct Pattern(Engine);

#[derive(Clone, Debug)]
enum Engine {
    Linear(regex::bytes::Regex),
    Backtracking(Box<fancy_regex::Regex>),
    /// The pattern does not compile.
    Nothing,
}

static LIMITS_HIT: AtomicU64 = AtomicU64::new(0);

/// How often a regular expression was given up since the process started, because it reached its limit of steps or
/// its value was too long for backtracking.
#[must_use]
pub fn regex_limits_hit() -> u64 {
    LIMITS_HIT.load(Ordering::Relaxed)
}

impl Pattern {
    /// Compiles `text`.
    ///
    /// # Errors
    /// What is wrong with it, on one line.
    pub fn compile(text: &str, ignore_case: bool) -> Result<Self, String> {
        let rewritten = dialect::rewrite(text);
        let linear = regex::bytes::RegexBuilder::new(&rewritten)
            .unicode(false)
            .case_insensitive(ignore_case)
            .size_limit(limits::REGEX_COMPILED_BYTES_MAX)
            .build();
        match linear {
            Ok(regex) => return Ok(Self(Engine::Linear(regex))),
            Err(error @ regex::Error::CompiledTooBig(_)) => return Err(error.to_string()),
            Err(_) => {}
        }
        let backtracking = fancy_regex::RegexBuilder::new(&rewritten)
            .bytes_mode(fancy_regex::BytesMode::Ascii)
            .case_insensitive(ignore_case)
            .backtrack_limit(limits::REGEX_BACKTRACKS_MAX)
            .delegate_size_limit(limits::REGEX_COMPILED_BYTES_MAX)
            .build();
        match backtracking {
            Ok(regex) => Ok(Self(Engine::Backtracking(Box::new(regex)))),
            Err(error) => Err(error.to_string().lines().map(str::trim).collect::<Vec<_>>().join(" ")),
        }
    }

    /// What a pattern that does not compile does.
    pub(super) fn matching_nothing() -> Self {
        Self(Engine::Nothing)
    }

    /// Whether the pattern is found anywhere in `subject`.
    #[must_use]
    pub fn is_match(&self, subject: &[u8]) -> bool {
        match &self.0 {
            Engine::Linear(regex) => regex.is_match(subject),
            Engine::Nothing => false,
            Engine::Backtracking(regex) => {
                if subject.len() > limits::REGEX_BACKTRACK_SUBJECT_MAX {
                    LIMITS_HIT.fetch_add(1, Ordering::Relaxed);
                    return false;
                }
                regex.is_match(subject).unwrap_or_else(|_| {
                    LIMITS_HIT.fetch_add(1, Ordering::Relaxed);
                    false
                })
            }
        }
    }

    /// Where the first match at or after `start` stands in `subject`, and what its groups captured: the whole match
    /// comes first.
    #[must_use]
    pub fn captures_at(&self, subject: &[u8], start: usize) -> Option<Vec<Option<Range<usize>>>> {
        match &self.0 {
            Engine::Linear(regex) => {
                let found = regex.captures_at(subject, start)?;
                Some(found.iter().map(|group| group.map(|group| group.range())).collect())
            }
            Engine::Nothing => None,
            Engine::Backtracking(_) if subject.len() > limits::REGEX_BACKTRACK_SUBJECT_MAX => {
                LIMITS_HIT.fetch_add(1, Ordering::Relaxed);
                None
            }
            Engine::Backtracking(regex) => match regex.captures_from_pos(subject, start) {
                Ok(found) => {
                    let found = found?;
                    Some(found.iter().map(|group| group.map(|group| group.start()..group.end())).collect())
                }
                Err(_) => {
                    LIMITS_HIT.fetch_add(1, Ordering::Relaxed);
                    None
                }
            },
        }
    }
}
