//! `limit-conn`: lets so many requests be served at the same time, by a key; a few more wait, the rest is refused.
//!
//! On a stream service it is connections that are counted, as long as they are open.
//! Requests are counted by one gateway instance, or with `policy` `redis` or `redis-cluster` by all gateways that use
//! the same server. One that ends in whatever way stops counting; what a gateway that was killed had counted is
//! forgotten `key_ttl` seconds after the last request with the same key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::counters::Counters;
use crate::exchange::{Answer, Exchange, Flow, Next, Now};
use crate::kind::{self, Built, Category, Kind, Outcome, Phase, Phases, Plugin, Site};
use crate::limiting::{self, Amount, AmountConfig, Key, KeyType, Policy, Shared};
use crate::redis::Call;
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

/// Seconds after which Redis forgets a count, where the configuration does not say.
const LIFE_DEFAULT: i64 = 3600;

/// Nobody waits longer: the connection would be given up before.
const DELAY_MAX: Duration = Duration::from_secs(60);

struct LimitConn(Arc<Limits>);

struct Limits {
    rules: Vec<Rule>,
    serving: Counters<AtomicU64>,
    /// Where the count is that of several gateways.
    shared: Option<Shared>,
    /// Seconds after which Redis forgets a count that nobody changes.
    life: i64,
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
    counted: Counted,
    since: Now,
}

/// Where a request counts.
enum Counted {
    Here(Arc<AtomicU64>),
    There(Shared, Vec<Vec<u8>>),
}

impl Drop for Place {
    fn drop(&mut self) {
        match &mut self.counted {
            Counted::Here(serving) => {
                serving.fetch_sub(1, Ordering::Relaxed);
            }
            Counted::There(shared, keys) => {
                shared.tell(Call { script: LEAVE, keys: std::mem::take(keys), arguments: Vec::new() });
            }
        }
    }
}

/// Counts a request by rules, one after the other, until one refuses it: for each the count, or -1. One that is
/// refused counts nowhere.
const ENTER: &str = "
local out = {}
for i, key in ipairs(KEYS) do
  local count = redis.call('INCR', key)
  redis.call('EXPIRE', key, ARGV[1])
  if count > tonumber(ARGV[i + 1]) then
    for j = 1, i do
      redis.call('DECR', KEYS[j])
    end
    return {-1}
  end
  out[i] = count
end
return out
";

/// Stops counting a request.
const LEAVE: &str = "
for _, key in ipairs(KEYS) do
  if redis.call('DECR', key) <= 0 then
    redis.call('DEL', key)
  end
end
return {}
";

fn build(document: Value, site: &Site<'_>) -> Built {
    let config: Config = kind::parse(document.clone())?;
    let shared = config.policy.counters(&document, site.owner, site)?;
    let life = document.get("key_ttl").and_then(Value::as_i64).unwrap_or(LIFE_DEFAULT).max(1);
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
    Ok(Arc::new(LimitConn(Arc::new(Limits {
        rules,
        serving: Counters::default(),
        shared,
        life,
        delay: AtomicU64::new(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX)),
        adapts: !config.only_use_default_delay,
        status: config.rejected_code,
        message: config.rejected_msg,
        allow_degradation: config.allow_degradation,
    }))))
}

/// A request could not be counted.
struct Uncountable;

/// Whether a request has a place, and how long it waits for it.
enum Entry {
    Unconcerned,
    Refused,
    Placed(Place, Duration),
}

impl Limits {
    /// The key of a request by a rule, its limit, and how many more may wait; `None`: the rule does not concern it.
    fn ask(&self, index: usize, exchange: &Exchange<'_>) -> Result<Option<(Vec<u8>, u64, u64)>, Uncountable> {
        let rule = &self.rules[index];
        let mut key = match &rule.key {
            Key::Template(template) if rule.optional => match template.render_some(exchange) {
                Some(key) => key,
                None => return Ok(None),
            },
            key => key.of(exchange),
        };
        key.extend_from_slice(&(index as u64).to_be_bytes());
        let limit = rule.limit.of(exchange).filter(|limit| *limit > 0).ok_or(Uncountable)?;
        let burst = rule.burst.of(exchange).ok_or(Uncountable)?;
        Ok(Some((key, limit, burst)))
    }

    fn enter(&self, index: usize, exchange: &Exchange<'_>) -> Result<Entry, Uncountable> {
        let Some((key, limit, burst)) = self.ask(index, exchange)? else { return Ok(Entry::Unconcerned) };
        let is_idle = |serving: &AtomicU64| serving.load(Ordering::Relaxed) == 0;
        let serving = self.serving.of(&key, is_idle).ok_or(Uncountable)?;
        let count = serving.fetch_add(1, Ordering::Relaxed) + 1;
        let place = Place { counted: Counted::Here(serving), since: exchange.surroundings.now() };
        if count > limit.saturating_add(burst) {
            return Ok(Entry::Refused);
        }
        Ok(Entry::Placed(place, self.wait(count, limit)))
    }

    /// How long the request waits that is the `count`th.
    fn wait(&self, count: u64, limit: u64) -> Duration {
        let times = if count > limit { (count - 1) / limit } else { 0 };
        Duration::from_micros(self.delay.load(Ordering::Relaxed).saturating_mul(times)).min(DELAY_MAX)
    }

    fn enter_here(&self, exchange: &mut Exchange<'_>) -> Flow {
        let mut longest = Duration::ZERO;
        for index in 0..self.rules.len() {
            match self.enter(index, exchange) {
                Ok(Entry::Unconcerned) => {}
                Ok(Entry::Refused) => return limiting::reject(self.status, self.message.as_deref()),
                Ok(Entry::Placed(place, delay)) => {
                    exchange.set_note(place);
                    longest = longest.max(delay);
                }
                Err(Uncountable) if self.allow_degradation => {}
                Err(Uncountable) => return failed(),
            }
        }
        pause(longest)
    }

    /// What came of counting in Redis.
    fn settle(&self, counts: &[i64], limits: &[u64], place: Place, exchange: &mut Exchange<'_>) -> Flow {
        exchange.set_note(place);
        let counts = counts.iter().map(|count| u64::try_from(*count).unwrap_or_default());
        let waits = counts.zip(limits).map(|(count, limit)| self.wait(count, *limit));
        pause(waits.max().unwrap_or_default())
    }
}

fn pause(time: Duration) -> Flow {
    match time {
        Duration::ZERO => Flow::Continue,
        time => Flow::Pause(time, Box::new(Flow::Continue)),
    }
}

fn failed() -> Flow {
    Flow::respond(Answer::error_msg(500, "failed to limit conn"))
}

/// Counts in Redis, and here where it is away and the configuration lets requests pass.
fn enter_there(limits: &Arc<Limits>, shared: &Shared, exchange: &Exchange<'_>) -> Flow {
    let asked: Result<Vec<_>, _> = (0..limits.rules.len()).map(|index| limits.ask(index, exchange)).collect();
    let Ok(asked) = asked else {
        return if limits.allow_degradation { Flow::Continue } else { failed() };
    };
    let (several, asked) = (limits.rules.len() > 1, asked.into_iter().flatten());
    let (mut keys, mut most, mut limit) = (Vec::new(), vec![limits.life.to_string()], Vec::new());
    for (key, conn, burst) in asked {
        keys.push(shared.key(KIND.name, &key, several));
        most.push(conn.saturating_add(burst).to_string());
        limit.push(conn);
    }
    if keys.is_empty() {
        return Flow::Continue;
    }
    let calling = shared.call(Call { script: ENTER, keys: keys.clone(), arguments: most });
    let (limits, shared) = (Arc::clone(limits), shared.clone());
    Flow::Wait(Box::pin(async move {
        let entered = calling.await;
        let next: Next = Box::new(move |exchange| match entered.as_deref() {
            Ok([-1]) => limiting::reject(limits.status, limits.message.as_deref()),
            Ok(counts) => {
                let since = exchange.surroundings.now();
                let place = Place { counted: Counted::There(shared, keys), since };
                limits.settle(counts, &limit, place, exchange)
            }
            Err(_) if limits.allow_degradation => limits.enter_here(exchange),
            Err(_) => failed(),
        });
        next
    }))
}

impl Plugin for LimitConn {
    fn access(&self, exchange: &mut Exchange<'_>) -> Flow {
        match &self.0.shared {
            None => self.0.enter_here(exchange),
            Some(shared) => enter_there(&self.0, shared, exchange),
        }
    }

    fn log(&self, exchange: &mut Exchange<'_>, _: &Outcome) {
        // How long a stream lasts says nothing about how long another one should wait.
        if !self.0.adapts || exchange.is_stream() {
            return;
        }
        if let Some(place) = exchange.note::<Place>() {
            let took = exchange.surroundings.now().uptime.saturating_sub(place.since.uptime);
            let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            let before = self.0.delay.load(Ordering::Relaxed);
            // Two requests at once may each miss the other's; the mean only has to follow.
            self.0.delay.store(before.midpoint(took), Ordering::Relaxed);
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
    fn streams_count_as_long_as_they_are_open_and_say_nothing_about_the_delay() {
        let config = json!({"conn": 1, "burst": 1, "default_conn_delay": 1, "key": "server_port"});
        let trial = Trial::of("limit-conn", config);
        let first = trial.run_stream();
        let second = trial.run_stream();
        assert_eq!((first.answered(), second.paused), (String::new(), Duration::from_secs(1)));
        assert_eq!(trial.run_stream().answered(), "503 ");
        first.end(200);
        second.end(200);
        let again = trial.run_stream();
        assert_eq!((again.answered(), again.paused), (String::new(), Duration::ZERO));
        assert_eq!(
            trial.run_stream().paused,
            Duration::from_secs(1),
            "they ended at once, and it is the same"
        );
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
