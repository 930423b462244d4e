//! PCRE spellings rewritten for our engines.
//!
//! Only spellings that mean something else, or nothing, to them are touched; the result of rewriting an invalid
//! pattern is invalid too. Text beyond ASCII becomes its bytes, because PCRE works on bytes here.

/// Rewrites `pattern`.
pub(super) fn rewrite(pattern: &str) -> String {
    let mut rewriter = Rewriter {
        rest: pattern,
        out: String::with_capacity(pattern.len() + 16),
        multi_line: has_multi_line(pattern),
    };
    while let Some(next) = rewriter.rest.chars().next() {
        rewriter.outside_class(next);
    }
    rewriter.out
}

struct Rewriter<'p> {
    rest: &'p str,
    out: String,
    multi_line: bool,
}

/// Spaces that end lines, for `\v` and `\R`.
const VERTICAL: &str = r"\n\x0b\x0c\r";

/// Characters that mean something when they stand alone.
const META: &[u8] = br"\.+*?()|[]{}^$#&-~ ";

impl Rewriter<'_> {
    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    fn copy(&mut self, bytes: usize) {
        self.out.push_str(self.rest.get(..bytes).unwrap_or_default());
        self.skip(bytes);
    }

    fn replace(&mut self, bytes: usize, text: &str) {
        self.out.push_str(text);
        self.skip(bytes);
    }

    fn literal(&mut self, character: char) {
        match u8::try_from(character) {
            Ok(byte) if byte.is_ascii() => {
                if META.contains(&byte) {
                    self.out.push('\\');
                }
                self.out.push(character);
            }
            _ => {
                let mut buffer = [0; 4];
                for byte in character.encode_utf8(&mut buffer).bytes() {
                    self.out.push_str(&format!("\\x{byte:02x}"));
                }
            }
        }
    }

    fn outside_class(&mut self, next: char) {
        match next {
            '\\' => self.escape(false),
            '[' => self.class(),
            '$' if !self.multi_line => self.dollar(),
            '{' if quantifier_length(self.rest).is_none() => self.replace(1, r"\{"),
            '{' => self.copy(quantifier_length(self.rest).unwrap_or(1)),
            '(' if self.rest.starts_with("(?#") => {
                let end = self.rest.find(')').map_or(self.rest.len(), |at| at + 1);
                self.skip(end);
            }
            '(' if self.rest.starts_with("(?'") => {
                let end = self.rest[3..].find('\'');
                let name = end.map_or("", |at| &self.rest[3..3 + at]).to_owned();
                self.replace(end.map_or(self.rest.len(), |at| at + 4), &format!("(?<{name}>"));
            }
            _ if next.is_ascii() => self.copy(1),
            _ => {
                self.literal(next);
                self.skip(next.len_utf8());
            }
        }
    }

    /// `$` also stands before a line feed at the very end. Where nothing can follow, consuming that line feed says
    /// the same and stays in the linear engine.
    fn dollar(&mut self) {
        let last = matches!(self.rest.as_bytes().get(1), None | Some(b')' | b'|'));
        self.replace(1, if last { r"(?:\n?\z)" } else { r"(?=\n?\z)" });
    }

    fn escape(&mut self, in_class: bool) {
        let Some(escaped) = self.rest[1..].chars().next() else { return self.copy(1) };
        let length = 1 + escaped.len_utf8();
        match escaped {
            'Q' => {
                let body = self.rest[2..].to_owned();
                let end = body.find(r"\E");
                body[..end.unwrap_or(body.len())].chars().for_each(|character| self.literal(character));
                self.skip(end.map_or(self.rest.len(), |at| 2 + at + 2));
            }
            'E' => self.skip(length),
            'e' => self.replace(length, r"\x1b"),
            'h' if in_class => self.replace(length, r"\t\x20"),
            'h' => self.replace(length, r"[\t\x20]"),
            'H' if !in_class => self.replace(length, r"[^\t\x20]"),
            'v' if in_class => self.replace(length, VERTICAL),
            'v' => self.replace(length, &format!("[{VERTICAL}]")),
            'V' if !in_class => self.replace(length, &format!("[^{VERTICAL}]")),
            'R' if !in_class => self.replace(length, &format!(r"(?:\r\n|[{VERTICAL}])")),
            'N' if !in_class => self.replace(length, r"[^\n]"),
            'Z' if !in_class => self.replace(length, r"(?:\n?\z)"),
            'b' if in_class => self.replace(length, r"\x08"),
            _ if escaped.is_ascii_alphanumeric() => self.copy(length),
            _ => {
                self.literal(escaped);
                self.skip(length);
            }
        }
    }

    fn class(&mut self) {
        let opening = if self.rest.starts_with("[^") { 2 } else { 1 };
        self.copy(opening);
        if self.rest.starts_with(']') {
            self.replace(1, r"\]");
        }
        while let Some(next) = self.rest.chars().next() {
            match next {
                ']' => return self.copy(1),
                '[' if self.rest.starts_with("[:") && self.rest.contains(":]") => {
                    let end = self.rest.find(":]").unwrap_or(0);
                    self.copy(end + 2);
                    self.dash_after_set();
                }
                '[' => self.replace(1, r"\["),
                '&' | '~' => {
                    self.literal(next);
                    self.skip(1);
                }
                '-' if matches!(
                    self.rest.as_bytes(),
                    [_, b'-', ..] | [_, b'\\', b'd' | b'w' | b's' | b'D' | b'W' | b'S', ..]
                ) =>
                {
                    self.replace(1, r"\-");
                }
                '\\' => {
                    let is_set = matches!(
                        self.rest.as_bytes().get(1),
                        Some(b'd' | b'w' | b's' | b'D' | b'W' | b'S' | b'h' | b'v')
                    );
                    self.escape(true);
                    if is_set {
                        self.dash_after_set();
                    }
                }
                _ if next.is_ascii() => self.copy(1),
                _ => {
                    self.literal(next);
                    self.skip(next.len_utf8());
                }
            }
        }
    }

    /// A dash behind `\w` starts no range: it is itself.
    fn dash_after_set(&mut self) {
        if self.rest.starts_with('-') {
            self.replace(1, r"\-");
        }
    }
}

/// The length of a `{2}`, `{2,}` or `{2,5}` at the start of `text`; other braces are literal.
fn quantifier_length(text: &str) -> Option<usize> {
    let (inside, _) = text.strip_prefix('{')?.split_once('}')?;
    let (low, high) = inside.split_once(',').unwrap_or((inside, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    (!low.is_empty() && digits(low) && digits(high)).then_some(inside.len() + 2)
}

/// Whether the pattern switches to line-wise `^` and `$`, as in `(?m)` or `(?im:…)`.
fn has_multi_line(pattern: &str) -> bool {
    pattern.match_indices("(?").any(|(at, _)| {
        let flags = pattern[at + 2..].bytes().take_while(u8::is_ascii_lowercase);
        flags.into_iter().any(|flag| flag == b'm')
    })
}
