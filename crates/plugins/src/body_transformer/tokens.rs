//! The words of scripts in templates, and what of a template stands between scripts.

/// One word of a script, or something written between scripts.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Name(String),
    Number(f64),
    Text(String),
    /// Operators, brackets, and words that cannot be names.
    Sign(&'static str),
    /// Text of the template, as it is.
    Emit(String),
    /// An expression of the template; whether it is escaped.
    Begin(bool),
    /// Its end.
    Over,
}

/// Words that cannot be names.
const WORDS: [&str; 22] = [
    "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in", "local",
    "nil", "not", "or", "repeat", "return", "then", "true", "until", "while",
];

/// Operators and brackets, longer ones first.
const SIGNS: [&str; 25] = [
    "...", "..", "==", "~=", "<=", ">=", "+", "-", "*", "/", "%", "^", "#", "<", ">", "=", "(", ")", "{",
    "}", "[", "]", ";", ":", ",",
];

/// The words of `script`.
pub(super) fn tokens(script: &str, tokens: &mut Vec<Token>) -> Result<(), String> {
    let mut rest = script.trim_start();
    while let Some(first) = rest.chars().next() {
        rest = if let Some(comment) = rest.strip_prefix("--") {
            if comment.starts_with("[[") {
                comment.split_once("]]").map_or("", |(_, rest)| rest)
            } else {
                comment.split_once('\n').map_or("", |(_, rest)| rest)
            }
        } else if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|part: char| !part.is_ascii_alphanumeric() && part != '_');
            let (word, rest) = rest.split_at(end.unwrap_or(rest.len()));
            let sign = WORDS.iter().find(|known| **known == word);
            tokens.push(sign.map_or_else(|| Token::Name(word.to_owned()), |word| Token::Sign(word)));
            rest
        } else if first.is_ascii_digit() {
            let end = rest.find(|part: char| !part.is_ascii_alphanumeric() && part != '.');
            let end = end.unwrap_or(rest.len());
            // `1..2` is two numbers joined.
            let end = rest[..end].find("..").unwrap_or(end);
            let (digits, rest) = rest.split_at(end);
            let number = digits
                .strip_prefix("0x")
                .map_or_else(|| digits.parse().ok(), |hex| u32::from_str_radix(hex, 16).ok().map(f64::from));
            tokens.push(Token::Number(number.ok_or_else(|| format!("`{digits}` is no number"))?));
            rest
        } else if first == '"' || first == '\'' {
            let (text, rest) = quoted(&rest[1..], first)?;
            tokens.push(Token::Text(text));
            rest
        } else if let Some(long) = rest.strip_prefix("[[") {
            let (text, rest) = long.split_once("]]").ok_or("`[[` without `]]`")?;
            tokens.push(Token::Text(text.strip_prefix('\n').unwrap_or(text).to_owned()));
            rest
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            tokens.push(Token::Sign(sign));
            &rest[sign.len()..]
        } else if first == '.' {
            tokens.push(Token::Sign("."));
            &rest[1..]
        } else {
            return Err(format!("`{first}` means nothing here"));
        };
        rest = rest.trim_start();
    }
    Ok(())
}

/// A quoted text without its quotes, and what follows.
fn quoted(rest: &str, quote: char) -> Result<(String, &str), String> {
    let mut text = String::new();
    let mut parts = rest.char_indices();
    while let Some((at, part)) = parts.next() {
        match part {
            _ if part == quote => return Ok((text, &rest[at + 1..])),
            '\n' => break,
            '\\' => match parts.next().map(|(_, part)| part) {
                Some('n') => text.push('\n'),
                Some('r') => text.push('\r'),
                Some('t') => text.push('\t'),
                Some(part) if !part.is_ascii_alphanumeric() => text.push(part),
                _ => {
                    return Err(
                        "only `\\n`, `\\r`, `\\t`, `\\\\` and quotes can be escaped in text".to_owned()
                    );
                }
            },
            other => text.push(other),
        }
    }
    Err(format!("text without a closing {quote}"))
}

/// A token, for people.
pub(super) fn shown(token: &Token) -> String {
    match token {
        Token::Name(name) => format!("`{name}`"),
        Token::Number(number) => format!("`{number}`"),
        Token::Text(text) => format!("\"{text}\""),
        Token::Sign(sign) => format!("`{sign}`"),
        Token::Emit(_) | Token::Begin(_) => "the text of the template".to_owned(),
        Token::Over => "the end of an expression".to_owned(),
    }
}
