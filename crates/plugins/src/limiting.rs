//! What limiting plugins do alike: keys, amounts that may be variables, policies, refusals.
//!
//! Counters are kept on the gateway instance (`policy` `local`), or in Redis, where several gateways count together.
//! A configuration that wants them where they cannot be is refused when it is written: counting elsewhere than asked
//! would let more through than allowed.

use std::sync::Arc;

use gatewright_model::expression::Variable;
use gatewright_model::validation::Violations;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use crate::exchange::{Answer, Exchange, Flow};
use crate::kind::Site;
use crate::outbound::{Failure, Outbound, Waiting};
use crate::redis::{Call, Redis};
use crate::template::Template;

/// What is counted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KeyType {
    /// A variable.
    #[default]
    Var,
    /// Text with variables.
    VarCombination,
}

/// Makes the key of a request.
#[derive(Debug)]
pub(crate) enum Key {
    Variable(Variable),
    Template(Template),
    Constant(Vec<u8>),
}

impl Key {
    pub(crate) fn parse(text: &str, key_type: KeyType) -> Self {
        match key_type {
            KeyType::Var => Self::Variable(Variable::of(text.trim_start_matches('$'))),
            KeyType::VarCombination => Self::Template(Template::parse(text)),
        }
    }

    /// The key of this request; where it would be empty, the client's address.
    pub(crate) fn of(&self, exchange: &Exchange<'_>) -> Vec<u8> {
        let key = match self {
            Self::Variable(variable) => exchange.text(variable),
            Self::Template(template) => template.render_some(exchange),
            Self::Constant(key) => Some(key.clone()),
        };
        let address = || exchange.client_address().ip().to_canonical().to_string().into_bytes();
        key.filter(|key| !key.is_empty()).unwrap_or_else(address)
    }
}

/// A number, or text with variables that has to become one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum AmountConfig {
    Number(u64),
    Text(String),
}

/// A parsed amount.
#[derive(Debug)]
pub(crate) enum Amount {
    Fixed(u64),
    Varying(Template),
}

impl Amount {
    pub(crate) fn parse(config: &AmountConfig) -> Self {
        match config {
            AmountConfig::Number(number) => Self::Fixed(*number),
            AmountConfig::Text(text) => match text.parse() {
                Ok(number) => Self::Fixed(number),
                Err(_) => Self::Varying(Template::parse(text)),
            },
        }
    }

    /// The amount for this request; `None`: its variables do not make a number.
    pub(crate) fn of(&self, exchange: &Exchange<'_>) -> Option<u64> {
        match self {
            Self::Fixed(number) => Some(*number),
            Self::Varying(template) => {
                let text = template.render(exchange);
                std::str::from_utf8(&text).ok()?.trim().parse().ok()
            }
        }
    }
}

/// The schema of an amount above zero, or from zero on.
pub(crate) fn amount_schema(zero: bool) -> Value {
    let least = if zero { "minimum" } else { "exclusiveMinimum" };
    json!({ "oneOf": [{ "type": "integer", least: 0 }, { "type": "string" }] })
}

/// Where counters are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Policy {
    #[default]
    Local,
    Redis,
    RedisCluster,
    RedisSentinel,
}

impl Policy {
    /// The counters that `document`, the configuration of `plugin`, asks for; `None`: those of this gateway alone.
    pub(crate) fn counters(
        self,
        document: &Value,
        scope: &str,
        site: &Site<'_>,
    ) -> Result<Option<Shared>, Violations> {
        let cluster = match self {
            Self::Local => return Ok(None),
            Self::Redis => false,
            Self::RedisCluster => true,
            Self::RedisSentinel => {
                let message = "this release does not ask Sentinels; use `local`, `redis` or `redis-cluster`";
                return Err(Violations::one("/policy", message));
            }
        };
        let server = Arc::new(Redis::of(document, cluster)?);
        // Another configuration starts anew, as it does on a gateway alone.
        let digest = Sha256::digest(format!("{scope}\n{document}"));
        let prefix = digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        Ok(Some(Shared { outbound: Arc::clone(site.outbound), server, prefix }))
    }
}

/// Counters in Redis, which several gateways share.
#[derive(Clone)]
pub(crate) struct Shared {
    outbound: Arc<dyn Outbound>,
    server: Arc<Redis>,
    prefix: String,
}

impl Shared {
    /// The key of a counter. In a cluster, those that one script touches have to be in one place, which the braces say.
    pub(crate) fn key(&self, plugin: &str, key: &[u8], together: bool) -> Vec<u8> {
        let Self { prefix, .. } = self;
        let start = match together {
            true => format!("gatewright:{plugin}:{{{prefix}}}:"),
            false => format!("gatewright:{plugin}:{prefix}:"),
        };
        [start.as_bytes(), key].concat()
    }

    /// Runs a script.
    pub(crate) fn call(&self, call: Call) -> Waiting<Result<Vec<i64>, Failure>> {
        self.outbound.redis(&self.server, call)
    }

    /// Runs a script whose outcome nobody waits for.
    pub(crate) fn tell(&self, call: Call) {
        let calling = self.call(call);
        self.outbound.spawn(Box::pin(async move {
            // Counters that could not be told expire by themselves.
            let _ = calling.await;
        }));
    }
}

/// Adds the fields of the policies that are not `local`, each demanded where its policy is chosen.
pub(crate) fn with_policies(mut schema: Value, policies: &[&str], further: &Value) -> Value {
    let mut otherwise = Value::Null;
    for policy in policies.iter().rev() {
        let (fields, required) = match *policy {
            "redis" => (redis(), json!(["redis_host"])),
            "redis-cluster" => (redis_cluster(), json!(["redis_cluster_nodes", "redis_cluster_name"])),
            _ => (redis_sentinel(), json!(["redis_sentinels", "redis_master_name"])),
        };
        let mut fields = fields;
        if let (Value::Object(fields), Value::Object(further)) = (&mut fields, further) {
            fields.extend(further.clone());
        }
        let mut branch = json!({
            "if": { "properties": { "policy": { "enum": [policy] } }, "required": ["policy"] },
            "then": { "properties": fields, "required": required },
        });
        if !otherwise.is_null() {
            branch["else"] = otherwise;
        }
        otherwise = branch;
    }
    if let (Value::Object(schema), Value::Object(branch)) = (&mut schema, otherwise) {
        schema.extend(branch);
    }
    schema
}

fn number(default: u64, minimum: u64) -> Value {
    json!({ "type": "integer", "minimum": minimum, "default": default })
}

fn text(length_min: u64) -> Value {
    json!({ "type": "string", "minLength": length_min })
}

fn switch() -> Value {
    json!({ "type": "boolean", "default": false })
}

fn redis() -> Value {
    json!({
        "redis_host": text(2), "redis_port": number(6379, 1), "redis_username": text(1), "redis_password": text(0),
        "redis_database": number(0, 0), "redis_timeout": number(1000, 1), "redis_ssl": switch(),
        "redis_ssl_verify": switch(), "redis_keepalive_timeout": number(10_000, 1000),
        "redis_keepalive_pool": number(100, 1),
    })
}

fn redis_cluster() -> Value {
    json!({
        "redis_cluster_nodes": { "type": "array", "minItems": 1, "items":
            { "type": "string", "minLength": 2, "maxLength": 100 } },
        "redis_cluster_name": { "type": "string" }, "redis_password": text(0), "redis_timeout": number(1000, 1),
        "redis_cluster_ssl": switch(), "redis_cluster_ssl_verify": switch(),
        "redis_keepalive_timeout": number(10_000, 1000), "redis_keepalive_pool": number(100, 1),
    })
}

fn redis_sentinel() -> Value {
    json!({
        "redis_sentinels": { "type": "array", "minItems": 1, "items": { "type": "object", "properties": {
            "host": text(2), "port": { "type": "integer", "minimum": 1, "maximum": 65535 },
        }, "required": ["host", "port"], "additionalProperties": false } },
        "redis_master_name": text(1), "redis_username": text(1), "redis_password": text(0),
        "redis_database": number(0, 0), "sentinel_username": text(1), "sentinel_password": text(0),
        "redis_role": { "type": "string", "enum": ["master", "slave"], "default": "master" },
        "redis_connect_timeout": number(1000, 1), "redis_read_timeout": number(1000, 1),
        "redis_keepalive_timeout": number(60_000, 1),
    })
}

/// Refuses a request that is one too many.
pub(crate) fn reject(status: u16, message: Option<&str>) -> Flow {
    Flow::respond(match message {
        Some(message) => Answer::error_msg(status, message),
        None => Answer::new(status),
    })
}
