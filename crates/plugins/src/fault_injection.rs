//! `fault-injection`: delays requests, or answers some of them with an error, to see how callers cope.

use std::sync::Arc;
use std::time::Duration;

use gatewright_model::expression::Expression;
use gatewright_model::validation::Violations;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::edits;
use crate::exchange::{Answer, Exchange, Flow};
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::schema;
use crate::template::Template;

pub(crate) const KIND: Kind = Kind {
    name: "fault-injection",
    priority: 11000,
    category: Category::Other,
    phases: Phases::of(&[Phase::Rewrite]),
    schema: || {
        let schema = schema::with::<Config>(json!({ "minProperties": 1 }));
        let vars = json!({ "type": "array", "maxItems": 20, "items": { "type": "array" } });
        let scalar = json!({ "oneOf": [{ "type": "string" }, { "type": "number" }] });
        let schema = schema::field(schema, "abort.headers", schema::map(&scalar));
        let schema = schema::field(schema, "abort.vars", vars.clone());
        schema::field(schema, "delay.vars", vars)
    },
    metadata: None,
    credential: None,
    build,
};

/// Seconds of the longest delay: connections are given up after that.
const DELAY_SECONDS_MAX: f64 = 600.0;

#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
struct Config {
    /// Which requests are answered, and how.
    abort: Option<AbortConfig>,
    /// Which requests are delayed, and for how long.
    delay: Option<DelayConfig>,
}

#[derive(Serialize, Deserialize, ToSchema)]
struct AbortConfig {
    /// Status of the answer.
    #[schema(minimum = 200)]
    http_status: u16,
    /// Its body; `$variables` are replaced.
    #[serde(default)]
    #[schema(min_length = 0)]
    body: Option<String>,
    /// Its header fields.
    #[serde(default)]
    #[schema(value_type = Object)]
    headers: Option<Map<String, Value>>,
    /// How many of a hundred requests; absent: all.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 100)]
    percentage: Option<u64>,
    /// Expressions, any of which is enough; absent: every request.
    #[serde(default)]
    #[schema(value_type = Object)]
    vars: Option<Vec<Vec<Value>>>,
}

#[derive(Serialize, Deserialize, ToSchema)]
struct DelayConfig {
    /// Seconds.
    #[schema(minimum = 0)]
    duration: f64,
    /// How many of a hundred requests; absent: all.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 100)]
    percentage: Option<u64>,
    /// Expressions, any of which is enough; absent: every request.
    #[serde(default)]
    #[schema(value_type = Object)]
    vars: Option<Vec<Vec<Value>>>,
}

struct FaultInjection {
    abort: Option<Abort>,
    delay: Option<(Share, Duration)>,
}

struct Abort {
    share: Share,
    status: u16,
    body: Template,
    headers: Vec<(String, Template)>,
}

/// Which requests are hit.
struct Share {
    percentage: Option<u64>,
    conditions: Option<Vec<Expression>>,
}

impl Share {
    fn parse(
        percentage: Option<u64>,
        vars: Option<&Vec<Vec<Value>>>,
        at: &str,
        violations: &mut Violations,
    ) -> Self {
        let mut conditions = Vec::new();
        for (index, elements) in vars.into_iter().flatten().enumerate() {
            match Expression::parse(elements) {
                Ok(condition) => conditions.push(condition),
                Err(wrong) => violations.absorb(&format!("{at}/vars/{index}"), wrong),
            }
        }
        Self { percentage, conditions: vars.map(|_| conditions) }
    }

    fn hits(&self, exchange: &Exchange<'_>) -> bool {
        let by_chance = self.percentage.is_none_or(|share| exchange.surroundings.random() % 100 < share);
        let conditions = self.conditions.as_ref();
        by_chance && conditions.is_none_or(|any| any.iter().any(|condition| condition.holds(exchange)))
    }
}

fn build(config: Value, _: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let mut violations = Violations::default();
    let abort = config.abort.map(|abort| {
        if abort.http_status > 599 {
            violations.add("/abort/http_status", "number must be at most 599");
        }
        let mut headers = Vec::new();
        for (name, value) in abort.headers.iter().flatten() {
            edits::check_name(name, &format!("/abort/headers/{name}"), &mut violations);
            headers.push((name.clone(), Template::parse(&edits::value_text(value))));
        }
        Abort {
            share: Share::parse(abort.percentage, abort.vars.as_ref(), "/abort", &mut violations),
            status: abort.http_status,
            body: Template::parse(abort.body.as_deref().unwrap_or_default()),
            headers,
        }
    });
    let delay = config.delay.map(|delay| {
        if delay.duration > DELAY_SECONDS_MAX {
            violations.add("/delay/duration", format!("number must be at most {DELAY_SECONDS_MAX}"));
        }
        let share = Share::parse(delay.percentage, delay.vars.as_ref(), "/delay", &mut violations);
        (share, Duration::from_secs_f64(delay.duration.clamp(0.0, DELAY_SECONDS_MAX)))
    });
    violations.into_result()?;
    Ok(Arc::new(FaultInjection { abort, delay }))
}

impl Plugin for FaultInjection {
    fn rewrite(&self, exchange: &mut Exchange<'_>) -> Flow {
        let delay = self.delay.as_ref().filter(|(share, _)| share.hits(exchange)).map(|(_, delay)| *delay);
        let abort = self.abort.as_ref().filter(|abort| abort.share.hits(exchange));
        let then = match abort {
            None => Flow::Continue,
            Some(abort) => {
                let mut answer = Answer::new(abort.status).body(abort.body.render(exchange));
                for (name, value) in &abort.headers {
                    answer = answer.field(name.clone(), edits::one_line(value.render(exchange)));
                }
                Flow::respond(answer)
            }
        };
        match delay {
            None | Some(Duration::ZERO) => then,
            Some(delay) => Flow::Pause(delay, Box::new(then)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trial, refused};

    #[test]
    fn requests_are_delayed_then_answered() {
        let trial = Trial::of(
            "fault-injection",
            json!({
                "delay": {"duration": 0.5, "vars": [[["arg_slow", "==", "1"]]]},
                "abort": {"http_status": 503, "body": "no $arg_name", "headers": {"X-Why": "$arg_name"},
                    "vars": [[["arg_name", "==", "jack"]], [["http_x", "==", "y"]]]},
            }),
        );
        let half = Duration::from_millis(500);
        for (request, paused, answered) in [
            ("GET /", Duration::ZERO, ""),
            ("GET /?slow=1", half, ""),
            ("GET /?name=jack", Duration::ZERO, "503 no jack"),
            ("GET /?slow=1\nX: y", half, "503 no "),
        ] {
            let run = trial.run(request);
            assert_eq!((run.paused, run.answered().as_str()), (paused, answered), "{request}");
        }
        assert_eq!(trial.run("GET /?name=jack").answer_field("X-Why"), "jack");
    }

    #[test]
    fn a_share_of_the_requests_is_hit() {
        let hits = |percentage: u64| {
            let trial = Trial::of(
                "fault-injection",
                json!({"abort": {"http_status": 500, "percentage": percentage}}),
            );
            (0..1000).filter(|_| trial.run("GET /").answer.is_some()).count()
        };
        assert_eq!((hits(0), hits(100)), (0, 1000));
        assert!((200..400).contains(&hits(30)));
    }

    #[test]
    fn what_is_no_fault_is_refused() {
        for (config, expected) in [
            (json!({}), vec![""]),
            (json!({"abort": {}}), vec!["/abort/http_status"]),
            (
                json!({"abort": {"http_status": 100, "percentage": 101}}),
                vec!["/abort/http_status", "/abort/percentage"],
            ),
            (json!({"abort": {"http_status": 500, "vars": [[["a", "=", 1]]]}}), vec!["/abort/vars/0/0/1"]),
            (json!({"delay": {"duration": 601}}), vec!["/delay/duration"]),
            (json!({"delay": {"duration": -1}}), vec!["/delay/duration"]),
        ] {
            assert_eq!(refused("fault-injection", &config), expected, "{config}");
        }
    }
}
