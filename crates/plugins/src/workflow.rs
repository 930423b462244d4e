//! `workflow`: the first rule whose condition holds decides: an answer, or a limit that applies to these requests.
//!
//! A rule without a condition holds always. A limit that ran as an action does not run a second time in its own right
//! for the same request.

use std::sync::Arc;

use gatewright_model::expression::Expression;
use gatewright_model::validation::Violations;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::chain::Instance;
use crate::exchange::{Answer, Exchange, Flow};
use crate::kind::{self, Built, Category, Kind, Outcome, Phase, Phases, Plugin, Site};
use crate::schema;

pub(crate) const KIND: Kind = Kind {
    name: "workflow",
    priority: 1006,
    category: Category::Other,
    phases: Phases::of(&[Phase::Access, Phase::Log]),
    schema: || {
        let actions = json!({ "type": "array", "items": { "type": "array", "minItems": 1 } });
        let case = json!({ "type": "array", "minItems": 1, "items": {
            "anyOf": [{ "type": "array" }, { "type": "string" }],
        } });
        let schema = schema::field(schema::of::<Config>(), "rules[].actions", actions);
        schema::field(schema, "rules[].case", case)
    },
    metadata: None,
    credential: None,
    build,
};

/// The limits that may be actions.
const LIMITS: [&str; 2] = ["limit-count", "limit-conn"];

#[derive(Deserialize, ToSchema)]
struct Config {
    /// Rules; the first one whose condition holds decides.
    rules: Vec<RuleConfig>,
}

#[derive(Deserialize, ToSchema)]
struct RuleConfig {
    /// Expression under which the rule applies; absent: always.
    #[serde(default)]
    #[schema(value_type = Vec<Value>)]
    case: Option<Vec<Value>>,
    /// What is done: `["return", {"code": 403}]`, or a limit and its configuration. Only the first one counts.
    #[schema(value_type = Vec<Value>)]
    actions: Vec<Vec<Value>>,
}

#[derive(Deserialize)]
struct Return {
    code: u16,
}

struct Workflow(Box<[Rule]>);

struct Rule {
    /// `None`: always.
    condition: Option<Expression>,
    /// `None`: there is nothing to do.
    action: Option<Action>,
}

enum Action {
    Return(u16),
    Limit(Instance),
}

/// The rule that decided.
struct Decided(usize);

fn build(config: Value, site: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let mut violations = Violations::default();
    let rules = config.rules.iter().enumerate();
    let rules = rules.map(|(index, rule)| rule_of(rule, &format!("/rules/{index}"), site, &mut violations));
    let rules = rules.collect();
    violations.into_result()?;
    Ok(Arc::new(Workflow(rules)))
}

fn rule_of(config: &RuleConfig, at: &str, site: &Site<'_>, violations: &mut Violations) -> Rule {
    let condition = config.case.as_deref().and_then(|case| {
        Expression::parse(case).map_err(|wrong| violations.absorb(&format!("{at}/case"), wrong)).ok()
    });
    let mut actions = Vec::with_capacity(config.actions.len());
    for (index, action) in config.actions.iter().enumerate() {
        match action_of(action, site) {
            Ok(action) => actions.push(action),
            Err(wrong) => violations.absorb(&format!("{at}/actions/{index}"), wrong),
        }
    }
    Rule { condition, action: actions.into_iter().next() }
}

fn action_of(action: &[Value], site: &Site<'_>) -> Result<Action, Violations> {
    let name = action.first().and_then(Value::as_str).unwrap_or_default();
    let none = json!({});
    let config = action.get(1).unwrap_or(&none);
    if name == "return" {
        let parsed = kind::parse::<Return>(config.clone());
        let code = parsed.map(|parsed| parsed.code).ok().filter(|code| (100..=599).contains(code));
        return match code {
            Some(code) => Ok(Action::Return(code)),
            None => Err(Violations::one("/1/code", "must be a status from 100 to 599")),
        };
    }
    let kind = LIMITS.contains(&name).then(|| crate::find(name)).flatten();
    let Some(kind) = kind else {
        let known = LIMITS.join("`, `");
        return Err(Violations::one(
            "/0",
            format!("unsupported action `{name}`; there are `return`, `{known}`"),
        ));
    };
    Instance::build(kind, config, site).map(Action::Limit).map_err(|wrong| {
        let mut violations = Violations::default();
        violations.absorb("/1", wrong);
        violations
    })
}

impl Plugin for Workflow {
    fn access(&self, exchange: &mut Exchange<'_>) -> Flow {
        let holds =
            |rule: &&Rule| rule.condition.as_ref().is_none_or(|condition| condition.holds(&*exchange));
        let decided = self.0.iter().position(|rule| holds(&rule));
        match decided.and_then(|index| Some((index, self.0[index].action.as_ref()?))) {
            None => Flow::Continue,
            Some((_, Action::Return(code))) => {
                Flow::respond(Answer::error_msg(*code, "rejected by workflow"))
            }
            Some((index, Action::Limit(limit))) => {
                exchange.set_note(Decided(index));
                exchange.state.already_run.push(limit.kind().name);
                limit.plugin().access(exchange)
            }
        }
    }

    fn log(&self, exchange: &mut Exchange<'_>, outcome: &Outcome) {
        let decided = exchange.note::<Decided>().and_then(|decided| self.0.get(decided.0));
        if let Some(Action::Limit(limit)) = decided.and_then(|rule| rule.action.as_ref()) {
            limit.plugin().log(exchange, outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trial, refused};

    fn statuses(trial: &Trial, requests: &[&str]) -> Vec<u16> {
        let answer = |request: &&str| trial.run(request).answer.map_or(0, |answer| answer.status);
        requests.iter().map(answer).collect()
    }

    #[test]
    fn the_first_rule_that_holds_decides() {
        let trial = Trial::of(
            "workflow",
            json!({"rules": [
                {"case": [["uri", "==", "/a"]], "actions": [["return", {"code": 403}]]},
                {"case": ["OR", ["arg_x", "==", "1"], ["http_x", "==", "1"]],
                 "actions": [["limit-count", {"count": 1, "time_window": 60, "rejected_code": 429}]]},
                {"case": [["uri", "==", "/c"]], "actions": []},
            ]}),
        );
        assert_eq!(trial.run("GET /a?x=1").answered(), "403 {\"error_msg\":\"rejected by workflow\"}\n");
        assert_eq!(statuses(&trial, &["GET /b?x=1", "GET /b\nX: 1", "GET /b", "GET /c"]), [0, 429, 0, 0]);
    }

    #[test]
    fn a_rule_without_a_condition_always_holds() {
        let trial = Trial::of("workflow", json!({"rules": [{"actions": [["return", {"code": 401}]]}]}));
        assert_eq!(statuses(&trial, &["GET /"]), [401]);
    }

    #[test]
    fn a_limit_that_ran_as_an_action_does_not_run_twice() {
        let trial = Trial::all(&json!({
            "workflow": {"rules": [{"case": [["uri", "==", "/a"]],
                "actions": [["limit-count", {"count": 3, "time_window": 60}]]}]},
            "limit-count": {"count": 1, "time_window": 60},
        }));
        assert_eq!(statuses(&trial, &["GET /a", "GET /a", "GET /a", "GET /a"]), [0, 0, 0, 503]);
        assert_eq!(statuses(&trial, &["GET /b", "GET /b"]), [0, 503]);
    }

    #[test]
    fn places_of_a_limit_are_given_back() {
        let limit = json!({"conn": 1, "burst": 0, "default_conn_delay": 0.1, "key": "remote_addr"});
        let trial = Trial::of("workflow", json!({"rules": [{"actions": [["limit-conn", limit]]}]}));
        let first = trial.run("GET /");
        assert_eq!(statuses(&trial, &["GET /"]), [503]);
        first.respond("200");
        assert_eq!(statuses(&trial, &["GET /"]), [0]);
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        let rule = |rule: Value| json!({ "rules": [rule] });
        for (config, expected) in [
            (json!({}), "/rules"),
            (rule(json!({"case": []})), "/rules/0/actions"),
            (rule(json!({"actions": [["return", {"code": 99}]]})), "/rules/0/actions/0/1/code"),
            (rule(json!({"actions": [["return"]]})), "/rules/0/actions/0/1/code"),
            (rule(json!({"actions": [["key-auth", {}]]})), "/rules/0/actions/0/0"),
            (
                rule(json!({"actions": [["limit-count", {"count": 0, "time_window": 1}]]})),
                "/rules/0/actions/0/1/count",
            ),
            (
                rule(json!({"case": [["uri", "=", "/"]], "actions": [["return", {"code": 403}]]})),
                "/rules/0/case/0/1",
            ),
        ] {
            assert!(
                refused("workflow", &config).contains(&expected.to_owned()),
                "{config} {:?}",
                refused("workflow", &config)
            );
        }
    }
}
