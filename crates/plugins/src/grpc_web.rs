//! `grpc-web`: lets browsers call gRPC services, which cannot be spoken to from a browser as they are.
//!
//! A call of gRPC-Web, in binary or as text in base64, goes to the upstream as gRPC; what gRPC says behind the body
//! becomes the last frame of the body. Answers stream, message by message; so do requests but those in base64, which
//! are read as a whole first. The upstream must have the scheme `grpc` or `grpcs`, and the path of the route must end
//! in `/*`: what the star stands for is the path of the call.
//! Clients that speak gRPC need no plugin, and must not come through this one.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gatewright_model::message::{Fields, Method};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::exchange::{Answer, Body, Exchange, Flow};
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::response::{BodyFilter, Origin, Response};
use crate::schema;

pub(crate) const KIND: Kind = Kind {
    name: "grpc-web",
    priority: 505,
    category: Category::Other,
    phases: Phases::of(&[Phase::Access, Phase::Response]),
    schema: schema::of::<Config>,
    metadata: None,
    credential: None,
    build,
};

/// What a browser may send, and the way it is written.
const TYPES: [(&str, Form); 4] = [
    ("application/grpc-web", Form::Binary),
    ("application/grpc-web+proto", Form::Binary),
    ("application/grpc-web-text", Form::Text),
    ("application/grpc-web-text+proto", Form::Text),
];

/// What a frame with trailers begins with, before their length.
const TRAILERS: u8 = 0x80;

#[derive(Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Config {
    /// Header fields that browsers may send, separated by commas.
    cors_allow_headers: String,
    /// Bytes of the longest request that is let through.
    #[schema(minimum = 1)]
    max_req_body_size: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cors_allow_headers: "content-type,x-grpc-web,x-user-agent".to_owned(),
            max_req_body_size: 64 * 1024 * 1024,
        }
    }
}

struct GrpcWeb {
    allow_headers: String,
    body_bytes_max: u64,
}

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Binary,
    /// In base64.
    Text,
}

/// The call, once it is known to be one: its answer is written like it.
#[derive(Clone, Copy, Debug)]
struct Call {
    content_type: &'static str,
    form: Form,
}

fn build(config: Value, _: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let body_bytes_max = config.max_req_body_size;
    Ok(Arc::new(GrpcWeb { allow_headers: config.cors_allow_headers, body_bytes_max }))
}

impl Plugin for GrpcWeb {
    fn access(&self, exchange: &mut Exchange<'_>) -> Flow {
        match self.translate(exchange) {
            Ok(()) => Flow::Continue,
            Err(flow) => flow,
        }
    }

    fn response(&self, exchange: &mut Exchange<'_>, response: &mut Response<'_>) {
        if exchange.request.method == Method::Options {
            response.set_field("Access-Control-Allow-Methods", b"POST");
            response.set_field("Access-Control-Allow-Headers", self.allow_headers.as_bytes());
        }
        // Where `cors` decides which origins may read an answer, it decides it for these answers as well.
        if !exchange.state.origins_decided {
            response.set_field("Access-Control-Allow-Origin", b"*");
        }
        response.set_field("Access-Control-Expose-Headers", b"grpc-message,grpc-status");
        let Some(Call { content_type, form }) = exchange.note().copied() else { return };
        let is_grpc =
            response.field("Content-Type").is_some_and(|kind| kind.starts_with(b"application/grpc"));
        if !matches!(response.origin, Origin::Upstream(_)) || !is_grpc {
            // Clients take other answers by their status.
            return;
        }
        response.set_field("Content-Type", content_type.as_bytes());
        // An answer that says its status at the head has neither messages nor trailers.
        if response.field("grpc-status").is_none() {
            response.filter_body(Box::new(Framing { form }));
        }
    }
}

impl GrpcWeb {
    /// Makes a call of gRPC out of the request.
    fn translate(&self, exchange: &mut Exchange<'_>) -> Result<(), Flow> {
        let refusal = |status, message: &str| Flow::respond(Answer::error_msg(status, message));
        match exchange.request.method {
            Method::Options => return Err(Flow::respond(Answer::new(204))),
            Method::Post => {}
            _ => {
                let answer = Answer::error_msg(405, "calls of gRPC-Web are sent with POST");
                return Err(Flow::respond(answer.field("Allow", "POST, OPTIONS")));
            }
        }
        let content_type = exchange.field("Content-Type").unwrap_or_default();
        let Some(call) = call_of(content_type) else {
            return Err(refusal(400, "the content type is none of gRPC-Web"));
        };
        let Some(path) = path_of_call(exchange) else {
            return Err(refusal(
                400,
                "the path of the route does not end in `/*`, or nothing stands for its star",
            ));
        };
        match call.form {
            Form::Binary => {
                let bytes_max = &mut exchange.state.body_bytes_max;
                *bytes_max = Some(bytes_max.unwrap_or(u64::MAX).min(self.body_bytes_max));
            }
            Form::Text => match &exchange.state.body {
                Body::Unread => {
                    return Err(Flow::ReadBody(usize::try_from(self.body_bytes_max).unwrap_or(usize::MAX)));
                }
                Body::TooLarge => return Err(refusal(413, "the body is too long")),
                Body::Read(body) if body.len() as u64 > self.body_bytes_max => {
                    return Err(refusal(413, "the body is too long"));
                }
                Body::Read(body) => {
                    let Some(body) = decoded(body) else {
                        return Err(refusal(400, "the body is not base64"));
                    };
                    exchange.state.body_replaced = Some(body.into());
                }
            },
        }
        exchange.set_path(&path);
        let fields = &mut exchange.request.fields;
        fields.set("Content-Type", b"application/grpc");
        fields.set("TE", b"trailers");
        exchange.set_note(call);
        Ok(())
    }
}

/// What is called for with this type of content.
fn call_of(content_type: &[u8]) -> Option<Call> {
    let essence = content_type.split(|byte| *byte == b';').next()?.trim_ascii();
    let known = TYPES.into_iter().find(|(known, _)| essence.eq_ignore_ascii_case(known.as_bytes()));
    known.map(|(content_type, form)| Call { content_type, form })
}

/// The path of the call: what the star at the end of the route's path stands for. Parameters before it stand for one
/// segment each, so that counting slashes finds it.
fn path_of_call(exchange: &Exchange<'_>) -> Option<Vec<u8>> {
    let stem = exchange.matched.path.strip_suffix('*').filter(|stem| stem.ends_with('/'))?;
    if stem.contains('*') {
        return None;
    }
    let path = exchange.request.bytes(exchange.request.path);
    // What a plugin put in place of the path is taken as the route would see it, without a prefix.
    let prefix_length = if exchange.state.path_replaced { 0 } else { exchange.matched.prefix_length };
    let behind = path.get(prefix_length..)?;
    let slashes = stem.bytes().filter(|byte| *byte == b'/').count();
    let (last, _) =
        behind.iter().enumerate().filter(|(_, byte)| **byte == b'/').nth(slashes.checked_sub(1)?)?;
    let call = &behind[last..];
    (call.len() > 1).then(|| call.to_vec())
}

/// The bytes of a body in base64, which may be written in pieces, each padded.
fn decoded(mut text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    while !text.is_empty() {
        let padding = text.iter().position(|byte| *byte == b'=');
        let end =
            padding.map_or(text.len(), |at| at + text[at..].iter().take_while(|byte| **byte == b'=').count());
        let (piece, rest) = text.split_at(end);
        STANDARD.decode_vec(piece, &mut bytes).ok()?;
        text = rest;
    }
    Some(bytes)
}

/// Writes an answer as gRPC-Web wants it: trailers are the last frame.
struct Framing {
    form: Form,
}

impl Framing {
    fn write(&self, piece: &[u8], out: &mut Vec<u8>) {
        match self.form {
            Form::Binary => out.extend_from_slice(piece),
            // Every piece is padded, so that nothing waits for what comes next.
            Form::Text => out.extend_from_slice(STANDARD.encode(piece).as_bytes()),
        }
    }
}

impl BodyFilter for Framing {
    fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        self.write(piece, out);
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        self.finish_before(&mut None, out);
    }

    fn finish_before(&mut self, trailers: &mut Option<Fields>, out: &mut Vec<u8>) {
        let trailers = trailers.take().unwrap_or_default();
        let mut block = Vec::new();
        for field in trailers.iter() {
            // Names stand in lower case in a frame.
            block.extend(trailers.bytes(field.name).iter().map(u8::to_ascii_lowercase));
            block.push(b':');
            block.extend_from_slice(trailers.bytes(field.value));
            block.extend_from_slice(b"\r\n");
        }
        if trailers.named(b"grpc-status").next().is_none() {
            block.extend_from_slice(b"grpc-status:2\r\ngrpc-message:upstream grpc status not received\r\n");
        }
        let length = u32::try_from(block.len()).unwrap_or(u32::MAX);
        let mut frame = vec![TRAILERS];
        frame.extend_from_slice(&length.to_be_bytes());
        frame.append(&mut block);
        self.write(&frame, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trial, refused};
    use serde_json::json;

    const CALL: &str = "POST /p.S/M\nContent-Type: application/grpc-web";

    fn trial() -> Trial {
        Trial::of("grpc-web", json!({}))
    }

    /// A frame with trailers.
    fn frame(block: &str) -> Vec<u8> {
        let length = u32::try_from(block.len()).unwrap().to_be_bytes();
        [&[TRAILERS], &length[..], block.as_bytes()].concat()
    }

    #[test]
    fn only_calls_of_grpc_web_are_let_through() {
        let trial = trial();
        for (request, expected) in [
            (CALL, ""),
            ("POST /p.S/M\nContent-Type: application/grpc-web+proto; charset=utf-8", ""),
            ("OPTIONS /p.S/M", "204"),
            ("GET /p.S/M", "405"),
            ("PUT /p.S/M\nContent-Type: application/grpc-web", "405"),
            ("POST /p.S/M", "400"),
            ("POST /p.S/M\nContent-Type: application/grpc", "400"),
            ("POST /p.S/M\nContent-Type: application/grpc-web+json", "400"),
            ("POST /\nContent-Type: application/grpc-web", "400"),
            ("POST /p.S/M\nContent-Type: application/grpc-web-text\n\n!", "400"),
        ] {
            let answered = trial.run(request).answered();
            assert_eq!(answered.split(' ').next().unwrap(), expected, "{request}");
        }
    }

    #[test]
    fn the_upstream_gets_a_call_of_grpc() {
        let trial = trial();
        let run = trial.run(CALL);
        assert_eq!(run.forwarded(), "POST /p.S/M");
        assert_eq!(
            (run.sent("Content-Type"), run.sent("TE")),
            ("application/grpc".into(), "trailers".into())
        );
        assert_eq!((&run.state.body_replaced, run.state.body_bytes_max), (&None, Some(64 * 1024 * 1024)));
        // Two pieces, each padded on its own.
        let text = format!("{}{}", STANDARD.encode(b"\0\0\0\0\x02"), STANDARD.encode(b"hi"));
        let run = trial.run(&format!("{CALL}-text+proto\n\n{text}"));
        assert_eq!(run.state.body_replaced.as_deref(), Some(&b"\0\0\0\0\x02hi"[..]));
    }

    #[test]
    fn the_path_of_a_call_is_what_the_star_stands_for() {
        for (route, prefix_length, path, expected) in [
            ("/*", 0, "/p.S/M", Some("/p.S/M")),
            ("/grpc/*", 0, "/grpc/p.S/M", Some("/p.S/M")),
            ("/grpc/:team/*", 4, "/api/grpc/blue/p.S/M", Some("/p.S/M")),
            ("/grpc/*", 0, "/grpc/", None),
            ("/grpc*", 0, "/grpc/p.S/M", None),
            ("/grpc/*rest", 0, "/grpc/p.S/M", None),
            ("/*/grpc/*", 0, "/a/grpc/p.S/M", None),
            ("/p.S/M", 0, "/p.S/M", None),
        ] {
            let trial = trial();
            let mut run = trial.run(&format!("GET {path}"));
            let found = run.with_exchange(|exchange| {
                exchange.matched.path = route;
                exchange.matched.prefix_length = prefix_length;
                path_of_call(exchange)
            });
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{route} {path}");
        }
    }

    #[test]
    fn a_request_that_is_too_long_is_refused() {
        let trial = Trial::of("grpc-web", json!({"max_req_body_size": 4}));
        assert_eq!(trial.run(CALL).state.body_bytes_max, Some(4));
        assert_eq!(trial.run(&format!("{CALL}-text\n\nAAAA")).answered(), "");
        assert!(trial.run(&format!("{CALL}-text\n\nAAAAA")).answered().starts_with("413 "));
        assert_eq!(refused("grpc-web", &json!({"max_req_body_size": 0, "cors_allow_headers": 1})).len(), 2);
    }

    #[test]
    fn trailers_become_the_last_frame() {
        let trial = trial();
        for (trailers, block) in [
            (
                &[("grpc-status", "0"), ("Grpc-Message", ""), ("x-sum", "9")][..],
                "grpc-status:0\r\ngrpc-message:\r\nx-sum:9\r\n",
            ),
            (&[], "grpc-status:2\r\ngrpc-message:upstream grpc status not received\r\n"),
        ] {
            let answer = "200\nContent-Type: application/grpc\nContent-Length: 7\n\n\0\0\0\0\x02hi";
            let responded = trial.run(&format!("{CALL}-text\n\nAAAAAAA=")).respond_before(answer, trailers);
            assert!(responded.trailers.is_none(), "they are in the body");
            assert_eq!(responded.field("Content-Type"), "application/grpc-web-text");
            assert_eq!(responded.field("Content-Length"), "");
            let body = decoded(responded.body.as_bytes()).expect("base64 in pieces");
            assert_eq!(body, [&b"\0\0\0\0\x02hi"[..], &frame(block)].concat());
        }
        let mut out = Vec::new();
        Framing { form: Form::Binary }.push(b"\0\0\0\0\x02hi", &mut out);
        Framing { form: Form::Binary }.finish_before(&mut None, &mut out);
        assert!(out.starts_with(b"\0\0\0\0\x02hi\x80\0\0\0"), "{out:?}");
    }

    #[test]
    fn answers_without_messages_and_answers_of_others_keep_their_body() {
        let trial = trial();
        let only_trailers = trial.run(CALL).respond(
            "200\nContent-Type: application/grpc\ngrpc-status: 12\ngrpc-message: no such method\n\n",
        );
        assert_eq!(only_trailers.field("Content-Type"), "application/grpc-web");
        assert_eq!((only_trailers.field("grpc-status").as_str(), only_trailers.body.as_str()), ("12", ""));
        let page = trial.run(CALL).respond("502\nContent-Type: text/html\n\nsorry");
        assert_eq!((page.field("Content-Type").as_str(), page.body.as_str()), ("text/html", "sorry"));
        assert_eq!(page.field("Access-Control-Allow-Origin"), "*");
    }

    #[test]
    fn browsers_learn_what_they_may_send_and_read() {
        let preflight = trial().run("OPTIONS /p.S/M\nOrigin: https://a.example").respond("204");
        for (name, expected) in [
            ("Access-Control-Allow-Methods", "POST"),
            ("Access-Control-Allow-Headers", "content-type,x-grpc-web,x-user-agent"),
            ("Access-Control-Allow-Origin", "*"),
            ("Access-Control-Expose-Headers", "grpc-message,grpc-status"),
        ] {
            assert_eq!(preflight.field(name), expected, "{name}");
        }
        let own = Trial::all(&json!({"grpc-web": {}, "cors": {"allow_origins": "https://a.example"}}));
        let stranger = own.run(&format!("{CALL}\nOrigin: https://b.example")).respond("200");
        assert_eq!(stranger.field("Access-Control-Allow-Origin"), "", "`cors` says who may read it");
    }
}
