//! Numbers as the reference's language reads and writes them.

/// The number that `text` spells: decimal or hexadecimal (`0x`), with fraction, exponent and surrounding blanks.
///
/// Words such as `inf` and `nan` are text: a client must not be larger than every limit by spelling it.
pub(super) fn from_text(text: &[u8]) -> Option<f64> {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let start = text.iter().position(|byte| !blank(byte))?;
    let end = text.iter().rposition(|byte| !blank(byte))? + 1;
    let text = &text[start..end];
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let magnitude = match digits {
        [b'0', b'x' | b'X', hex @ ..] => hexadecimal(hex)?,
        _ => decimal(digits)?,
    };
    Some(if negative { -magnitude } else { magnitude })
}

fn decimal(digits: &[u8]) -> Option<f64> {
    // The first character rules out a second sign; the set rules out `inf` and `nan`.
    let starts_well = matches!(digits.first(), Some(b'0'..=b'9' | b'.'));
    let allowed = |byte: &u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
    if !starts_well || !digits.iter().all(allowed) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn hexadecimal(text: &[u8]) -> Option<f64> {
    let exponent_at = text.iter().position(|byte| matches!(byte, b'p' | b'P')).unwrap_or(text.len());
    let (mantissa, exponent) = text.split_at(exponent_at);
    let mut value = 0.0_f64;
    let mut scale = None;
    let mut digits = 0;
    for byte in mantissa {
        if *byte == b'.' && scale.is_none() {
            scale = Some(1.0);
            continue;
        }
        value = value * 16.0 + f64::from((*byte as char).to_digit(16)?);
        scale = scale.map(|scale: f64| scale * 16.0);
        digits += 1;
    }
    if digits == 0 {
        return None;
    }
    let power: i32 = match exponent {
        [] => 0,
        [_, rest @ ..] => std::str::from_utf8(rest).ok()?.parse().ok()?,
    };
    Some(value / scale.unwrap_or(1.0) * 2.0_f64.powi(power))
}

/// How `number` is written where text is wanted: whole numbers without a fraction.
pub(super) fn to_text(number: f64) -> String {
    const WHOLE_MAX: f64 = 1e15;
    if number.fract() == 0.0 && number.abs() < WHOLE_MAX {
        format!("{number:.0}")
    } else {
        number.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_every_spelling_of_the_reference() {
        for (text, expected) in [
            ("18", Some(18.0)),
            ("18.0", Some(18.0)),
            ("-0", Some(0.0)),
            ("+5", Some(5.0)),
            (" 7\t", Some(7.0)),
            ("1e3", Some(1000.0)),
            (".5", Some(0.5)),
            ("5.", Some(5.0)),
            ("0x10", Some(16.0)),
            ("-0X1F", Some(-31.0)),
            ("0x1.8p1", Some(3.0)),
            ("", None),
            ("  ", None),
            ("0x", None),
            ("1e", None),
            ("--1", None),
            ("1 2", None),
            ("12a", None),
            ("inf", None),
            ("nan", None),
            ("1_000", None),
        ] {
            assert_eq!(from_text(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn whole_numbers_are_written_whole() {
        assert_eq!(to_text(11.0), "11");
        assert_eq!(to_text(-2.0), "-2");
        assert_eq!(to_text(1.5), "1.5");
    }
}
