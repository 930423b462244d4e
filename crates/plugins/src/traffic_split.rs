//! `traffic-split`: sends a share of the requests, or those that satisfy conditions, to other upstreams.
//!
//! The first rule that matches decides; within it, upstreams take turns by weight. Nothing matches: the service's own
//! upstream serves, as for an entry that names none.
//! Turns are counted for all workers together, so that ten requests at a weight of one to nine are one and nine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gatewright_model::expression::Expression;
use gatewright_model::resource::upstream::Upstream;
use gatewright_model::validation::Violations;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::exchange::{Exchange, Flow, UpstreamChoice};
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::schema;

pub(crate) const KIND: Kind = Kind {
    name: "traffic-split",
    priority: 966,
    category: Category::Other,
    phases: Phases::of(&[Phase::Access]),
    schema: || {
        let id = json!({ "anyOf": [
            { "type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[a-zA-Z0-9-_.]+$" },
            { "type": "integer", "minimum": 1 },
        ] });
        schema::field(schema::of::<Config>(), "rules[].weighted_upstreams[].upstream_id", id)
    },
    metadata: None,
    credential: None,
    build,
};

#[derive(Deserialize, ToSchema)]
struct Config {
    /// Rules; the first one that matches decides.
    #[serde(default)]
    #[schema(required = false)]
    rules: Vec<RuleConfig>,
}

#[derive(Deserialize, ToSchema)]
struct RuleConfig {
    /// Conditions, any of which is enough; none: every request matches.
    #[serde(default, rename = "match")]
    #[schema(required = false)]
    conditions: Vec<MatchConfig>,
    /// Where requests that match go, in turns.
    #[serde(default = "own_upstream")]
    #[schema(required = false, min_items = 1, max_items = 20, default = json!([{"weight": 1}]))]
    weighted_upstreams: Vec<WeightedUpstream>,
}

#[derive(Deserialize, ToSchema)]
struct MatchConfig {
    /// An expression.
    #[serde(default)]
    #[schema(required = false, value_type = Vec<Value>)]
    vars: Vec<Value>,
}

#[derive(Deserialize, ToSchema)]
struct WeightedUpstream {
    /// Id of an upstream of the service.
    #[serde(default)]
    #[schema(value_type = Object)]
    upstream_id: Option<Id>,
    /// An upstream written out.
    #[serde(default)]
    upstream: Option<Upstream>,
    /// Its share; 0: none.
    #[serde(default = "one")]
    #[schema(required = false, minimum = 0, default = 1)]
    weight: u32,
}

/// An id may be written as a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Text(String),
    Number(i64),
}

const fn one() -> u32 {
    1
}

fn own_upstream() -> Vec<WeightedUpstream> {
    vec![WeightedUpstream { upstream_id: None, upstream: None, weight: 1 }]
}

struct TrafficSplit {
    rules: Box<[Rule]>,
}

struct Rule {
    /// Any of them; none: always.
    conditions: Box<[Expression]>,
    entries: Box<[Entry]>,
    total: u64,
    /// Coprime to `total`, so that turns interleave and each comes exactly as often as its weight says.
    stride: u64,
    turn: AtomicU64,
}

struct Entry {
    /// `None`: the service's own.
    choice: Option<UpstreamChoice>,
    weight: u64,
}

fn build(config: Value, _: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let mut violations = Violations::default();
    let rules = config.rules.into_iter().enumerate();
    let rules =
        rules.map(|(index, rule)| rule_of(rule, &format!("/rules/{index}"), &mut violations)).collect();
    violations.into_result()?;
    Ok(Arc::new(TrafficSplit { rules }))
}

fn rule_of(config: RuleConfig, at: &str, violations: &mut Violations) -> Rule {
    let mut conditions = Vec::with_capacity(config.conditions.len());
    for (index, condition) in config.conditions.iter().enumerate() {
        match Expression::parse(&condition.vars) {
            Ok(expression) => conditions.push(expression),
            Err(wrong) => violations.absorb(&format!("{at}/match/{index}/vars"), wrong),
        }
    }
    let mut entries = Vec::with_capacity(config.weighted_upstreams.len());
    for (index, entry) in config.weighted_upstreams.into_iter().enumerate() {
        let choice = match (entry.upstream_id, entry.upstream) {
            (Some(_), Some(_)) => {
                let message = "either `upstream_id` or `upstream`, not both";
                violations.add(format!("{at}/weighted_upstreams/{index}"), message);
                None
            }
            (Some(Id::Text(id)), None) => Some(UpstreamChoice::Id(id.into())),
            (Some(Id::Number(id)), None) => Some(UpstreamChoice::Id(id.to_string().into())),
            (None, Some(upstream)) => Some(UpstreamChoice::Inline(Arc::new(upstream))),
            (None, None) => None,
        };
        entries.push(Entry { choice, weight: entry.weight.into() });
    }
    // Fifty to fifty is one to one: the sooner the shares are exact, the better.
    let common = entries.iter().fold(0, |common, entry| gcd(common, entry.weight)).max(1);
    entries.iter_mut().for_each(|entry| entry.weight /= common);
    let total: u64 = entries.iter().map(|entry| entry.weight).sum();
    Rule {
        conditions: conditions.into(),
        entries: entries.into(),
        total,
        stride: stride(total),
        turn: AtomicU64::new(0),
    }
}

/// A step through `total` places that visits each once and leaves no place unvisited for long: near the golden
/// section, and coprime to `total`.
fn stride(total: u64) -> u64 {
    let start = (total.saturating_mul(618) / 1000).max(1);
    (start..).find(|step| gcd(*step, total) == 1).unwrap_or(1)
}

/// The place after so many steps.
fn step(steps: u64, stride: u64, total: u64) -> u64 {
    let place = u128::from(steps) * u128::from(stride) % u128::from(total);
    u64::try_from(place).unwrap_or_default()
}

fn gcd(one: u64, other: u64) -> u64 {
    if other == 0 { one } else { gcd(other, one % other) }
}

impl Rule {
    fn matches(&self, exchange: &Exchange<'_>) -> bool {
        self.conditions.is_empty() || self.conditions.iter().any(|condition| condition.holds(exchange))
    }

    fn choose(&self) -> Option<&UpstreamChoice> {
        if self.total == 0 {
            return None;
        }
        let turn = match &*self.entries {
            [_] => 0,
            _ => self.turn.fetch_add(1, Ordering::Relaxed),
        };
        let mut place = step(turn % self.total, self.stride, self.total);
        for entry in &self.entries {
            match place.checked_sub(entry.weight) {
                Some(rest) => place = rest,
                None => return entry.choice.as_ref(),
            }
        }
        None
    }
}

impl Plugin for TrafficSplit {
    fn access(&self, exchange: &mut Exchange<'_>) -> Flow {
        if let Some(rule) = self.rules.iter().find(|rule| rule.matches(exchange)) {
            exchange.state.upstream = rule.choose().cloned();
        }
        Flow::Continue
    }

    fn upstreams(&self) -> Vec<Arc<Upstream>> {
        let entries = self.rules.iter().flat_map(|rule| &rule.entries);
        let inline = entries.filter_map(|entry| match &entry.choice {
            Some(UpstreamChoice::Inline(upstream)) => Some(Arc::clone(upstream)),
            _ => None,
        });
        inline.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trial, refused};

    fn chosen(trial: &Trial, request: &str) -> String {
        match trial.run(request).state.upstream {
            None => "own".to_owned(),
            Some(UpstreamChoice::Id(id)) => id.to_string(),
            Some(UpstreamChoice::Inline(upstream)) => upstream.name.clone(),
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let trial = Trial::of(
            "traffic-split",
            json!({"rules": [
                {"match": [{"vars": [["arg_v", "==", "2"]]}, {"vars": [["http_x_v", "==", "2"]]}],
                 "weighted_upstreams": [{"upstream_id": "second"}]},
                {"match": [{"vars": [["arg_v", "==", "3"]]}], "weighted_upstreams": [{"upstream_id": 3}]},
                {"match": [{"vars": [["arg_v", "==", "4"]]}]},
            ]}),
        );
        for (request, expected) in [
            ("GET /?v=2", "second"),
            ("GET /\nX-V: 2", "second"),
            ("GET /?v=3", "3"),
            ("GET /?v=4", "own"),
            ("GET /", "own"),
        ] {
            assert_eq!(chosen(&trial, request), expected, "{request}");
        }
    }

    #[test]
    fn streams_go_by_what_there_is_of_them() {
        let rule = |vars: Value, id: &str| json!({"match": [{"vars": [vars]}], "weighted_upstreams": [{"upstream_id": id}]});
        let trial = Trial::of(
            "traffic-split",
            json!({"rules": [
                rule(json!(["uri", "~~", ".*"]), "of-requests"),
                rule(json!(["remote_addr", "ipmatch", ["192.0.2.0/24"]]), "near"),
                rule(json!(["server_port", "==", "9080"]), "by-port"),
            ]}),
        );
        assert_eq!(chosen(&trial, ""), "by-port");
    }

    #[test]
    fn upstreams_take_turns_exactly_by_weight() {
        let node = json!([{"host": "127.0.0.1", "port": 1, "weight": 1}]);
        let trial = Trial::of(
            "traffic-split",
            json!({"rules": [{"weighted_upstreams": [
                {"upstream_id": "a", "weight": 3}, {"upstream": {"name": "b", "nodes": node}, "weight": 5},
                {"weight": 2}, {"upstream_id": "never", "weight": 0},
            ]}]}),
        );
        let turns: Vec<String> = (0..20).map(|_| chosen(&trial, "GET /")).collect();
        let count = |name: &str| turns.iter().filter(|turn| *turn == name).count();
        assert_eq!((count("a"), count("b"), count("own"), count("never")), (6, 10, 4, 0));
        let half: Vec<&String> = turns[..10].iter().filter(|turn| *turn == "b").collect();
        assert_eq!(half.len(), 5, "{turns:?}");
    }

    #[test]
    fn shares_are_exact_over_the_shortest_period() {
        let of = |weights: [u32; 2]| {
            let [a, own] = weights;
            let entries = json!([{"upstream_id": "a", "weight": a}, {"weight": own}]);
            let trial = Trial::of("traffic-split", json!({"rules": [{"weighted_upstreams": entries}]}));
            (0..12).map(|_| chosen(&trial, "GET /")).filter(|turn| turn == "a").count()
        };
        assert_eq!(of([50, 50]), 6);
        assert_eq!(of([1000, 2000]), 4);
        assert_eq!(of([u32::MAX, u32::MAX]), 6);
        assert!((4..=8).contains(&of([u32::MAX, u32::MAX - 1])), "as smooth as large weights allow");
    }

    #[test]
    fn no_share_at_all_leaves_the_own_upstream() {
        let trial = Trial::of(
            "traffic-split",
            json!({"rules": [{"weighted_upstreams": [{"upstream_id": "a", "weight": 0}]}]}),
        );
        assert_eq!(chosen(&trial, "GET /"), "own");
        assert_eq!(chosen(&Trial::of("traffic-split", json!({})), "GET /"), "own");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (config, expected) in [
            (json!({"rules": [{"match": [{"vars": [["a", "=", "b"]]}]}]}), vec!["/rules/0/match/0/vars/0/1"]),
            (
                json!({"rules": [{"weighted_upstreams": [{"upstream_id": "a", "upstream": {}}]}]}),
                vec!["/rules/0/weighted_upstreams/0"],
            ),
            (json!({"rules": [{"weighted_upstreams": []}]}), vec!["/rules/0/weighted_upstreams"]),
            (
                json!({"rules": [{"weighted_upstreams": [{"weight": -1}]}]}),
                vec!["/rules/0/weighted_upstreams/0/weight"],
            ),
        ] {
            assert_eq!(refused("traffic-split", &config), expected, "{config}");
        }
    }
}
