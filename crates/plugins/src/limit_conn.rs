//! `limit-conn`: lets so many requests be served at the same time, by a key; a few more wait, the rest is refused.
//!
//! Requests are counted by one gateway instance. One that ends in whatever way stops counting.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gatewright_model::validation::Violations;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::counters::Counters;
use crate::exchange::{Answer, Exchange, Flow, Now};
use crate::kind::{self, Built, Category, Kind, Outcome, Phase, Phases, Plugin, Site};
use crate::limiting::{self, Amount, AmountConfig, Key, KeyType, Policy};
use crate::schema;
use crate::template::Template;

pub(crate) const KIND: Kind = Kind {
    name: "limit-conn",
    priority: 1003,
    category: Category::Other,
    phases: Phases::of(&[Phase::Access, Phase::Log]),
    schema: || {
        let forms = json!({ "oneOf": [
            { "required": ["conn", "burst", "default_conn_delay", "key"] },
            { "required": ["default_conn_delay", "rules"] },
        ] });
        let schema = schema::with::<Config>(forms);
        let amounts = [("conn", false), ("burst", true), ("rules[].conn", false), ("rules[].burst", true)];
        let schema = amounts
            .iter()
            .fold(schema, |schema, (path, zero)| schema::field(schema, path, limiting::amount_schema(*zero)));
        let delay = json!({ "type": "number", "exclusiveMinimum": 0 });
        let schema = schema::field(schema, "default_conn_delay", delay);
        let policies = json!({ "type": "string", "enum": ["redis", "redis-cluster", "local"] });
        let schema = schema::field(schema, "policy", policies);
        let life = json!({ "key_ttl": { "type": "integer", "default": 3600 } });
        limiting::with_policies(schema, &["redis", "redis-cluster"], &life)
    },
    metadata: None,
    credential: None,
    build,
};

#[derive(Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Config {
    /// Requests at the same time.
    #[schema(value_type = Object)]
    conn: Option<AmountConfig>,
    /// How many more may wait.
    #[schema(value_type = Object)]
    burst: Option<AmountConfig>,
    /// Seconds those wait, for each time the limit is exceeded.
    default_conn_delay: Option<f64>,
    /// Whether the delay stays the same however long requests take.
    only_use_default_delay: bool,
    /// What requests are counted by.
    key: Option<String>,
    /// What `key` is.
    key_type: KeyType,
    /// Several limits, all of which apply.
    rules: Option<Vec<RuleConfig>>,
    /// Where counters are kept.
    #[schema(value_type = String)]
    policy: Policy,
    /// Status of the answer to requests that are too many.
    #[schema(minimum = 200, maximum = 599)]
    rejected_code: u16,
    /// What it says.
    #[schema(min_length = 1)]
    rejected_msg: Option<String>,
    /// Whether requests pass where they cannot be counted.
    allow_degradation: bool,
}

#[derive(Serialize, Deserialize, ToSchema)]
struct RuleConfig {
    /// Requests at the same time.
    #[schema(value_type = Object)]
    conn: AmountConfig,
    /// How many more may wait.
    #[schema(value_type = Object)]
    burst: AmountConfig,
    /// What requests are counted by: text with variables. Requests that have none of them are not counted.
    key: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            conn: None,
            burst: None,
            default_conn_delay: None,
            only_use_default_delay: false,
            key: None,
            key_type: KeyType::Var,
            rules: None,
            policy: Policy::Local,
            rejected_code: 503,
            rejected_msg: None,
            allow_degradation: false,
        }
    }
}

/// Nobody waits longer: the connection would be given up before.
const DELAY_MAX: Duration = Duration::from_secs(60);

struct LimitConn {
    rules: Vec<Rule>,
    serving: Counters<AtomicU64>,
    /// Microseconds one that is over the limit waits; follows how long requests take.
    delay: AtomicU64,
    adapts: bool,
    status: u16,
    message: Option<String>,
    allow_degradation: bool,
}

struct Rule {
    limit: Amount,
    burst: Amount,
    key: Key,
    optional: bool,
}

/// One request among those served. It stops counting when the exchange ends, whatever ends it.
struct Place {
    serving: Arc<AtomicU64>,
    since: Now,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.serving.fetch_sub(1, Ordering::Relaxed);
    }
}

fn build(config: Value, _: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let mut violations = Violations::default();
    config.policy.check(&mut violations);
    violations.into_result()?;
    let rules = match (&config.conn, &config.burst, &config.key) {
        (Some(conn), Some(burst), Some(key)) => vec![Rule {
            limit: Amount::parse(conn),
            burst: Amount::parse(burst),
            key: Key::parse(key, config.key_type),
            optional: false,
        }],
        _ => config
            .rules
            .iter()
            .flatten()
            .map(|rule| Rule {
                limit: Amount::parse(&rule.conn),
                burst: Amount::parse(&rule.burst),
                key: Key::Template(Template::parse(&rule.key)),
                optional: true,
            })
            .collect(),
    };
    let delay =
        Duration::from_secs_f64(config.default_conn_delay.unwrap_or(0.1).min(DELAY_MAX.as_secs_f64()));
    Ok(Arc::new(LimitConn {
        rules,
        serving: Counters::default(),
        delay: AtomicU64::new(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX)),
        adapts: !config.only_use_default_delay,
        status: config.rejected_code,
        message: config.rejected_msg,
        allow_degradation: config.allow_degradation,
    }))
}

/// A request could not be counted.
struct Uncountable;

/// Whether a request has a place, and how long it waits for it.
enum Entry {
    Unconcerned,
    Refused,
    Placed(Place, Duration),
}

impl LimitConn {
    fn enter(&self, index: usize, rule: &Rule, exchange: &Exchange<'_>) -> Result<Entry, Uncountable> {
        let mut key = match &rule.key {
            Key::Template(template) if rule.optional => match template.render_some(exchange) {
                Some(key) => key,
                None => return Ok(Entry::Unconcerned),
            },
            key => key.of(exchange),
        };
        key.extend_from_slice(&(index as u64).to_be_bytes());
        let limit = rule.limit.of(exchange).filter(|limit| *limit > 0).ok_or(Uncountable)?;
        let burst = rule.burst.of(exchange).ok_or(Uncountable)?;
        let is_idle = |serving: &AtomicU64| serving.load(Ordering::Relaxed) == 0;
        let serving = self.serving.of(&key, is_idle).ok_or(Uncountable)?;
        let count = serving.fetch_add(1, Ordering::Relaxed) + 1;
        let place = Place { serving, since: exchange.surroundings.now() };
        if count > limit.saturating_add(burst) {
            return Ok(Entry::Refused);
        }
        let times = if count > limit { (count - 1) / limit } else { 0 };
        let delay = self.delay.load(Ordering::Relaxed).saturating_mul(times);
        Ok(Entry::Placed(place, Duration::from_micros(delay).min(DELAY_MAX)))
    }
}

impl Plugin for LimitConn {
    fn access(&self, exchange: &mut Exchange<'_>) -> Flow {
        let mut longest = Duration::ZERO;
        for (index, rule) in self.rules.iter().enumerate() {
            match self.enter(index, rule, exchange) {
                Ok(Entry::Unconcerned) => {}
                Ok(Entry::Refused) => return limiting::reject(self.status, self.message.as_deref()),
                Ok(Entry::Placed(place, delay)) => {
                    exchange.set_note(place);
                    longest = longest.max(delay);
                }
                Err(Uncountable) if self.allow_degradation => {}
                Err(Uncountable) => return Flow::respond(Answer::error_msg(500, "failed to limit conn")),
            }
        }
        match longest {
            Duration::ZERO => Flow::Continue,
            delay => Flow::Pause(delay, Box::new(Flow::Continue)),
        }
    }

    fn log(&self, exchange: &mut Exchange<'_>, _: &Outcome) {
        if !self.adapts {
            return;
        }
        if let Some(place) = exchange.note::<Place>() {
            let took = exchange.surroundings.now().uptime.saturating_sub(place.since.uptime);
            let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            let before = self.delay.load(Ordering::Relaxed);
            // Two requests at once may each miss the other's; the mean only has to follow.
            self.delay.store(before.midpoint(took), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trial, refused};

    #[test]
    fn so_many_are_served_at_once_and_a_few_more_wait() {
        let config = json!({"conn": 1, "burst": 1, "default_conn_delay": 0.5, "key": "remote_addr",
            "only_use_default_delay": true, "rejected_code": 429, "rejected_msg": "busy"});
        let trial = Trial::of("limit-conn", config);
        let first = trial.run("GET /");
        assert_eq!((first.answered(), first.paused), (String::new(), Duration::ZERO));
        let second = trial.run("GET /");
        assert_eq!(second.paused, Duration::from_millis(500));
        assert_eq!(trial.run("GET /").answered(), "429 {\"error_msg\":\"busy\"}\n");
        drop(first);
        assert_eq!(trial.run("GET /").paused, Duration::from_millis(500), "one is still served");
        drop(second);
        assert_eq!(trial.run("GET /").paused, Duration::ZERO);
    }

    #[test]
    fn the_delay_follows_how_long_requests_take() {
        let config = json!({"conn": 1, "burst": 9, "default_conn_delay": 1, "key": "remote_addr"});
        let trial = Trial::of("limit-conn", config);
        let quick = trial.run("GET /");
        quick.respond("200");
        let first = trial.run("GET /");
        assert_eq!(trial.run("GET /").paused, Duration::from_millis(500));
        drop(first);
    }

    #[test]
    fn rules_count_apart_and_only_whom_they_concern() {
        let trial = Trial::of(
            "limit-conn",
            json!({"default_conn_delay": 0.1, "rules": [
                {"conn": 1, "burst": 0, "key": "$http_x_a"}, {"conn": "${http_x_most}", "burst": 0, "key": "$http_x_b"},
            ]}),
        );
        let a = trial.run("GET /\nX-A: 1");
        assert_eq!(a.answered(), "");
        assert_eq!(trial.run("GET /\nX-A: 1").answered(), "503 ");
        let b = trial.run("GET /\nX-B: 1\nX-Most: 1");
        assert_eq!(b.answered(), "");
        assert_eq!(trial.run("GET /\nX-B: 1\nX-Most: 1").answered(), "503 ");
        assert_eq!(trial.run("GET /\nX-B: 2").answered(), "500 {\"error_msg\":\"failed to limit conn\"}\n");
        assert_eq!(trial.run("GET /").answered(), "");
    }

    #[test]
    fn a_limit_that_is_none_is_refused() {
        assert_eq!(refused("limit-conn", &json!({"conn": 1, "burst": 0})), [""]);
        let redis =
            json!({"conn": 1, "burst": 0, "default_conn_delay": 1, "key": "k", "policy": "redis-cluster"});
        assert_eq!(refused("limit-conn", &redis), ["/redis_cluster_name", "/redis_cluster_nodes"]);
    }
}
