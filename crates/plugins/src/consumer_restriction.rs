//! `consumer-restriction`: lets in, or keeps out, consumers, and says with which methods they may come.
//!
//! It needs an authentication before it, unless it restricts by service or route.

use std::sync::Arc;

use gatewright_model::expression::Variable;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::exchange::{Answer, Exchange, Flow};
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::schema;

pub(crate) const KIND: Kind = Kind {
    name: "consumer-restriction",
    priority: 2400,
    category: Category::Other,
    phases: Phases::of(&[Phase::Access]),
    schema: || schema::with::<Config>(schema::any_of(&["blacklist", "whitelist", "allowed_by_methods"])),
    metadata: None,
    credential: None,
    build,
};

#[derive(Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Config {
    /// What the lists name.
    #[serde(rename = "type")]
    restricts: Restricts,
    /// Who is let in.
    #[schema(min_items = 1)]
    whitelist: Option<Vec<String>>,
    /// Who is kept out; asked first.
    #[schema(min_items = 1)]
    blacklist: Option<Vec<String>>,
    /// Who may come with which methods, if not let in already.
    allowed_by_methods: Option<Vec<Allowance>>,
    /// Status of the answer to those kept out.
    #[schema(minimum = 200)]
    rejected_code: u16,
    /// What it says.
    rejected_msg: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            restricts: Restricts::ConsumerName,
            whitelist: None,
            blacklist: None,
            allowed_by_methods: None,
            rejected_code: 403,
            rejected_msg: None,
        }
    }
}

#[derive(Serialize, Deserialize, ToSchema)]
struct Allowance {
    /// Whom it is about.
    #[serde(default)]
    #[schema(required = false)]
    user: String,
    /// The methods.
    #[serde(default)]
    #[schema(required = false, min_items = 1)]
    methods: Vec<Method>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Restricts {
    #[default]
    ConsumerName,
    ServiceId,
    RouteId,
    ConsumerGroupId,
}

impl Restricts {
    fn name(self) -> &'static str {
        match self {
            Self::ConsumerName => "consumer_name",
            Self::ServiceId => "service_id",
            Self::RouteId => "route_id",
            Self::ConsumerGroupId => "consumer_group_id",
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
enum Method {
    Get,
    Post,
    Put,
    Delete,
    Patch,
    Head,
    Options,
    Connect,
    Trace,
    Purge,
}

impl Method {
    fn is(self, text: &[u8]) -> bool {
        format!("{self:?}").to_ascii_uppercase().as_bytes() == text
    }
}

struct ConsumerRestriction {
    config: Config,
    variable: Variable,
}

fn build(config: Value, _: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let variable = Variable::of(config.restricts.name());
    Ok(Arc::new(ConsumerRestriction { config, variable }))
}

impl Plugin for ConsumerRestriction {
    fn access(&self, exchange: &mut Exchange<'_>) -> Flow {
        let Config { whitelist, blacklist, allowed_by_methods, rejected_code, rejected_msg, restricts } =
            &self.config;
        let name = restricts.name();
        let Some(who) = exchange.text(&self.variable) else {
            let message = format!("The request is rejected, please check the {name} for this request");
            return Flow::respond(Answer::message(401, &message));
        };
        let lists = |list: &Vec<String>| list.iter().any(|listed| listed.as_bytes() == who);
        let method = exchange.request.bytes(exchange.request.method_text);
        let allows = |allowance: &Allowance| {
            allowance.user.as_bytes() == who && allowance.methods.iter().any(|allowed| allowed.is(method))
        };
        let passes = match (blacklist, whitelist, allowed_by_methods) {
            (Some(kept_out), _, _) if lists(kept_out) => false,
            (_, Some(let_in), _) if lists(let_in) => true,
            (_, _, Some(allowances)) => allowances.iter().any(allows),
            (_, let_in, None) => let_in.is_none(),
        };
        if passes {
            return Flow::Continue;
        }
        let message = rejected_msg.clone().unwrap_or_else(|| format!("The {name} is forbidden."));
        Flow::respond(Answer::message(*rejected_code, &message))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::testing::{Trial, refused};
    use serde_json::json;

    #[test]
    fn consumers_are_let_in_or_kept_out() {
        let no = "403 {\"message\":\"The consumer_name is forbidden.\"}\n";
        for (config, request, expected) in [
            (json!({"whitelist": ["jack"]}), "GET /", ""),
            (json!({"whitelist": ["rose"]}), "GET /", no),
            (json!({"blacklist": ["jack"]}), "GET /", no),
            (json!({"blacklist": ["rose"]}), "GET /", ""),
            (json!({"blacklist": ["jack"], "whitelist": ["jack"]}), "GET /", no),
            (json!({"allowed_by_methods": [{"user": "jack", "methods": ["POST"]}]}), "POST /", ""),
            (json!({"allowed_by_methods": [{"user": "jack", "methods": ["POST"]}]}), "GET /", no),
            (
                json!({"whitelist": ["rose"], "allowed_by_methods": [{"user": "jack", "methods": ["GET"]}]}),
                "GET /",
                "",
            ),
            (json!({"whitelist": ["r1"], "type": "route_id"}), "GET /", ""),
            (
                json!({"blacklist": ["s1"], "type": "service_id", "rejected_code": 401, "rejected_msg": "away"}),
                "GET /",
                "401 {\"message\":\"away\"}\n",
            ),
        ] {
            let trial =
                Trial::of("consumer-restriction", config.clone()).consumer("jack", json!({}), json!({}));
            let jack = Arc::clone(trial.consumers.named("jack").unwrap());
            assert_eq!(trial.run_as(request, jack).answered(), expected, "{config} {request}");
        }
    }

    #[test]
    fn whoever_is_nobody_is_kept_out() {
        let trial = Trial::of("consumer-restriction", json!({"blacklist": ["jack"]}));
        assert_eq!(
            trial.run("GET /").answered(),
            "401 {\"message\":\"The request is rejected, please check the consumer_name for this request\"}\n"
        );
    }

    #[test]
    fn a_restriction_that_is_none_is_refused() {
        assert_eq!(refused("consumer-restriction", &json!({})), [""]);
        assert_eq!(
            refused("consumer-restriction", &json!({"whitelist": [], "type": "x"})),
            ["/type", "/whitelist"]
        );
    }
}
