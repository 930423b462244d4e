//! Heads of requests, written as text.

use gatewright_model::message::{Method, RequestHead};
use gatewright_model::target;

/// The head that is `METHOD target`, with fields on lines of their own; an empty one, that of a stream, has nothing.
pub(super) fn head_of(text: &str) -> RequestHead {
    if text.is_empty() {
        return RequestHead::default();
    }
    let mut lines = text.lines();
    let (method, raw) = lines.next().and_then(|line| line.split_once(' ')).expect("a method and a target");
    let target = target::parse_target(raw.as_bytes()).expect("a target");
    let mut head = RequestHead::default();
    head.method = Method::of(method.as_bytes());
    head.method_text = head.fields.intern(method.as_bytes());
    head.target = head.fields.intern(raw.as_bytes());
    head.raw_path = head.target.part(target.raw_path.clone());
    head.path = head.fields.intern(&target.path);
    head.path_is_plain = true;
    head.query = target.query.clone().map(|range| head.target.part(range));
    for line in lines {
        let (name, value) = line.split_once(':').expect("a field");
        head.fields.append(name, value.trim().as_bytes());
    }
    let authority = head.fields.named(b"host").next().unwrap_or(b"api.example").to_vec();
    head.authority = head.fields.intern(&authority);
    let end = authority.iter().position(|byte| *byte == b':').unwrap_or(authority.len());
    head.host = head.authority.part(0..end);
    head
}
