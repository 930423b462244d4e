//! `limit-count`: lets so many requests through in a window of time, counted by a key.
//!
//! The count is that of one gateway instance, or with `policy` `redis` or `redis-cluster` that of all gateways which
//! use the same server: one script, one round trip, however many rules there are. An instance of the plugin counts for
//! itself: on a service for all its routes together, on a consumer for all its requests; routes that name a `group`
//! count together. Another configuration starts anew.

use std::sync::Arc;

use gatewright_model::validation::Violations;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::counters::{Counters, Taken, Window, ticks};
use crate::exchange::{Answer, Exchange, Flow, Next};
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::limiting::{self, Amount, AmountConfig, Key, KeyType, Policy, Shared};
use crate::redis::Call;
use crate::schema;
use crate::template::Template;

pub(crate) const KIND: Kind = Kind {
    name: "limit-count",
    priority: 1002,
    category: Category::Other,
    phases: Phases::of(&[Phase::Access]),
    schema: || {
        let rules = json!({ "oneOf": [{ "required": ["count", "time_window"] }, { "required": ["rules"] }] });
        let amounts = ["count", "time_window", "rules[].count", "rules[].time_window"];
        let schema = amounts.iter().fold(schema::with::<Config>(rules), |schema, path| {
            schema::field(schema, path, limiting::amount_schema(false))
        });
        let policies =
            json!({ "type": "string", "enum": ["local", "redis", "redis-cluster", "redis-sentinel"] });
        let schema = schema::field(schema, "policy", policies);
        limiting::with_policies(schema, &["redis", "redis-cluster", "redis-sentinel"], &json!({}))
    },
    metadata: Some(schema::of::<Metadata>),
    credential: None,
    build,
};

/// Seconds of the longest window: counters count hundredths of a second.
const WINDOW_SECONDS_MAX: u64 = 365 * 24 * 3600;

#[derive(Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Config {
    /// Requests in a window: a number, or text with variables that becomes one.
    #[schema(value_type = Object)]
    count: Option<AmountConfig>,
    /// Seconds of a window.
    #[schema(value_type = Object)]
    time_window: Option<AmountConfig>,
    /// Several limits, all of which apply.
    rules: Option<Vec<RuleConfig>>,
    /// What requests are counted by.
    key: String,
    /// What `key` is.
    key_type: CountKeyType,
    /// Where counters are kept.
    #[schema(value_type = String)]
    policy: Policy,
    /// Routes with this name and this configuration count together.
    group: Option<String>,
    /// Whether a window begins with its first request, or slides.
    window_type: WindowType,
    /// Status of the answer to requests that are too many.
    #[schema(minimum = 200, maximum = 599)]
    rejected_code: u16,
    /// What it says.
    #[schema(min_length = 1)]
    rejected_msg: Option<String>,
    /// Whether requests pass where they cannot be counted.
    allow_degradation: bool,
    /// Whether the response says how many are left.
    show_limit_quota_header: bool,
    /// Seconds between two synchronisations with a shared counter; counters that are `local` are never behind.
    sync_interval: f64,
}

#[derive(Serialize, Deserialize, ToSchema)]
struct RuleConfig {
    /// Requests in a window.
    #[schema(value_type = Object)]
    count: AmountConfig,
    /// Seconds of a window.
    #[schema(value_type = Object)]
    time_window: AmountConfig,
    /// What requests are counted by: text with variables. Requests that have none of them are not counted.
    key: String,
    /// Names this rule in header fields instead of its number.
    #[serde(default)]
    header_prefix: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum CountKeyType {
    #[default]
    Var,
    VarCombination,
    Constant,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum WindowType {
    #[default]
    Fixed,
    Sliding,
}

#[derive(Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Metadata {
    /// Header field with the limit.
    limit_header: String,
    /// Header field with what is left.
    remaining_header: String,
    /// Header field with the seconds until the window is over.
    reset_header: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            count: None,
            time_window: None,
            rules: None,
            key: "remote_addr".to_owned(),
            key_type: CountKeyType::Var,
            policy: Policy::Local,
            group: None,
            window_type: WindowType::Fixed,
            rejected_code: 503,
            rejected_msg: None,
            allow_degradation: false,
            show_limit_quota_header: true,
            sync_interval: -1.0,
        }
    }
}

impl Default for Metadata {
    fn default() -> Self {
        Self {
            limit_header: "X-RateLimit-Limit".to_owned(),
            remaining_header: "X-RateLimit-Remaining".to_owned(),
            reset_header: "X-RateLimit-Reset".to_owned(),
        }
    }
}

struct LimitCount(Arc<Limits>);

struct Limits {
    rules: Vec<Rule>,
    counters: Arc<Counters<Window>>,
    /// Where the count is that of several gateways.
    shared: Option<Shared>,
    sliding: bool,
    status: u16,
    message: Option<String>,
    allow_degradation: bool,
    shows: bool,
}

struct Rule {
    count: Amount,
    seconds: Amount,
    key: Key,
    /// Whether a request that says nothing of the key is not counted.
    optional: bool,
    limit_header: String,
    remaining_header: String,
    reset_header: String,
}

fn build(document: Value, site: &Site<'_>) -> Built {
    let config: Config = kind::parse(document.clone())?;
    let mut violations = Violations::default();
    let rules = rules(&config, &site.metadata(), &mut violations);
    violations.into_result()?;
    let scope = config.group.as_ref().map_or_else(|| site.owner.to_owned(), |group| format!("group/{group}"));
    let shared = config.policy.counters(&document, &scope, site)?;
    let counters = match &config.group {
        Some(group) => site.shared.get(&format!("limit-count/{group}/{document}"), Counters::default),
        None => Arc::default(),
    };
    Ok(Arc::new(LimitCount(Arc::new(Limits {
        rules,
        counters,
        shared,
        sliding: config.window_type == WindowType::Sliding,
        status: config.rejected_code,
        message: config.rejected_msg,
        allow_degradation: config.allow_degradation,
        shows: config.show_limit_quota_header,
    }))))
}

fn rules(config: &Config, metadata: &Metadata, violations: &mut Violations) -> Vec<Rule> {
    if let (Some(count), Some(seconds)) = (&config.count, &config.time_window) {
        let key = match config.key_type {
            CountKeyType::Constant => Key::Constant(config.key.clone().into_bytes()),
            CountKeyType::Var => Key::parse(&config.key, KeyType::Var),
            CountKeyType::VarCombination => Key::parse(&config.key, KeyType::VarCombination),
        };
        check(count, seconds, "", violations);
        return vec![Rule {
            count: Amount::parse(count),
            seconds: Amount::parse(seconds),
            key,
            optional: false,
            limit_header: metadata.limit_header.clone(),
            remaining_header: metadata.remaining_header.clone(),
            reset_header: metadata.reset_header.clone(),
        }];
    }
    let rules = config.rules.iter().flatten().enumerate();
    let parsed = rules.map(|(index, rule)| {
        let prefix = rule.header_prefix.clone().unwrap_or_else(|| (index + 1).to_string());
        crate::edits::check_name(&prefix, &format!("/rules/{index}/header_prefix"), violations);
        check(&rule.count, &rule.time_window, &format!("/rules/{index}"), violations);
        Rule {
            count: Amount::parse(&rule.count),
            seconds: Amount::parse(&rule.time_window),
            key: Key::Template(Template::parse(&rule.key)),
            optional: true,
            limit_header: format!("X-{prefix}-RateLimit-Limit"),
            remaining_header: format!("X-{prefix}-RateLimit-Remaining"),
            reset_header: format!("X-{prefix}-RateLimit-Reset"),
        }
    });
    parsed.collect()
}

fn check(count: &AmountConfig, seconds: &AmountConfig, at: &str, violations: &mut Violations) {
    if let AmountConfig::Number(count) = count
        && *count > u64::from(u32::MAX)
    {
        violations.add(format!("{at}/count"), format!("number must be at most {}", u32::MAX));
    }
    if let AmountConfig::Number(seconds) = seconds
        && *seconds > WINDOW_SECONDS_MAX
    {
        violations.add(format!("{at}/time_window"), format!("number must be at most {WINDOW_SECONDS_MAX}"));
    }
}

/// A request could not be counted.
struct Uncountable;

/// What a rule says of a request.
struct Asked {
    /// The place of the rule.
    index: usize,
    key: Vec<u8>,
    limit: u64,
    /// Hundredths of a second.
    length: u32,
}

/// Counts a request by rules, one after the other, until one refuses it: for each, whether it is allowed, how many are
/// left, and how many hundredths of a second the window lasts.
const SCRIPT: &str = "
local out = {}
local time = redis.call('TIME')
local now = time[1] * 100 + math.floor(time[2] / 10000)
for i, key in ipairs(KEYS) do
  local limit, length = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
  local used, reset
  if ARGV[1] == 'sliding' then
    local index = math.floor(now / length)
    local state = redis.call('HMGET', key, 'index', 'count', 'before')
    local known, count, before = tonumber(state[1]), tonumber(state[2]) or 0, tonumber(state[3]) or 0
    if known == index - 1 then
      count, before = 0, count
    elseif known ~= index then
      count, before = 0, 0
    end
    reset = length - now % length
    used = math.floor(before * reset / length) + count
    if used < limit then
      redis.call('HSET', key, 'index', index, 'count', count + 1, 'before', before)
      redis.call('PEXPIRE', key, length * 20)
    end
  else
    local left = redis.call('PTTL', key)
    if left < 0 then
      used, reset = 0, length
      redis.call('SET', key, 1, 'PX', length * 10)
    else
      used, reset = tonumber(redis.call('GET', key)), math.ceil(left / 10)
      if used < limit then
        redis.call('INCR', key)
      end
    end
  end
  local allowed = used < limit
  out[#out + 1] = allowed and 1 or 0
  out[#out + 1] = allowed and limit - used - 1 or 0
  out[#out + 1] = reset
  if not allowed then
    break
  end
end
return out
";

impl Limits {
    /// What the rules say of a request.
    fn asked(&self, exchange: &Exchange<'_>) -> Result<Vec<Asked>, Uncountable> {
        let mut asked = Vec::with_capacity(self.rules.len());
        for (index, rule) in self.rules.iter().enumerate() {
            asked.extend(self.ask(index, rule, exchange)?);
        }
        Ok(asked)
    }

    /// What a rule says of a request; `None`: it does not concern it.
    fn ask(&self, index: usize, rule: &Rule, exchange: &Exchange<'_>) -> Result<Option<Asked>, Uncountable> {
        let mut key = match &rule.key {
            Key::Template(template) if rule.optional => match template.render_some(exchange) {
                Some(key) => key,
                None => return Ok(None),
            },
            key => key.of(exchange),
        };
        let (limit, seconds) = (rule.count.of(exchange), rule.seconds.of(exchange));
        let (Some(limit), Some(seconds)) = (limit.filter(|it| *it > 0), seconds.filter(|it| *it > 0)) else {
            return Err(Uncountable);
        };
        #[allow(clippy::cast_possible_truncation, reason = "a year has fewer hundredths of a second")]
        let length = (seconds.min(WINDOW_SECONDS_MAX) * 100) as u32;
        // Windows of other lengths and rules count apart.
        key.extend_from_slice(&(index as u64).to_be_bytes());
        key.extend_from_slice(&length.to_be_bytes());
        Ok(Some(Asked { index, key, limit, length }))
    }

    /// Counts a request by a rule, on this gateway.
    fn take(&self, asked: &Asked, now: u32) -> Result<Taken, Uncountable> {
        let window =
            self.counters.of(&asked.key, |window| window.is_over(now, asked.length)).ok_or(Uncountable)?;
        Ok(match self.sliding {
            true => window.take_sliding(now, asked.length, asked.limit),
            false => window.take_fixed(now, asked.length, asked.limit),
        })
    }

    /// Counts on this gateway: all there is to it, or what stands in for Redis while it is away.
    fn count_here(&self, exchange: &mut Exchange<'_>) -> Flow {
        let now = ticks(exchange.surroundings.now().uptime);
        for (index, rule) in self.rules.iter().enumerate() {
            let taken = self.ask(index, rule, exchange).and_then(|asked| match asked {
                Some(asked) => Ok(Some((self.take(&asked, now)?, asked))),
                None => Ok(None),
            });
            match taken {
                Ok(None) => {}
                Ok(Some((taken, asked))) => {
                    self.show(&asked, taken, exchange);
                    if !taken.allowed {
                        return limiting::reject(self.status, self.message.as_deref());
                    }
                }
                Err(Uncountable) if self.allow_degradation => {}
                Err(Uncountable) => return Flow::respond(Answer::error_msg(500, "failed to limit count")),
            }
        }
        Flow::Continue
    }

    fn show(&self, asked: &Asked, taken: Taken, exchange: &mut Exchange<'_>) {
        if let Some(rule) = self.rules.get(asked.index).filter(|_| self.shows) {
            let reset = format!("{}.{:02}", taken.reset / 100, taken.reset % 100);
            exchange.answer_field(rule.limit_header.clone(), asked.limit.to_string());
            exchange.answer_field(rule.remaining_header.clone(), taken.remaining.to_string());
            exchange.answer_field(rule.reset_header.clone(), reset);
        }
    }

    /// What came of counting in Redis.
    fn settle(&self, asked: &[Asked], counted: &[i64], exchange: &mut Exchange<'_>) -> Flow {
        for (asked, taken) in asked.iter().zip(counted.chunks_exact(3)) {
            let number = |place: usize| u64::try_from(taken[place]).unwrap_or_default();
            let reset = u32::try_from(number(2)).unwrap_or(u32::MAX);
            let taken = Taken { allowed: number(0) == 1, remaining: number(1), reset };
            self.show(asked, taken, exchange);
            if !taken.allowed {
                return limiting::reject(self.status, self.message.as_deref());
            }
        }
        Flow::Continue
    }
}

/// Counts in Redis, and here where it is away and the configuration lets requests pass.
fn count_there(limits: &Arc<Limits>, shared: &Shared, exchange: &Exchange<'_>) -> Flow {
    let Ok(asked) = limits.asked(exchange) else {
        return match limits.allow_degradation {
            true => Flow::Continue,
            false => Flow::respond(Answer::error_msg(500, "failed to limit count")),
        };
    };
    if asked.is_empty() {
        return Flow::Continue;
    }
    let several = limits.rules.len() > 1;
    let kind = if limits.sliding { "sliding" } else { "fixed" }.to_owned();
    let numbers = asked.iter().flat_map(|asked| [asked.limit.to_string(), asked.length.to_string()]);
    let call = Call {
        script: SCRIPT,
        keys: asked.iter().map(|asked| shared.key(KIND.name, &asked.key, several)).collect(),
        arguments: std::iter::once(kind).chain(numbers).collect(),
    };
    let (calling, limits) = (shared.call(call), Arc::clone(limits));
    Flow::Wait(Box::pin(async move {
        let counted = calling.await;
        let next: Next = Box::new(move |exchange| match counted {
            Ok(counted) if !counted.is_empty() => limits.settle(&asked, &counted, exchange),
            _ if limits.allow_degradation => limits.count_here(exchange),
            _ => Flow::respond(Answer::error_msg(500, "failed to limit count")),
        });
        next
    }))
}

impl Plugin for LimitCount {
    fn access(&self, exchange: &mut Exchange<'_>) -> Flow {
        match &self.0.shared {
            None => self.0.count_here(exchange),
            Some(shared) => count_there(&self.0, shared, exchange),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::testing::{Trial, refused};
    use serde_json::json;

    /// Status, or 0 where it passes, and the three header fields.
    fn counted(trial: &Trial, request: &str) -> String {
        let run = trial.run(request);
        let field = |name: &str| run.answer_field(&format!("X-RateLimit-{name}"));
        let status = run.answer.as_ref().map_or(0, |answer| answer.status);
        format!("{status} {} {} {}", field("Limit"), field("Remaining"), field("Reset"))
    }

    #[test]
    fn so_many_requests_pass_in_a_window() {
        let trial = Trial::of("limit-count", json!({"count": 2, "time_window": 60}));
        assert_eq!(counted(&trial, "GET /"), "0 2 1 60.00");
        trial.pass(Duration::from_millis(1500));
        assert_eq!(counted(&trial, "GET /other"), "0 2 0 58.50");
        assert_eq!(counted(&trial, "GET /"), "503 2 0 58.50");
        trial.pass(Duration::from_secs(60));
        assert_eq!(counted(&trial, "GET /"), "0 2 1 60.00");
    }

    #[test]
    fn requests_are_counted_by_their_key() {
        for (config, requests, expected) in [
            (json!({"key": "http_x"}), vec!["GET /\nX: a", "GET /\nX: b", "GET /\nX: a"], [0, 0, 503]),
            (json!({"key": "http_x"}), vec!["GET /", "GET /\nX: 10.0.0.9", "GET /"], [0, 503, 503]),
            (
                json!({"key": "$remote_addr $arg_a", "key_type": "var_combination"}),
                vec!["GET /?a=1", "GET /?a=2", "GET /?a=1"],
                [0, 0, 503],
            ),
            (
                json!({"key": "all", "key_type": "constant"}),
                vec!["GET /\nX: a", "GET /\nX: b", "GET /"],
                [0, 503, 503],
            ),
        ] {
            let mut config = config;
            (config["count"], config["time_window"]) = (json!(1), json!(60));
            let trial = Trial::of("limit-count", config.clone());
            for (request, expected) in requests.iter().zip(expected) {
                let status = trial.run(request).answer.map_or(0, |answer| answer.status);
                assert_eq!(status, expected, "{config} {request}");
            }
        }
    }

    #[test]
    fn the_refusal_is_what_was_asked_for() {
        let config = json!({"count": 1, "time_window": 1, "rejected_code": 429, "rejected_msg": "slow down",
            "show_limit_quota_header": false});
        let trial = Trial::of("limit-count", config);
        assert_eq!(counted(&trial, "GET /"), "0   ");
        assert_eq!(trial.run("GET /").answered(), "429 {\"error_msg\":\"slow down\"}\n");
    }

    #[test]
    fn several_rules_apply_together() {
        let trial = Trial::of(
            "limit-count",
            json!({"rejected_code": 429, "rules": [
                {"key": "$remote_addr", "count": 3, "time_window": 60},
                {"key": "$http_x_user", "count": "${http_x_limit}", "time_window": 60, "header_prefix": "User"},
            ]}),
        );
        let run = trial.run("GET /\nX-User: a\nX-Limit: 1");
        assert_eq!(run.answer_field("X-1-RateLimit-Remaining"), "2");
        assert_eq!(run.answer_field("X-User-RateLimit-Limit"), "1");
        assert_eq!(trial.run("GET /").answered(), "", "the second rule says nothing of this one");
        assert_eq!(trial.run("GET /\nX-User: a\nX-Limit: 1").answered(), "429 ");
        assert_eq!(trial.run("GET /").answered(), "429 ", "refused requests count for the rules before");
    }

    #[test]
    fn an_amount_that_is_no_number_is_not_guessed() {
        let config = json!({"count": "${http_x_limit}", "time_window": 60});
        let trial = Trial::of("limit-count", config.clone());
        assert_eq!(trial.run("GET /").answered(), "500 {\"error_msg\":\"failed to limit count\"}\n");
        assert_eq!(trial.run("GET /\nX-Limit: 5").answered(), "");
        let mut config = config;
        config["allow_degradation"] = json!(true);
        assert_eq!(Trial::of("limit-count", config).run("GET /").answered(), "");
    }

    #[test]
    fn metadata_names_the_header_fields() {
        let trial = Trial::with_metadata(
            &json!({"limit-count": {"count": 5, "time_window": 60}}),
            &json!({"limit-count": {"remaining_header": "X-Left"}}),
        );
        assert_eq!(trial.run("GET /").answer_field("X-Left"), "4");
    }

    #[test]
    fn without_redis_the_configuration_decides() {
        let config = |allow: bool| {
            json!({"count": 1, "time_window": 60, "policy": "redis", "redis_host": "127.0.0.1",
                "allow_degradation": allow})
        };
        let trial = Trial::of("limit-count", config(false));
        assert_eq!(trial.run("GET /").answered(), "500 {\"error_msg\":\"failed to limit count\"}\n");
        // What passes is counted here meanwhile.
        let trial = Trial::of("limit-count", config(true));
        assert_eq!(counted(&trial, "GET /"), "0 1 0 60.00");
        assert_eq!(counted(&trial, "GET /"), "503 1 0 60.00");
    }

    #[test]
    fn what_cannot_be_counted_is_refused() {
        for (config, expected) in [
            (json!({}), vec![""]),
            (json!({"count": 1, "time_window": 60, "rules": []}), vec![""]),
            (json!({"count": 0, "time_window": 60}), vec!["/count"]),
            (
                json!({"count": 1, "time_window": 60, "policy": "redis-sentinel", "redis_master_name": "m",
                    "redis_sentinels": [{"host": "127.0.0.1", "port": 1}]}),
                vec!["/policy"],
            ),
            (json!({"count": 1, "time_window": 60, "policy": "redis"}), vec!["/redis_host"]),
            (json!({"count": 1, "time_window": 40_000_000}), vec!["/time_window"]),
        ] {
            assert_eq!(refused("limit-count", &config), expected, "{config}");
        }
    }
}
