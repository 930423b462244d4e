//! `limit-req`: lets requests through at a steady rate; those that come early wait, too many are refused.
//!
//! The rate is that of one gateway instance. To bound how many come in an hour, use `limit-count`.

use std::sync::Arc;
use std::time::Duration;

use gatewright_model::validation::Violations;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::counters::{Bucket, Counters};
use crate::exchange::{Answer, Exchange, Flow, Next};
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::limiting::{self, Key, KeyType, Policy, Shared};
use crate::redis::Call;
use crate::schema;

pub(crate) const KIND: Kind = Kind {
    name: "limit-req",
    priority: 1001,
    category: Category::Other,
    phases: Phases::of(&[Phase::Access]),
    schema: || {
        let policies = json!({ "type": "string", "enum": ["redis", "redis-cluster", "local"] });
        let schema = schema::field(schema::of::<Config>(), "policy", policies);
        let rate = json!({ "type": "number", "exclusiveMinimum": 0 });
        let schema = schema::field(schema, "rate", rate);
        limiting::with_policies(schema, &["redis", "redis-cluster"], &json!({}))
    },
    metadata: None,
    credential: None,
    build,
};

#[derive(Deserialize, ToSchema)]
struct Config {
    /// Requests a second.
    rate: f64,
    /// How many may come early and wait.
    #[schema(minimum = 0)]
    burst: f64,
    /// What requests are counted by.
    key: String,
    /// What `key` is.
    #[serde(default)]
    #[schema(required = false, default = "var")]
    key_type: KeyType,
    /// Where the rate is kept.
    #[serde(default)]
    #[schema(required = false, value_type = String, default = "local")]
    policy: Policy,
    /// Status of the answer to requests that are too many.
    #[serde(default = "service_unavailable")]
    #[schema(required = false, minimum = 200, maximum = 599, default = 503)]
    rejected_code: u16,
    /// What it says.
    #[serde(default)]
    #[schema(min_length = 1)]
    rejected_msg: Option<String>,
    /// Whether those that come early do not wait.
    #[serde(default)]
    #[schema(required = false, default = false)]
    nodelay: bool,
    /// Whether requests pass where they cannot be counted.
    #[serde(default)]
    #[schema(required = false, default = false)]
    allow_degradation: bool,
}

const fn service_unavailable() -> u16 {
    503
}

/// Nobody waits longer: the connection would be given up before.
const DELAY_MAX: Duration = Duration::from_secs(60);

struct LimitReq(Arc<Limit>);

struct Limit {
    key: Key,
    /// Microseconds from one request to the next.
    interval: f64,
    config: Config,
    buckets: Counters<Bucket>,
    /// Where the bucket is that of several gateways.
    shared: Option<Shared>,
}

fn build(document: Value, site: &Site<'_>) -> Built {
    let config: Config = kind::parse(document.clone())?;
    let mut violations = Violations::default();
    let interval = 1e6 / config.rate;
    if !(1.0..=1e12).contains(&interval) {
        violations.add("/rate", "must be between one in eleven days and a million a second");
    }
    violations.into_result()?;
    let shared = config.policy.counters(&document, site.owner, site)?;
    let key = Key::parse(&config.key, config.key_type);
    Ok(Arc::new(LimitReq(Arc::new(Limit { key, interval, config, buckets: Counters::default(), shared }))))
}

/// Adds a request to a bucket: how many microseconds it has to wait; -1: it is one too many.
const SCRIPT: &str = "
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local empty = tonumber(redis.call('GET', KEYS[1])) or 0
local waits = math.max(empty - now, 0)
if waits / interval > burst then
  return {-1}
end
local next = math.max(empty, now) + interval
redis.call('SET', KEYS[1], string.format('%.0f', next), 'PX', math.ceil((next - now) / 1000) + 1)
return {math.floor(waits)}
";

impl Limit {
    fn add_here(&self, exchange: &Exchange<'_>) -> Flow {
        let now = u64::try_from(exchange.surroundings.now().uptime.as_micros()).unwrap_or(u64::MAX);
        let Some(bucket) = self.buckets.of(&self.key.of(exchange), |bucket| bucket.is_empty(now)) else {
            return match self.config.allow_degradation {
                true => Flow::Continue,
                false => failed(),
            };
        };
        self.settle(bucket.add(now, self.interval, self.config.burst))
    }

    /// What becomes of a request that has to wait so many microseconds; `None`: it is one too many.
    fn settle(&self, waits: Option<u64>) -> Flow {
        match waits {
            None => limiting::reject(self.config.rejected_code, self.config.rejected_msg.as_deref()),
            Some(0) => Flow::Continue,
            Some(_) if self.config.nodelay => Flow::Continue,
            Some(waits) => Flow::Pause(Duration::from_micros(waits).min(DELAY_MAX), Box::new(Flow::Continue)),
        }
    }
}

fn failed() -> Flow {
    Flow::respond(Answer::error_msg(500, "failed to limit req"))
}

/// Adds the request to a bucket in Redis, and here where it is away and the configuration lets requests pass.
fn add_there(limit: &Arc<Limit>, shared: &Shared, exchange: &Exchange<'_>) -> Flow {
    let call = Call {
        script: SCRIPT,
        keys: vec![shared.key(KIND.name, &limit.key.of(exchange), false)],
        arguments: vec![limit.interval.to_string(), limit.config.burst.to_string()],
    };
    let (calling, limit) = (shared.call(call), Arc::clone(limit));
    Flow::Wait(Box::pin(async move {
        let added = calling.await;
        let next: Next = Box::new(move |exchange| match added.as_deref() {
            Ok([waits]) => limit.settle(u64::try_from(*waits).ok()),
            _ if limit.config.allow_degradation => limit.add_here(exchange),
            _ => failed(),
        });
        next
    }))
}

impl Plugin for LimitReq {
    fn access(&self, exchange: &mut Exchange<'_>) -> Flow {
        match &self.0.shared {
            None => self.0.add_here(exchange),
            Some(shared) => add_there(&self.0, shared, exchange),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trial, refused};

    #[test]
    fn early_requests_wait_and_too_many_are_refused() {
        let trial = Trial::of("limit-req", json!({"rate": 2, "burst": 1, "key": "remote_addr"}));
        let first = trial.run("GET /");
        assert_eq!((first.answered(), first.paused), (String::new(), Duration::ZERO));
        assert_eq!(trial.run("GET /").paused, Duration::from_millis(500));
        assert_eq!(trial.run("GET /").answered(), "503 ");
        trial.pass(Duration::from_secs(1));
        assert_eq!(trial.run("GET /").paused, Duration::ZERO);
    }

    #[test]
    fn without_delay_early_requests_pass_at_once() {
        let config = json!({"rate": 1, "burst": 2, "key": "$http_x $remote_addr", "key_type": "var_combination",
            "nodelay": true, "rejected_code": 429, "rejected_msg": "slow"});
        let trial = Trial::of("limit-req", config);
        let answers: Vec<String> = (0..4).map(|_| trial.run("GET /\nX: 1").answered()).collect();
        assert_eq!(answers, ["", "", "", "429 {\"error_msg\":\"slow\"}\n"]);
        assert_eq!(trial.run("GET /\nX: 2").answered(), "");
        assert_eq!(trial.run("GET /\nX: 1").paused, Duration::ZERO);
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        let wrong = json!({"rate": 0, "burst": -1, "key": "remote_addr", "key_type": "constant"});
        assert_eq!(refused("limit-req", &wrong), ["/burst", "/key_type", "/rate"]);
        assert_eq!(refused("limit-req", &json!({})), ["/burst", "/key", "/rate"]);
    }
}
