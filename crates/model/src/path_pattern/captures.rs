//! Patterns with captures: chunks of literal text and parameters, with stars between them.
//!
//! A star is the only part of variable extent with a choice: a parameter always runs to the next slash. Therefore
//! placing the chunks from the last to the first, each as far right as it fits, finds a match if there is one, and
//! the same one that a greedy regular expression would: the first star takes as much as it can.

use super::Tail;
use crate::limits;

/// A pattern that starts with a chunk and has a star before every further chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Captures {
    chunks: Box<[Chunk]>,
    /// For each star its place among `names`, if it is captured.
    stars: Box<[Option<u8>]>,
    names: Box<[Box<str>]>,
    /// Whether the pattern is written with `/?` at its end: a slash may stand there or not.
    optional_slash: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Chunk {
    pieces: Vec<Piece>,
    /// Slashes in every text this chunk matches: parameters contain none.
    slashes: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(Box<[u8]>),
    /// One non-empty segment; its place among `names`.
    Segment(u8),
}

type Spans = [(u32, u32); limits::CAPTURES_MAX];

const NO_SPANS: Spans = [(0, 0); limits::CAPTURES_MAX];

/// Splits a written path into its literal start and what follows; the first `literal_length` bytes are literal.
pub(super) fn parse(
    written: &[u8],
    literal_length: usize,
    parameters: bool,
) -> Result<(Box<[u8]>, Tail), String> {
    let mut parser =
        Parser { names: Vec::new(), stars: Vec::new(), chunks: Vec::new(), chunk: Chunk::default() };
    let mut literal_start = 0;
    let mut at = literal_length;
    while at < written.len() {
        let segment_start = at == 0 || written[at - 1] == b'/';
        let name_end = written[at..].iter().position(|byte| *byte == b'/').map_or(written.len(), |n| at + n);
        match written[at] {
            b'*' => {
                parser.literal(&written[literal_start..at]);
                let name = segment_start.then_some(&written[at + 1..name_end]);
                parser.star(name)?;
                // Text after a star inside a segment says nothing, as in the reference.
                literal_start = if segment_start { name_end } else { written.len() };
                at = literal_start;
            }
            b':' if parameters && segment_start && name_end > at + 1 => {
                parser.literal(&written[literal_start..at]);
                parser.segment(&written[at + 1..name_end])?;
                literal_start = name_end;
                at = name_end;
            }
            _ => at += 1,
        }
    }
    parser.literal(&written[literal_start..]);
    Ok(parser.finish())
}

struct Parser {
    names: Vec<Box<str>>,
    stars: Vec<Option<u8>>,
    chunks: Vec<Chunk>,
    chunk: Chunk,
}

impl Parser {
    fn literal(&mut self, text: &[u8]) {
        if !text.is_empty() {
            self.chunk.slashes += text.iter().filter(|byte| **byte == b'/').count();
            self.chunk.pieces.push(Piece::Literal(text.into()));
        }
    }

    fn segment(&mut self, name: &[u8]) -> Result<(), String> {
        let index = self.name(name)?;
        self.chunk.pieces.push(Piece::Segment(index));
        Ok(())
    }

    fn star(&mut self, name: Option<&[u8]>) -> Result<(), String> {
        let index = match name {
            None => None,
            Some(b"") => Some(self.name(super::UNNAMED_STAR.as_bytes())?),
            Some(name) => Some(self.name(name)?),
        };
        self.stars.push(index);
        self.chunks.push(std::mem::take(&mut self.chunk));
        Ok(())
    }

    fn name(&mut self, name: &[u8]) -> Result<u8, String> {
        let index = u8::try_from(self.names.len()).unwrap_or(u8::MAX);
        if self.names.len() >= limits::CAPTURES_MAX {
            return Err(format!("a path has at most {} captures", limits::CAPTURES_MAX));
        }
        self.names.push(String::from_utf8_lossy(name).into());
        Ok(index)
    }

    fn finish(mut self) -> (Box<[u8]>, Tail) {
        self.chunks.push(self.chunk);
        let literal: Box<[u8]> = match self.chunks[0].pieces.first() {
            Some(Piece::Literal(text)) => text.clone(),
            _ => Box::default(),
        };
        let first_is_literal = !self.chunks[0].pieces.iter().any(|piece| matches!(piece, Piece::Segment(_)));
        let tail = match (&*self.stars, first_is_literal) {
            ([], true) => Tail::Nothing,
            ([star], true) if self.chunks[1].pieces.is_empty() => match star {
                None => Tail::Anything,
                Some(_) if &*self.names[0] == super::UNNAMED_STAR => Tail::Ext,
                Some(_) => Tail::Named(self.names.swap_remove(0)),
            },
            _ => {
                let optional_slash = self.chunks.last_mut().is_some_and(Chunk::strip_optional_slash);
                Tail::Captures(Box::new(Captures {
                    chunks: self.chunks.into(),
                    stars: self.stars.into(),
                    names: self.names.into(),
                    optional_slash,
                }))
            }
        };
        (literal, tail)
    }
}

impl Chunk {
    /// Takes `/?` off the end of a chunk that has more than that.
    fn strip_optional_slash(&mut self) -> bool {
        let Some(Piece::Literal(last)) = self.pieces.last() else { return false };
        let Some(stripped) = last.strip_suffix(b"/?") else { return false };
        if stripped.is_empty() && self.pieces.len() == 1 {
            return false;
        }
        let stripped: Box<[u8]> = stripped.into();
        self.pieces.pop();
        if !stripped.is_empty() {
            self.pieces.push(Piece::Literal(stripped));
        }
        self.slashes -= 1;
        true
    }

    /// Where this chunk ends if it stands at `at`.
    fn end(&self, path: &[u8], mut at: usize, spans: &mut Spans) -> Option<usize> {
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => {
                    if !path.get(at..)?.starts_with(text) {
                        return None;
                    }
                    at += text.len();
                }
                Piece::Segment(index) => {
                    let rest = path.get(at..)?;
                    let length = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
                    if length == 0 {
                        return None;
                    }
                    spans[usize::from(*index)] = span(at, at + length);
                    at += length;
                }
            }
        }
        Some(at)
    }

    /// Where this chunk starts if it stands at the end of `path`. It starts with a slash, and it matches as many
    /// slashes as it is written with, so there is one such place.
    fn start_at_end(&self, path: &[u8], spans: &mut Spans) -> Option<usize> {
        let Some(from_end) = self.slashes.checked_sub(1) else {
            return self.pieces.is_empty().then_some(path.len());
        };
        let slashes = path.iter().enumerate().rev().filter(|(_, byte)| **byte == b'/');
        let (start, _) = slashes.skip(from_end).map(|(at, byte)| (at, *byte)).next()?;
        (self.end(path, start, spans) == Some(path.len())).then_some(start)
    }

    /// The place furthest to the right, not before `from`, where this chunk fits into `path`.
    fn last_place(&self, path: &[u8], from: usize, spans: &mut Spans) -> Option<(usize, usize)> {
        let starts = (from..path.len()).rev().filter(|at| path[*at] == b'/');
        starts.into_iter().find_map(|at| Some((at, self.end(path, at, spans)?)))
    }
}

impl Captures {
    pub(super) fn matches(&self, path: &[u8]) -> bool {
        self.place(path, &mut NO_SPANS.clone()).is_some()
    }

    pub(super) fn captured<'s, 'p>(
        &'s self,
        path: &'p [u8],
    ) -> impl Iterator<Item = (&'s str, &'p [u8])> + use<'s, 'p> {
        let mut spans = NO_SPANS;
        let found = self.place(path, &mut spans).is_some();
        let names = if found { &*self.names } else { &[] };
        names.iter().zip(spans).map(|(name, (start, end))| (&**name, &path[start as usize..end as usize]))
    }

    fn place(&self, path: &[u8], spans: &mut Spans) -> Option<()> {
        let without_slash = if self.optional_slash { path.strip_suffix(b"/") } else { None };
        let found = without_slash.and_then(|path| self.place_exactly(path, spans));
        found.or_else(|| self.place_exactly(path, spans))
    }

    /// Finds the place of every chunk and notes what is captured.
    fn place_exactly(&self, path: &[u8], spans: &mut Spans) -> Option<()> {
        let first_end = self.chunks[0].end(path, 0, spans)?;
        let Some(last) = self.stars.len().checked_sub(1) else {
            return (first_end == path.len()).then_some(());
        };
        let mut next_start = self.chunks[last + 1].start_at_end(path, spans)?;
        for star in (0..=last).rev() {
            let (start, end) = match star {
                0 => (0, first_end),
                _ => self.chunks[star].last_place(&path[..next_start], first_end, spans)?,
            };
            if end > next_start {
                return None;
            }
            if let Some(index) = self.stars[star] {
                spans[usize::from(index)] = span(end, next_start);
            }
            next_start = start;
        }
        Some(())
    }

    /// Paths this pattern matches: every parameter and star filled with bytes that no written path contains.
    pub(super) fn samples(&self) -> Vec<Vec<u8>> {
        let fillings: &[&[u8]] = if self.stars.is_empty() { &[b""] } else { &[b"", b"\x01", b"\x01/\x02"] };
        let mut samples: Vec<_> = fillings.iter().map(|filling| self.filled(filling)).collect();
        if self.optional_slash {
            let with_slash: Vec<_> =
                samples.iter().map(|sample| [sample.as_slice(), b"/"].concat()).collect();
            samples.extend(with_slash);
        }
        samples
    }

    fn filled(&self, star: &[u8]) -> Vec<u8> {
        let mut sample = Vec::new();
        for (index, chunk) in self.chunks.iter().enumerate() {
            if index > 0 {
                sample.extend_from_slice(star);
            }
            for piece in &chunk.pieces {
                match piece {
                    Piece::Literal(text) => sample.extend_from_slice(text),
                    Piece::Segment(_) => sample.push(3),
                }
            }
        }
        sample
    }
}

fn span(start: usize, end: usize) -> (u32, u32) {
    // Paths are limited far below 4 GiB when a head is read.
    (u32::try_from(start).unwrap_or(u32::MAX), u32::try_from(end).unwrap_or(u32::MAX))
}
