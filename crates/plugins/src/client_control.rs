//! `client-control`: refuses bodies that are too long.

use std::sync::Arc;

use gatewright_model::message::Known;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::exchange::{Answer, Exchange, Flow};
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::schema;

pub(crate) const KIND: Kind = Kind {
    name: "client-control",
    priority: 22000,
    category: Category::Other,
    phases: Phases::of(&[Phase::Rewrite]),
    schema: schema::of::<Config>,
    metadata: None,
    credential: None,
    build,
};

#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
struct Config {
    /// Bytes of the longest body that is let through; 0: any.
    #[schema(minimum = 0)]
    max_body_size: Option<u64>,
}

struct ClientControl {
    body_bytes_max: Option<u64>,
}

fn build(config: Value, _: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    Ok(Arc::new(ClientControl { body_bytes_max: config.max_body_size.filter(|max| *max > 0) }))
}

impl Plugin for ClientControl {
    fn rewrite(&self, exchange: &mut Exchange<'_>) -> Flow {
        let Some(bytes_max) = self.body_bytes_max else { return Flow::Continue };
        let length = exchange.request.fields.known(Known::ContentLength).next();
        let length: Option<u64> = length.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        if length.is_some_and(|length| length > bytes_max) {
            return Flow::respond(Answer::new(413));
        }
        // A body that does not announce its length is measured while it passes.
        exchange.state.body_bytes_max = Some(bytes_max);
        Flow::Continue
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Trial, refused};
    use serde_json::json;

    #[test]
    fn bodies_that_are_too_long_are_refused() {
        for (config, request, expected) in [
            (json!({"max_body_size": 5}), "POST /\nContent-Length: 5", ""),
            (json!({"max_body_size": 5}), "POST /\nContent-Length: 6", "413 "),
            (json!({"max_body_size": 0}), "POST /\nContent-Length: 6", ""),
            (json!({}), "POST /\nContent-Length: 6", ""),
        ] {
            assert_eq!(
                Trial::of("client-control", config.clone()).run(request).answered(),
                expected,
                "{config}"
            );
        }
        let trial = Trial::of("client-control", json!({"max_body_size": 5}));
        assert_eq!(trial.run("POST /").state.body_bytes_max, Some(5));
        assert_eq!(refused("client-control", &json!({"max_body_size": -1})), ["/max_body_size"]);
    }
}
