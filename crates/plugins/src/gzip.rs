//! `gzip`: compresses responses for clients that accept it.
//!
//! A body is compressed piece by piece, so streams stay streams.

use std::io::Write as _;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::compression::{self, Selection, Types};
use crate::exchange::Exchange;
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::response::{BodyFilter, Response};
use crate::schema;

pub(crate) const KIND: Kind = Kind {
    name: "gzip",
    priority: 995,
    category: Category::Other,
    phases: Phases::of(&[Phase::Response]),
    schema: || {
        let schema = schema::field(schema::of::<Config>(), "types", compression::types_schema());
        schema::field(schema, "http_version", json!({ "enum": [1.1, 1] }))
    },
    metadata: None,
    credential: None,
    build,
};

#[derive(Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Config {
    /// Types that are compressed; `*`: any.
    #[schema(value_type = Object)]
    types: Types,
    /// Bytes of the shortest body that is compressed.
    #[schema(minimum = 1)]
    min_length: u64,
    /// From 1, fast, to 9, small.
    #[schema(minimum = 1, maximum = 9)]
    comp_level: u32,
    /// The oldest HTTP version whose clients get compressed responses.
    http_version: f64,
    /// Sizes of buffers; kept for compatibility, compression here needs none.
    buffers: Buffers,
    /// Whether `Vary` tells caches that the response depends on what the client accepts.
    vary: Option<bool>,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Buffers {
    /// How many.
    #[schema(minimum = 1)]
    number: i64,
    /// Bytes of one.
    #[schema(minimum = 1)]
    size: i64,
}

impl Default for Buffers {
    fn default() -> Self {
        Self { number: 32, size: 4096 }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            types: Types::default(),
            min_length: 20,
            comp_level: 1,
            http_version: 1.1,
            buffers: Buffers::default(),
            vary: None,
        }
    }
}

struct Gzip {
    selection: Selection,
    level: Compression,
}

fn build(config: Value, _: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let level = Compression::new(config.comp_level);
    let Config { types, min_length, http_version, vary, .. } = config;
    let selection = Selection::new(types, min_length, http_version, vary);
    Ok(Arc::new(Gzip { selection, level }))
}

impl Plugin for Gzip {
    fn response(&self, exchange: &mut Exchange<'_>, response: &mut Response<'_>) {
        let encoder = || Box::new(Compressing(GzEncoder::new(Vec::new(), self.level))) as _;
        self.selection.apply(exchange, response, "gzip", encoder);
    }
}

struct Compressing(GzEncoder<Vec<u8>>);

impl BodyFilter for Compressing {
    fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        // Writing into memory cannot fail. What is there now goes out now: somebody may be waiting for it.
        let _ = self.0.write_all(piece).and_then(|()| self.0.flush());
        out.append(self.0.get_mut());
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        let _ = self.0.try_finish();
        out.append(self.0.get_mut());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::testing::{Trial, refused};

    #[test]
    fn what_the_client_accepts_is_compressed() {
        let page = "200\nContent-Type: text/html; charset=utf-8\nContent-Length: 30\n\n";
        for (config, request, response, compressed) in [
            (json!({}), "GET /\nAccept-Encoding: br, gzip;q=0.5", page, true),
            (json!({}), "GET /\nAccept-Encoding: *", page, true),
            (json!({}), "GET /\nAccept-Encoding: gzip;q=0", page, false),
            (json!({}), "GET /\nAccept-Encoding: br", page, false),
            (json!({}), "GET /", page, false),
            (json!({"min_length": 31}), "GET /\nAccept-Encoding: gzip", page, false),
            (json!({"types": ["application/json"]}), "GET /\nAccept-Encoding: gzip", page, false),
            (json!({"types": "*"}), "GET /\nAccept-Encoding: gzip", "200\nContent-Type: a/b\n\n", true),
            (
                json!({}),
                "GET /\nAccept-Encoding: gzip",
                "200\nContent-Type: text/html\nContent-Encoding: br\n\n",
                false,
            ),
        ] {
            let trial = Trial::of("gzip", config.clone());
            let responded = trial.run(request).respond(response);
            let encoding = responded.field("Content-Encoding");
            assert_eq!(encoding == "gzip", compressed, "{config} {request} {response}");
            assert_eq!(
                responded.field("Content-Length").is_empty(),
                compressed || !response.contains("Length")
            );
        }
    }

    #[test]
    fn pieces_can_be_read_as_they_come() {
        let mut filter = Compressing(GzEncoder::new(Vec::new(), Compression::new(5)));
        let mut out = Vec::new();
        filter.push(b"hello ", &mut out);
        let mut start = [0; 6];
        flate2::read::GzDecoder::new(out.as_slice()).read_exact(&mut start).unwrap();
        assert_eq!(&start, b"hello ");
        filter.push(b"world", &mut out);
        filter.finish(&mut out);
        let mut whole = String::new();
        flate2::read::GzDecoder::new(out.as_slice()).read_to_string(&mut whole).unwrap();
        assert_eq!(whole, "hello world");
    }

    #[test]
    fn caches_are_told_and_validators_become_weak() {
        let trial = Trial::of("gzip", json!({"vary": true}));
        let page = "200\nContent-Type: text/html\nETag: \"1\"\n\n";
        let responded = trial.run("GET /\nAccept-Encoding: gzip").respond(page);
        assert_eq!(
            (responded.field("Vary"), responded.field("ETag")),
            ("Accept-Encoding".to_owned(), "W/\"1\"".to_owned())
        );
        let responded = trial.run("GET /").respond(page);
        assert_eq!(
            (responded.field("Vary"), responded.field("ETag")),
            ("Accept-Encoding".to_owned(), "\"1\"".to_owned())
        );
        assert_eq!(
            refused("gzip", &json!({"types": [], "comp_level": 0, "http_version": 2})),
            ["/comp_level", "/http_version", "/types"]
        );
    }
}
