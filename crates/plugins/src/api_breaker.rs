//! `api-breaker`: stops asking an upstream that keeps failing, for longer each time.
//!
//! What fails is counted by host and path on one gateway instance. Health checks look at nodes; this looks at what
//! callers get.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gatewright_model::validation::Violations;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::counters::Counters;
use crate::edits;
use crate::exchange::{Answer, Exchange, Flow};
use crate::kind::{self, Built, Category, Kind, Outcome, Phase, Phases, Plugin, Site};
use crate::schema;
use crate::template::Template;

pub(crate) const KIND: Kind = Kind {
    name: "api-breaker",
    priority: 1005,
    category: Category::Other,
    phases: Phases::of(&[Phase::Access, Phase::Log]),
    schema: || {
        let statuses = |last: u16, first: u16, default: u16| {
            json!({
                "type": "array", "minItems": 1, "uniqueItems": true, "default": [default],
                "items": { "type": "integer", "minimum": first, "maximum": last },
            })
        };
        let schema = schema::field(schema::of::<Config>(), "healthy.http_statuses", statuses(499, 200, 200));
        schema::field(schema, "unhealthy.http_statuses", statuses(599, 500, 500))
    },
    metadata: None,
    credential: None,
    build,
};

#[derive(Deserialize, ToSchema)]
struct Config {
    /// Status of the answer while the upstream is not asked.
    #[schema(minimum = 200, maximum = 599)]
    break_response_code: u16,
    /// Its body.
    #[serde(default)]
    break_response_body: Option<String>,
    /// Its header fields; `$variables` are replaced.
    #[serde(default)]
    break_response_headers: Option<Vec<Field>>,
    /// Seconds of the longest break.
    #[serde(default = "five_minutes")]
    #[schema(required = false, minimum = 3, default = 300)]
    max_breaker_sec: u64,
    /// What counts as failure.
    #[serde(default)]
    #[schema(required = false, default = json!({"http_statuses": [500], "failures": 3}))]
    unhealthy: Unhealthy,
    /// What counts as recovery.
    #[serde(default)]
    #[schema(required = false, default = json!({"http_statuses": [200], "successes": 3}))]
    healthy: Healthy,
}

#[derive(Serialize, Deserialize, ToSchema)]
struct Field {
    /// Name of the field.
    #[schema(min_length = 1)]
    key: String,
    /// Its value.
    #[schema(min_length = 1)]
    value: String,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Unhealthy {
    /// Statuses.
    http_statuses: Vec<u16>,
    /// How many of them begin a break.
    #[schema(minimum = 1)]
    failures: u64,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Healthy {
    /// Statuses.
    http_statuses: Vec<u16>,
    /// How many of them make everything forgotten.
    #[schema(minimum = 1)]
    successes: u64,
}

impl Default for Unhealthy {
    fn default() -> Self {
        Self { http_statuses: vec![500], failures: 3 }
    }
}

impl Default for Healthy {
    fn default() -> Self {
        Self { http_statuses: vec![200], successes: 3 }
    }
}

const fn five_minutes() -> u64 {
    300
}

struct ApiBreaker {
    config: Config,
    headers: Vec<(String, Template)>,
    states: Counters<State>,
}

/// How the upstream answers under one host and path.
#[derive(Default)]
struct State {
    failures: AtomicU64,
    successes: AtomicU64,
    /// When the break is over, in milliseconds.
    broken_until: AtomicU64,
}

/// The key a request is counted by.
struct Counted(Arc<State>);

fn build(config: Value, _: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let mut violations = Violations::default();
    let mut headers = Vec::new();
    for (index, field) in config.break_response_headers.iter().flatten().enumerate() {
        edits::check_name(&field.key, &format!("/break_response_headers/{index}/key"), &mut violations);
        headers.push((field.key.clone(), Template::parse(&field.value)));
    }
    violations.into_result()?;
    Ok(Arc::new(ApiBreaker { config, headers, states: Counters::default() }))
}

impl State {
    fn failed(&self, config: &Config, now: u64) {
        self.successes.store(0, Ordering::Relaxed);
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if failures.is_multiple_of(config.unhealthy.failures) {
            let times = failures / config.unhealthy.failures;
            let seconds = 1_u64.checked_shl(u32::try_from(times).unwrap_or(u32::MAX)).unwrap_or(u64::MAX);
            let seconds = seconds.min(config.max_breaker_sec);
            self.broken_until.store(now.saturating_add(seconds.saturating_mul(1000)), Ordering::Relaxed);
        }
    }

    fn succeeded(&self, config: &Config) {
        if self.failures.load(Ordering::Relaxed) == 0 {
            return;
        }
        if self.successes.fetch_add(1, Ordering::Relaxed) + 1 >= config.healthy.successes {
            for counter in [&self.failures, &self.successes, &self.broken_until] {
                counter.store(0, Ordering::Relaxed);
            }
        }
    }
}

fn millis(exchange: &Exchange<'_>) -> u64 {
    u64::try_from(exchange.surroundings.now().uptime.as_millis()).unwrap_or(u64::MAX)
}

impl Plugin for ApiBreaker {
    fn access(&self, exchange: &mut Exchange<'_>) -> Flow {
        let request = &exchange.request;
        let key = [request.bytes(request.host), b" ", request.bytes(request.path)].concat();
        // Where too much fails to remember it, requests go to the upstream as they would without this plugin.
        let is_idle = |state: &State| state.failures.load(Ordering::Relaxed) == 0;
        let Some(state) = self.states.of(&key, is_idle) else { return Flow::Continue };
        if millis(exchange) < state.broken_until.load(Ordering::Relaxed) {
            let body = self.config.break_response_body.clone().unwrap_or_default();
            let mut answer = Answer::new(self.config.break_response_code).body(body);
            for (name, value) in &self.headers {
                answer = answer.field(name.clone(), edits::one_line(value.render(exchange)));
            }
            return Flow::respond(answer);
        }
        exchange.set_note(Counted(state));
        Flow::Continue
    }

    fn log(&self, exchange: &mut Exchange<'_>, outcome: &Outcome) {
        let (Some(status), Some(Counted(state))) = (outcome.upstream_status, exchange.note()) else { return };
        if self.config.unhealthy.http_statuses.contains(&status) {
            state.failed(&self.config, millis(exchange));
        } else if self.config.healthy.http_statuses.contains(&status) {
            state.succeeded(&self.config);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::testing::{Trial, refused};
    use serde_json::json;

    /// What the client gets while the upstream would answer `status`.
    fn asks(trial: &Trial, target: &str, status: u16) -> u16 {
        trial.run(&format!("GET {target}")).respond(&status.to_string()).head.status
    }

    #[test]
    fn breaks_begin_after_failures_and_grow() {
        let config = json!({"break_response_code": 599, "unhealthy": {"failures": 2, "http_statuses": [500, 503]},
            "healthy": {"successes": 2}, "max_breaker_sec": 5});
        let trial = Trial::of("api-breaker", config);
        assert_eq!([500, 404, 503, 200].map(|status| asks(&trial, "/", status)), [500, 404, 503, 599]);
        assert_eq!(asks(&trial, "/other", 200), 200, "other paths are counted apart");
        trial.pass(Duration::from_millis(1999));
        assert_eq!(asks(&trial, "/", 200), 599);
        trial.pass(Duration::from_millis(1));
        assert_eq!([500, 500, 200].map(|status| asks(&trial, "/", status)), [500, 500, 599]);
        trial.pass(Duration::from_millis(3999));
        assert_eq!(asks(&trial, "/", 200), 599, "the second break takes four seconds");
        trial.pass(Duration::from_millis(1));
        assert_eq!(
            [200, 200, 500, 500, 200].map(|status| asks(&trial, "/", status)),
            [200, 200, 500, 500, 599]
        );
        trial.pass(Duration::from_secs(2));
        assert_eq!(asks(&trial, "/", 200), 200, "after recovery breaks are short again");
    }

    #[test]
    fn the_answer_is_what_was_asked_for() {
        let config = json!({"break_response_code": 503, "break_response_body": "later", "unhealthy": {"failures": 1},
            "break_response_headers": [{"key": "X-Host", "value": "$host"}]});
        let trial = Trial::of("api-breaker", config);
        asks(&trial, "/", 500);
        let run = trial.run("GET /");
        assert_eq!(
            (run.answered(), run.answer_field("X-Host")),
            ("503 later".to_owned(), "api.example".to_owned())
        );
    }

    #[test]
    fn what_is_no_breaker_is_refused() {
        assert_eq!(refused("api-breaker", &json!({})), ["/break_response_code"]);
        let wrong = json!({"break_response_code": 600, "max_breaker_sec": 2, "unhealthy": {"http_statuses": [404]},
            "healthy": {"http_statuses": []}});
        assert_eq!(
            refused("api-breaker", &wrong),
            [
                "/break_response_code",
                "/healthy/http_statuses",
                "/max_breaker_sec",
                "/unhealthy/http_statuses/0"
            ]
        );
    }
}
