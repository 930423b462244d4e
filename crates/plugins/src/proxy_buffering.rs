//! `proxy-buffering`: says whether responses may be gathered before they are passed on.
//!
//! This gateway never holds a response back: what a node has said goes to the client before more is waited for. So
//! both settings are fulfilled without doing anything; the plugin is there for configurations that carry it, such as
//! those of event streams.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::kind::{self, Built, Category, Kind, Phases, Plugin, Site};
use crate::schema;

pub(crate) const KIND: Kind = Kind {
    name: "proxy-buffering",
    priority: 21991,
    category: Category::Other,
    phases: Phases::of(&[]),
    schema: schema::of::<Config>,
    metadata: None,
    credential: None,
    build,
};

#[derive(Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
#[derive(Default)]
struct Config {
    /// Whether responses stream; they do in any case.
    #[allow(dead_code, reason = "streaming is all there is")]
    disable_proxy_buffering: bool,
}

struct ProxyBuffering;

impl Plugin for ProxyBuffering {}

fn build(config: Value, _: &Site<'_>) -> Built {
    kind::parse::<Config>(config)?;
    Ok(Arc::new(ProxyBuffering))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Trial, refused};

    #[test]
    fn requests_and_responses_pass_as_they_are() {
        for config in [json!({}), json!({"disable_proxy_buffering": true})] {
            let run_of = Trial::of("proxy-buffering", config);
            let run = run_of.run("GET /events");
            assert_eq!(run.answered(), "");
            let responded = run.respond("200\nContent-Type: text/event-stream\n\ndata: 1");
            assert_eq!(responded.body, "data: 1");
        }
        assert_eq!(
            refused("proxy-buffering", &json!({"disable_proxy_buffering": 1})),
            ["/disable_proxy_buffering"]
        );
    }
}
