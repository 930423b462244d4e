//! `multi-auth`: tries several ways of authentication in order; the first that succeeds counts.
//!
//! A plugin among them that has an anonymous consumer always succeeds: put it last.

use std::sync::Arc;

use gatewright_model::validation::Violations;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::chain::Instance;
use crate::exchange::{Answer, Exchange, Flow, Next};
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::schema;

pub(crate) const KIND: Kind = Kind {
    name: "multi-auth",
    priority: 2600,
    category: Category::Authentication,
    phases: Phases::of(&[Phase::Rewrite]),
    schema: || {
        let plugins = json!({ "type": "array", "minItems": 2 });
        schema::field(schema::of::<Config>(), "auth_plugins", plugins)
    },
    metadata: None,
    credential: None,
    build,
};

/// Plugins tried for one request.
const PLUGINS_MAX: usize = 16;

#[derive(Deserialize, ToSchema)]
struct Config {
    /// Plugins with their configurations, in the order they are tried.
    #[schema(value_type = Vec<Object>)]
    auth_plugins: Vec<Map<String, Value>>,
}

struct MultiAuth(Arc<[Instance]>);

fn build(config: Value, site: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let (mut instances, mut violations) = (Vec::new(), Violations::default());
    for (index, plugins) in config.auth_plugins.iter().enumerate() {
        for (name, config) in plugins {
            let at = format!("/auth_plugins/{index}/{name}");
            match crate::find(name).filter(|kind| authenticates(kind)) {
                None => violations.add(at, format!("plugin `{name}` does not authenticate consumers")),
                Some(kind) => match Instance::build(kind, config, site) {
                    Ok(instance) => instances.push(instance),
                    Err(wrong) => violations.absorb(&at, wrong),
                },
            }
        }
    }
    if instances.len() > PLUGINS_MAX {
        violations.add("/auth_plugins", format!("maximum number of plugins is {PLUGINS_MAX}"));
    }
    violations.into_result()?;
    Ok(Arc::new(MultiAuth(instances.into())))
}

fn authenticates(kind: &Kind) -> bool {
    kind.category == Category::Authentication && kind.phases.has(Phase::Rewrite) && kind.name != KIND.name
}

impl Plugin for MultiAuth {
    fn rewrite(&self, exchange: &mut Exchange<'_>) -> Flow {
        attempt(&self.0, 0, exchange)
    }
}

/// Tries the plugins from the one at `index` on.
fn attempt(plugins: &Arc<[Instance]>, index: usize, exchange: &mut Exchange<'_>) -> Flow {
    match plugins.get(index) {
        Some(instance) => {
            let flow = instance.plugin().rewrite(exchange);
            judge(plugins, index, flow, exchange)
        }
        None => Flow::respond(Answer::message(401, "Authorization Failed")),
    }
}

/// What becomes of the request after the plugin at `index` said `flow`.
fn judge(plugins: &Arc<[Instance]>, index: usize, flow: Flow, exchange: &mut Exchange<'_>) -> Flow {
    match flow {
        Flow::Respond(_) => attempt(plugins, index + 1, exchange),
        Flow::Wait(future) => {
            let plugins = Arc::clone(plugins);
            Flow::Wait(Box::pin(async move {
                let then = future.await;
                Box::new(move |exchange: &mut Exchange<'_>| {
                    let flow = then(exchange);
                    judge(&plugins, index, flow, exchange)
                }) as Next
            }))
        }
        // With the body read, everybody is asked again.
        Flow::Continue | Flow::ReadBody(_) | Flow::Pause(..) => flow,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Trial, refused};

    fn trial() -> Trial {
        let plugins = json!([{"basic-auth": {}}, {"key-auth": {"hide_credentials": true}}, {"hmac-auth": {"validate_request_body": true}}]);
        Trial::of("multi-auth", json!({ "auth_plugins": plugins }))
            .consumer("foo", json!({}), json!({"basic-auth": {"username": "foo", "password": "bar"}}))
            .consumer("jack", json!({}), json!({"key-auth": {"key": "k"}}))
    }

    #[test]
    fn the_first_that_succeeds_counts() {
        for (request, consumer) in [
            ("GET /\nAuthorization: Basic Zm9vOmJhcg==", "foo"),
            ("GET /\napikey: k", "jack"),
            ("GET /\nAuthorization: Basic Zm9vOmJhcg==\napikey: k", "foo"),
            ("GET /\nAuthorization: Basic d3Jvbmc6\napikey: k", "jack"),
        ] {
            let trial = trial();
            let run = trial.run(request);
            assert_eq!(
                (run.answered().as_str(), run.sent("X-Consumer-Username").as_str()),
                ("", consumer),
                "{request}"
            );
        }
        let failed = "401 {\"message\":\"Authorization Failed\"}\n";
        for request in ["GET /", "GET /\napikey: wrong", "POST /\nAuthorization: Signature x\n\nbody"] {
            assert_eq!(trial().run(request).answered(), failed, "{request}");
        }
    }

    #[test]
    fn what_is_waited_for_is_judged_as_well() {
        let jwks = json!({"discovery": "http://id.example/d", "client_id": "c", "bearer_only": true, "use_jwks": true,
            "unauth_action": "deny", "session": {"secret": "0123456789abcdef"}});
        let plugins = json!([{"openid-connect": jwks}, {"key-auth": {}}]);
        let trial = Trial::of("multi-auth", json!({ "auth_plugins": plugins })).consumer(
            "jack",
            json!({}),
            json!({"key-auth": {"key": "k"}}),
        );
        // The identity provider does not answer.
        let run = trial.run("GET /\nAuthorization: Bearer e30.e30.\napikey: k");
        assert_eq!(run.sent("X-Consumer-Username"), "jack");
    }

    #[test]
    fn only_what_authenticates_is_taken() {
        let of = |plugins: serde_json::Value| refused("multi-auth", &json!({ "auth_plugins": plugins }));
        assert_eq!(of(json!([{"key-auth": {}}])), ["/auth_plugins"]);
        assert_eq!(
            of(json!([{"key-auth": {"realm": 1}}, {"cors": {}}, {"no-such": {}}, {"multi-auth": {}}])),
            [
                "/auth_plugins/0/key-auth/realm",
                "/auth_plugins/1/cors",
                "/auth_plugins/2/no-such",
                "/auth_plugins/3/multi-auth"
            ]
        );
    }
}
