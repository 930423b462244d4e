//! Path patterns: cases, and the comparison with greedy regular expressions.

use proptest::prelude::*;

use super::*;

fn pattern(path: &str) -> PathPattern {
    PathPattern::parse("", path, true).expect("a path")
}

/// What `path` captures, as `name=value` joined with `&`; `None`: no match.
fn captured(pattern: &PathPattern, path: &str) -> Option<String> {
    let pairs = pattern.captures(path.as_bytes());
    let pairs: Vec<_> =
        pairs.map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value))).collect();
    pattern.matches(path.as_bytes()).then(|| pairs.join("&"))
}

#[test]
fn a_pattern_matches_what_its_form_says() {
    for (written, path, expected) in [
        ("/a/b", "/a/b", Some("")),
        ("/a/b", "/a/b/", None),
        ("/a/b", "/A/b", None),
        ("/a/*", "/a", None),
        ("/a/*", "/a/", Some(":ext=")),
        ("/a/*", "/a/x/y", Some(":ext=x/y")),
        ("/a*", "/a", Some("")),
        ("/a*", "/ab", Some("")),
        ("/a*", "/b", None),
        ("*", "/x", Some(":ext=/x")),
        ("/*", "/", Some(":ext=")),
        ("/a/*rest", "/a/b/c", Some("rest=b/c")),
        ("/img*.png", "/img7.jpg", Some("")),
        ("/*.jpg", "/a.png", Some(".jpg=a.png")),
        ("/a+b/*", "/a+b/c", Some(":ext=c")),
        ("/a+b/*", "/aab/c", None),
        ("/a(b/*", "/a(b/c", Some(":ext=c")),
        ("/nodes/:id/?", "/nodes/1/", Some("id=1")),
        ("/nodes/:id/?", "/nodes/1", Some("id=1")),
        ("/nodes/:id/x/?", "/nodes/1/x/", Some("id=1")),
        ("/nodes/:id/x/?", "/nodes/1/x//", None),
        ("/nodes/?", "/nodes/", None),
        ("/nodes/?", "/nodes/?", Some("")),
        ("/f/x:y/z", "/f/x:y/z", Some("")),
        ("/f/x:y/z", "/f/xq/z", None),
        ("/u/:", "/u/:", Some("")),
    ] {
        assert_eq!(captured(&pattern(written), path).as_deref(), expected, "{written} {path}");
    }
}

#[test]
fn parameters_take_one_segment_and_stars_any_number() {
    for (written, path, expected) in [
        ("/u/:id", "/u/7", Some("id=7")),
        ("/u/:id", "/u/", None),
        ("/u/:id", "/u/7/", None),
        ("/u/:id/", "/u/7/", Some("id=7")),
        ("/u/:id.txt", "/u/7", Some("id.txt=7")),
        ("/:a/:b/:c", "/1/2/3", Some("a=1&b=2&c=3")),
        ("/f/:a/*rest", "/f/1/2/3", Some("a=1&rest=2/3")),
        ("/f/:a/*rest", "/f/1", None),
        ("/a/*/c", "/a/b/x/c", Some(":ext=b/x")),
        ("/a/*/c", "/a//c", Some(":ext=")),
        ("/a/*/c", "/a/c", None),
        ("/a/*/c", "/a/b/cd", None),
        ("/a/*n/c", "/a/b\nc/c", Some("n=b\nc")),
        ("/*x/m/*y", "/1/m/2/m/3", Some("x=1/m/2&y=3")),
        ("/*x/m/:p/*y", "/1/m/2/m/3/", Some("x=1/m/2&p=3&y=")),
        ("/*x/m/:p/n", "/1/m/2/n", Some("x=1&p=2")),
        ("/*x/m/*y/e", "/a/m/b/m/c/e", Some("x=a/m/b&y=c")),
        ("/a/*/img*.png", "/a/b/img.gif", Some(":ext=b")),
        ("*x/c", "/a/b/c", Some("x=/a/b")),
    ] {
        assert_eq!(captured(&pattern(written), path).as_deref(), expected, "{written} {path}");
    }
}

#[test]
fn without_path_parameters_a_colon_is_text() {
    let pattern = PathPattern::parse("", "/u/:id", false).unwrap();
    assert!(pattern.is_exact());
    assert!(pattern.matches(b"/u/:id"));
    assert!(!pattern.matches(b"/u/7"));
}

#[test]
fn a_prefix_is_literal_and_ends_at_a_segment() {
    for (prefix, written, path, expected) in [
        ("/api", "/x", "/api/x", Some("")),
        ("/api/", "/x", "/api/x", Some("")),
        ("/api", "/*", "/apix", None),
        ("/api", "/*", "/api", Some(":ext=")),
        ("/api", "/*r", "/api", Some("r=")),
        ("/api", "/", "/api", Some("")),
        ("/api", "/", "/api/", Some("")),
        ("/api", "*", "/api", Some(":ext=")),
        ("/api", "*", "/apix", None),
        ("/api", "/:id", "/api", None),
        ("/api", "/*/c", "/api", None),
        ("/", "/*", "/", Some(":ext=")),
        ("/:v", "/x", "/:v/x", Some("")),
        ("/:v", "/x", "/1/x", None),
    ] {
        let pattern = PathPattern::parse(prefix, written, true).unwrap();
        assert_eq!(captured(&pattern, path).as_deref(), expected, "{prefix} {written} {path}");
    }
}

#[test]
fn one_pattern_covers_another_if_it_matches_all_its_paths() {
    for (one, other, expected) in [
        ("/a/*", "/a/b", true),
        ("/a/*", "/a", false),
        ("/a*", "/a/*", true),
        ("/a/b", "/a/*", false),
        ("/a/:x", "/a/:longer", true),
        ("/a/:x", "/a/*", false),
        ("/a/*", "/a/:x", true),
        ("/a/:x/c", "/a/b/c", true),
        ("/a/:x/:y", "/a/:x/c", true),
        ("/a/:x/c", "/a/:x/:y", false),
        ("/a/*/c", "/a/:x/c", true),
        ("/a/*/c", "/a/*y/c", true),
    ] {
        assert_eq!(pattern(one).covers(&pattern(other)), expected, "{one} {other}");
    }
}

#[test]
fn too_many_captures_are_refused() {
    assert!(PathPattern::parse("", &"/:x".repeat(limits::CAPTURES_MAX), true).is_ok());
    assert!(PathPattern::parse("", &"/:x".repeat(limits::CAPTURES_MAX + 1), true).is_err());
    assert!(PathPattern::parse("", &format!("/{}", "x".repeat(limits::PATH_LENGTH_MAX)), true).is_err());
}

/// The same meaning in the words of a regular expression.
fn as_regex(written: &str) -> regex::bytes::Regex {
    let mut text = String::from("(?s-u)^");
    for (index, segment) in written.split('/').enumerate() {
        if index > 0 {
            text.push('/');
        }
        match segment.as_bytes().first() {
            Some(b'*') => text.push_str("(.*)"),
            Some(b':') if segment.len() > 1 => text.push_str("([^/]+)"),
            _ => text.push_str(&regex::escape(segment)),
        }
    }
    text.push('$');
    regex::bytes::Regex::new(&text).expect("a regular expression")
}

proptest! {
    #[test]
    fn patterns_capture_what_a_greedy_regular_expression_captures(
        written in "(/(a|b|:x|\\*s|\\*)){1,5}",
        path in "(/(a|b|c)?){1,8}",
    ) {
        let pattern = pattern(&written);
        let found = as_regex(&written).captures(path.as_bytes());
        prop_assert_eq!(pattern.matches(path.as_bytes()), found.is_some());
        if let Some(found) = found {
            let expected: Vec<_> = found.iter().skip(1).flatten().map(|group| group.as_bytes()).collect();
            let captured: Vec<_> = pattern.captures(path.as_bytes()).map(|(_, value)| value).collect();
            prop_assert_eq!(captured, expected);
        }
    }
}
