//! What loggers do alike: an entry for each exchange, with the fields that are asked for, left in an outbox.
//!
//! A logger is a [`Logger`] and says where its batches go. Nothing it does changes a request or a response: bodies are
//! looked at as they pass.
//!
//! * `entry`: the fields of an entry.
//! * `bodies`: what of bodies is in it.

mod bodies;
mod entry;

use std::sync::Arc;
use std::time::Duration;

use gatewright_model::expression::Expression;
use gatewright_model::validation::Violations;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::exchange::{Exchange, Flow};
use crate::kind::{Outcome, Plugin, Site};
use crate::response::Response;
use crate::schema;
use crate::shipping::{Outbox, Packing, Settings};
use bodies::{Bodies, Captured};
use entry::Format;

/// Entries that may wait where the metadata does not say.
const PENDING_DEFAULT: usize = 8192;

/// What an entry says: fields that every logger has.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
pub(crate) struct EntryConfig {
    /// Fields of an entry instead of the usual ones: text, or `$variable`.
    #[schema(value_type = Option<Object>)]
    log_format: Option<Map<String, Value>>,
    /// Fields beside those.
    #[schema(value_type = Option<Object>)]
    log_format_extra: Option<Map<String, Value>>,
    /// Whether an entry has the body of the request.
    include_req_body: bool,
    /// Expression under which it has.
    #[schema(value_type = Option<Vec<Value>>)]
    include_req_body_expr: Option<Vec<Value>>,
    /// Whether an entry has the body of the response.
    include_resp_body: bool,
    /// Expression under which it has.
    #[schema(value_type = Option<Vec<Value>>)]
    include_resp_body_expr: Option<Vec<Value>>,
    /// Bytes of the body of a request that an entry has at most.
    #[schema(minimum = 1)]
    max_req_body_bytes: usize,
    /// Bytes of the body of a response that an entry has at most.
    #[schema(minimum = 1)]
    max_resp_body_bytes: usize,
}

impl Default for EntryConfig {
    fn default() -> Self {
        Self {
            log_format: None,
            log_format_extra: None,
            include_req_body: false,
            include_req_body_expr: None,
            include_resp_body: false,
            include_resp_body_expr: None,
            max_req_body_bytes: 512 * 1024,
            max_resp_body_bytes: 512 * 1024,
        }
    }
}

/// When entries are sent: fields that every logger has which sends batches.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
pub(crate) struct BatchConfig {
    /// Entries of a full batch, which is sent at once.
    #[schema(minimum = 1)]
    pub(crate) batch_max_size: usize,
    /// Seconds after the last entry when a batch is sent.
    #[schema(minimum = 1)]
    inactive_timeout: u64,
    /// Seconds after its first entry when a batch is sent.
    #[schema(minimum = 1)]
    buffer_duration: u64,
    /// How often a batch that could not be sent is sent again; then it is dropped.
    #[schema(minimum = 0)]
    max_retry_count: u32,
    /// Seconds until it is.
    #[schema(minimum = 0)]
    retry_delay: u64,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self {
            batch_max_size: 1000,
            inactive_timeout: 5,
            buffer_duration: 60,
            max_retry_count: 0,
            retry_delay: 1,
        }
    }
}

/// The group-wide settings of a logger.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
pub(crate) struct Metadata {
    /// Fields of an entry where a configuration does not say.
    #[schema(value_type = Option<Object>)]
    log_format: Option<Map<String, Value>>,
    /// Fields beside those where a configuration does not say.
    #[schema(value_type = Option<Object>)]
    log_format_extra: Option<Map<String, Value>>,
    /// Entries that may wait; more are dropped and counted.
    #[schema(value_type = u64, minimum = 1, default = 8192)]
    max_pending_entries: Option<usize>,
}

/// `own` with the fields that every logger has.
pub(crate) fn entry_schema(own: Value) -> Value {
    let conditions = json!({ "type": "array", "minItems": 1, "items": { "type": "array" } });
    let entry = schema::field(schema::of::<EntryConfig>(), "include_req_body_expr", conditions.clone());
    merge(own, schema::field(entry, "include_resp_body_expr", conditions))
}

/// `own` with the fields that every logger has which sends batches; it is called `name` where nobody says otherwise.
pub(crate) fn batch_schema(own: Value, name: &str) -> Value {
    let mut batch = schema::of::<BatchConfig>();
    batch["properties"]["name"] =
        json!({ "type": "string", "default": name, "description": "What the logger is called." });
    merge(entry_schema(own), batch)
}

fn merge(mut schema: Value, further: Value) -> Value {
    if let (Some(Value::Object(fields)), Some(Value::Object(further))) =
        (schema.get_mut("properties"), further.get("properties"))
    {
        fields.extend(further.clone());
    }
    schema
}

/// Makes an entry of each exchange.
pub(crate) struct Logger {
    format: Format,
    bodies: Bodies,
    outbox: Outbox,
    /// Only exchanges that satisfy it are logged.
    condition: Option<Expression>,
    /// Whether an entry is the request as it came; if so, whether that is written as a string of JSON.
    original: Option<bool>,
}

/// Where the entries of a logger go.
pub(crate) struct Way {
    /// The kind of plugin.
    pub(crate) plugin: &'static str,
    /// When they are sent; absent: at once.
    pub(crate) batch: Option<BatchConfig>,
    /// What is made of a batch.
    pub(crate) packing: Box<Packing>,
}

impl Logger {
    /// A logger as `config` says, which has all fields of [`EntryConfig`].
    pub(crate) fn build(config: &EntryConfig, site: &Site<'_>, way: Way) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        let metadata: Metadata = site.metadata();
        let format = config.log_format.as_ref().or(metadata.log_format.as_ref());
        let extra = config.log_format_extra.as_ref().or(metadata.log_format_extra.as_ref());
        let format = Format::parse(format, extra);
        let bodies = Bodies::parse(config, &mut violations);
        violations.into_result()?;
        let pending_max = metadata.max_pending_entries.unwrap_or(PENDING_DEFAULT);
        let settings = match &way.batch {
            Some(batch) => Settings {
                batch_max_size: batch.batch_max_size,
                inactive_timeout: Duration::from_secs(batch.inactive_timeout),
                buffer_duration: Duration::from_secs(batch.buffer_duration),
                max_retry_count: batch.max_retry_count,
                retry_delay: Duration::from_secs(batch.retry_delay),
                pending_max,
            },
            None => Settings {
                batch_max_size: PENDING_DEFAULT,
                inactive_timeout: Duration::ZERO,
                buffer_duration: Duration::from_secs(1),
                max_retry_count: 0,
                retry_delay: Duration::ZERO,
                pending_max,
            },
        };
        let outbox = Outbox::new(way.plugin, settings, site.outbound, way.packing);
        Ok(Self { format, bodies, outbox, condition: None, original: None })
    }

    /// The same, for exchanges that satisfy `condition` alone.
    pub(crate) fn only(self, condition: Option<Expression>) -> Self {
        Self { condition, ..self }
    }

    /// The same, whose entries are requests as they came; `quoted`: as strings of JSON.
    #[cfg(feature = "kafka")]
    pub(crate) fn of_requests_as_they_came(self, quoted: bool) -> Self {
        Self { original: Some(quoted), ..self }
    }

    /// As a plugin.
    pub(crate) fn plugin(self) -> Arc<dyn Plugin> {
        Arc::new(self)
    }
}

impl Plugin for Logger {
    fn access(&self, exchange: &mut Exchange<'_>) -> Flow {
        self.bodies.request(exchange)
    }

    fn response(&self, exchange: &mut Exchange<'_>, response: &mut Response<'_>) {
        self.format.note_response(exchange, response);
        self.bodies.response(exchange, response);
    }

    fn log(&self, exchange: &mut Exchange<'_>, outcome: &Outcome) {
        if self.condition.as_ref().is_some_and(|condition| !condition.holds(&*exchange)) {
            return;
        }
        let captured: Captured = self.bodies.captured(exchange);
        self.outbox.put(match self.original {
            Some(quoted) => entry::original(exchange, &captured, quoted),
            None => self.format.write(exchange, outcome, &captured),
        });
    }
}

#[cfg(test)]
mod tests;
