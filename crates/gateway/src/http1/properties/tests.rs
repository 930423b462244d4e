//! The properties on the seeds and on generated messages, and the codec beside hyper: what hyper refuses is refused.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// What a server made of a request: method, values of fields in their order, and the body.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Understood {
    method: String,
    values: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

/// What the codec understands of `received` if nothing follows it; `None`: it is refused or incomplete.
fn ours(received: &[u8]) -> Option<Understood> {
    let (framing, length) = request_head(received)?;
    let head_bytes = received[..length].strip_prefix(b"\r\n").unwrap_or(&received[..length]);
    let mut head = RequestHead::default();
    request::parse(head_bytes, &mut head).ok()?;
    let rest = &received[length..];
    let body = match framing {
        Framing::None => Vec::new(),
        Framing::Length(length) => rest.get(..usize::try_from(length).ok()?)?.to_vec(),
        Framing::Chunked => decode(rest, rest.len().max(1)).ok()??.0,
        Framing::UntilClose => unreachable!("a request has an end"),
    };
    let values = lines_of(&head.fields);
    Some(Understood {
        method: String::from_utf8_lossy(head.bytes(head.method_text)).into_owned(),
        values: sorted(values.into_iter().map(|(name, value)| (name.to_vec(), value.to_vec()))),
        body,
    })
}

/// By name, values of one name in their order: hyper keeps no order between names.
fn sorted(values: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    let lower = |name: Vec<u8>| String::from_utf8_lossy(&name).to_ascii_lowercase();
    let mut values: Vec<_> = values.map(|(name, value)| (lower(name), value)).collect();
    values.sort_by(|left, right| left.0.cmp(&right.0));
    values
}

/// What hyper understands of the first request in `received`.
fn hypers(received: &[u8]) -> Option<Understood> {
    let seen: Arc<Mutex<Vec<Option<Understood>>>> = Arc::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let record = Arc::clone(&seen);
    runtime.block_on(async move {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        client.write_all(received).await.expect("room for the request");
        client.shutdown().await.expect("the end of the request");
        let serve = service_fn(move |request: hyper::Request<Incoming>| {
            let record = Arc::clone(&record);
            async move {
                let (head, body) = request.into_parts();
                let values = head.headers.iter();
                let values = values
                    .map(|(name, value)| (name.as_str().as_bytes().to_vec(), value.as_bytes().to_vec()));
                let understood = |body: Bytes| Understood {
                    method: head.method.to_string(),
                    values: sorted(values),
                    body: body.to_vec(),
                };
                let understood = body.collect().await.ok().map(|body| understood(body.to_bytes()));
                record.lock().expect("a lock").push(understood);
                Ok::<_, Infallible>(hyper::Response::new(Empty::<Bytes>::new()))
            }
        });
        let connection = http1::Builder::new().half_close(true).serve_connection(TokioIo::new(server), serve);
        let reading = async {
            let mut answers = Vec::new();
            let _ = client.read_to_end(&mut answers).await;
        };
        let both = async { tokio::join!(connection, reading) };
        let _ = tokio::time::timeout(Duration::from_secs(20), both).await.expect("an end");
    });
    seen.lock().expect("a lock").first().cloned().flatten()
}

/// `Err`: hyper refuses what we accept, or both accept and understand different things.
fn compare(received: &[u8]) -> Result<(), TestCaseError> {
    if let Some(ours) = ours(received) {
        let shown = String::from_utf8_lossy(received);
        prop_assert_eq!(Some(ours), hypers(received), "{:?}", shown);
    }
    Ok(())
}

/// Requests that are valid, nearly valid, and valid but for a few bytes.
fn any_request() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        8 => "(GET|POST|PUT|X-Y) (/|/a|/a/b\\?c=d|/%41|http://h/x|/\\.\\./a|//a) HTTP/1\\.[01]",
        1 => "(get|G T|GET:|) ?(/|a|\\*)? (HTTP/1\\.1|HTTP/2\\.0|HTTP/1\\.|http/1\\.1)?",
    ];
    let field = prop_oneof![
        6 => "(Accept|X-A|x_b|Cookie|Connection|Expect|Upgrade|TE): ?(a|b; c=\"d\"|close|keep-alive|)[ \t]{0,2}",
        3 => "(Host|HOST): (h|h:80|h:x|)",
        4 => "Content-[Ll]ength: ?(0|1|5|5, 5|05|\\+5|-1|0x5|99999999999999999999|)",
        4 => "Transfer-Encoding: (chunked|Chunked|gzip, chunked|chunked, gzip|identity|xchunked|)",
        1 => " folded|X : a|: a|X\t: a|(X|X Y|X\u{e9}|\\(X\\))(: a)?",
    ];
    let body = "(hello|[0-5](;x=y| |;)?\r\n|a\r\nhellohello\r\n|5\r\nhello\r\n|0\r\n\r\n|0\r\n|X: y\r\n|X\r\n|\r\n){0,4}";
    let break_in = prop::sample::select(b"\r\n\0 \t:;,\x0b\x7f\x80\xffaA0".to_vec());
    let change = (any::<prop::sample::Index>(), break_in, 0..3_u8);
    (
        line,
        any::<bool>(),
        prop::collection::vec(field, 0..5),
        body,
        prop_oneof![3 => Just(Vec::new()), 2 => prop::collection::vec(change, 1..3)],
    )
        .prop_map(|(line, host, fields, body, changes)| {
            let host = if host { "Host: h\r\n" } else { "" };
            let fields: String = fields.into_iter().map(|field| field + "\r\n").collect();
            let mut bytes = format!("{line}\r\n{host}{fields}\r\n{body}").into_bytes();
            for (place, byte, kind) in changes {
                let at = place.index(bytes.len());
                match kind {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    _ => drop(bytes.remove(at)),
                }
            }
            bytes
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_hyper_refuses_is_refused_and_what_both_accept_is_understood_alike(received in any_request()) {
        compare(&received)?;
        response_head(&received);
    }

    #[test]
    fn chunked_bodies_are_read_as_hyper_reads_them(
        body in "(([0-9a-f]{1,2}|5)(;[a-z=\"]{0,3})?\r?\n?|hello|0123456789abcdef|\r\n|0\r\n|[A-Z]: ?[a-z]?|[A-Z]\r\n){0,8}(0\r\n\r\n)?",
    ) {
        chunked(body.as_bytes());
        compare(format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{body}").as_bytes())?;
    }

    #[test]
    fn answers_are_read_like_the_obvious_reader_reads_them(
        line in "HTTP/1\\.[01] [0-9]{3}( [ -~\t]{0,8})?",
        fields in prop::collection::vec("(Content-Length: ?[0-9]{0,2}|Transfer-Encoding: (chunked|gzip)|X: [ -~]{0,5}|[!-~]{0,3}:?.?)\r\n", 0..4),
    ) {
        response_head(format!("{line}\r\n{}\r\n", fields.concat()).as_bytes());
    }
}

#[test]
fn a_plain_request_is_understood_by_both() {
    let received =
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nX: y\r\n\r\n";
    let understood = ours(received);
    assert_eq!(understood.as_ref().map(|it| it.body.as_slice()), Some(&b"hello"[..]));
    assert_eq!(understood, hypers(received));
}

#[test]
fn hyper_lets_two_meanings_through_that_are_refused_here() {
    for framing in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Host: i\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 5",
    ] {
        let body = "5\r\nhello\r\n0\r\n\r\n";
        let received = format!("POST / HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n{body}");
        assert!(hypers(received.as_bytes()).is_some(), "{framing}");
        assert_eq!(ours(received.as_bytes()), None, "{framing}");
    }
}

#[test]
fn the_properties_hold_on_every_seed() {
    crate::seeds::each("request_head", |seed| {
        let _ = request_head(seed);
    });
    crate::seeds::each("response_head", response_head);
    crate::seeds::each("chunked", chunked);
    crate::seeds::each("request_head", |seed| compare(seed).expect("as hyper reads it"));
}
