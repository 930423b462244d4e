//! `brotli`: compresses responses for clients that accept Brotli, which is denser than gzip.
//!
//! Where `gzip` is configured beside it, clients that accept both get Brotli. A body is compressed piece by piece, so
//! streams stay streams. Levels above 6 cost much time for little: use them for what is cached.

use std::io::Write as _;
use std::sync::Arc;

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use brotli::enc::backward_references::BrotliEncoderMode;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::compression::{self, Selection, Types};
use crate::exchange::Exchange;
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::response::{BodyFilter, Response};
use crate::schema;

pub(crate) const KIND: Kind = Kind {
    name: "brotli",
    priority: 996,
    category: Category::Other,
    phases: Phases::of(&[Phase::Response]),
    schema: || {
        let windows = |from: u32| -> Vec<u32> { std::iter::once(0).chain(from..=24).collect() };
        let sizes = |from: u32| json!({ "type": "integer", "enum": windows(from) });
        let schema = schema::field(schema::of::<Config>(), "types", compression::types_schema());
        let schema = schema::field(schema, "http_version", json!({ "enum": [1.1, 1] }));
        let schema = schema::field(schema, "lgwin", sizes(10));
        schema::field(schema, "lgblock", sizes(16))
    },
    metadata: None,
    credential: None,
    build,
};

/// The window where `lgwin` leaves it open: four megabytes, the largest that every decoder takes.
const WINDOW_DEFAULT: i32 = 22;

/// Bytes the encoder is handed at a time.
const BUFFER_BYTES: usize = 4096;

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
    /// What the encoder is tuned for: 0 anything, 1 text, 2 fonts.
    #[schema(minimum = 0, maximum = 2)]
    mode: u8,
    /// From 0, fast, to 11, small.
    #[schema(minimum = 0, maximum = 11)]
    comp_level: i32,
    /// Size of the window as a power of two; 0: the encoder chooses.
    lgwin: i32,
    /// Size of a block as a power of two; 0: the encoder chooses.
    lgblock: i32,
    /// The oldest HTTP version whose clients get compressed responses.
    http_version: f64,
    /// Whether `Vary` tells caches that the response depends on what the client accepts.
    vary: Option<bool>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            types: Types::default(),
            min_length: 20,
            mode: 0,
            comp_level: 6,
            lgwin: 19,
            lgblock: 0,
            http_version: 1.1,
            vary: None,
        }
    }
}

struct Brotli {
    selection: Selection,
    params: BrotliEncoderParams,
}

fn build(config: Value, _: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let params = BrotliEncoderParams {
        mode: match config.mode {
            1 => BrotliEncoderMode::BROTLI_MODE_TEXT,
            2 => BrotliEncoderMode::BROTLI_MODE_FONT,
            _ => BrotliEncoderMode::BROTLI_MODE_GENERIC,
        },
        quality: config.comp_level,
        lgwin: if config.lgwin == 0 { WINDOW_DEFAULT } else { config.lgwin },
        lgblock: config.lgblock,
        ..BrotliEncoderParams::default()
    };
    let Config { types, min_length, http_version, vary, .. } = config;
    let selection = Selection::new(types, min_length, http_version, vary);
    Ok(Arc::new(Brotli { selection, params }))
}

impl Plugin for Brotli {
    fn response(&self, exchange: &mut Exchange<'_>, response: &mut Response<'_>) {
        self.selection.apply(exchange, response, "br", || Box::new(Compressing::new(&self.params)));
    }
}

/// `None` once the body is over.
struct Compressing(Option<CompressorWriter<Vec<u8>>>);

impl Compressing {
    fn new(params: &BrotliEncoderParams) -> Self {
        Self(Some(CompressorWriter::with_params(Vec::new(), BUFFER_BYTES, params)))
    }
}

impl BodyFilter for Compressing {
    fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        if let Some(encoder) = &mut self.0 {
            // Writing into memory cannot fail. What is there now goes out now: somebody may be waiting for it.
            let _ = encoder.write_all(piece).and_then(|()| encoder.flush());
            out.append(encoder.get_mut());
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if let Some(encoder) = self.0.take() {
            out.append(&mut encoder.into_inner());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::testing::{Trial, refused};

    fn decoded(bytes: &[u8]) -> String {
        let mut text = String::new();
        brotli::Decompressor::new(bytes, BUFFER_BYTES).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn what_the_client_accepts_is_compressed() {
        let page = "200\nContent-Type: text/html\nContent-Length: 30\n\n";
        for (config, request, response, encoding) in [
            (json!({}), "GET /\nAccept-Encoding: gzip, br", page, "br"),
            (json!({}), "GET /\nAccept-Encoding: br;q=0", page, ""),
            (json!({}), "GET /\nAccept-Encoding: gzip", page, ""),
            (json!({"min_length": 31}), "GET /\nAccept-Encoding: br", page, ""),
            (json!({"types": "*"}), "GET /\nAccept-Encoding: br", "200\nContent-Type: a/b\n\n", "br"),
            (
                json!({}),
                "GET /\nAccept-Encoding: br",
                "200\nContent-Type: text/html\nContent-Encoding: gzip\n\n",
                "gzip",
            ),
        ] {
            let responded = Trial::of("brotli", config.clone()).run(request).respond(response);
            assert_eq!(responded.field("Content-Encoding"), encoding, "{config} {request} {response}");
        }
    }

    #[test]
    fn beside_gzip_the_denser_one_is_chosen() {
        let trial = Trial::all(&json!({"gzip": {}, "brotli": {"vary": true}}));
        let page = "200\nContent-Type: text/html\n\n";
        let both = trial.run("GET /\nAccept-Encoding: gzip, br").respond(page);
        assert_eq!(
            (both.field("Content-Encoding"), both.field("Vary")),
            ("br".into(), "Accept-Encoding".into())
        );
        let other = trial.run("GET /\nAccept-Encoding: gzip").respond(page);
        assert_eq!(other.field("Content-Encoding"), "gzip");
    }

    #[test]
    fn the_body_can_be_read_again_at_every_setting() {
        for config in [json!({}), json!({"comp_level": 0}), json!({"comp_level": 11, "lgwin": 0, "mode": 1})]
        {
            let params = Brotli {
                selection: Selection::new(Types::default(), 1, 1.1, None),
                params: BrotliEncoderParams {
                    quality: config["comp_level"].as_i64().map_or(6, |level| i32::try_from(level).unwrap()),
                    ..BrotliEncoderParams::default()
                },
            };
            let (mut filter, mut out) = (Compressing::new(&params.params), Vec::new());
            filter.push(b"hello ", &mut out);
            assert!(!out.is_empty(), "pieces go out as they come");
            filter.push(b"world", &mut out);
            filter.finish(&mut out);
            assert_eq!(decoded(&out), "hello world", "{config}");
        }
    }

    #[test]
    fn sizes_that_the_encoder_does_not_have_are_refused() {
        let config = json!({"lgwin": 9, "lgblock": 15, "mode": 3, "comp_level": 12});
        assert_eq!(refused("brotli", &config), ["/comp_level", "/lgblock", "/lgwin", "/mode"]);
    }
}
