//! What can be done to a request or a response: extension point 1, one file per plugin.
//!
//! A plugin is a [`Kind`]: a name, a place in the order, a configuration type, and a function that builds an instance.
//! The chain of a route is put together when its service is compiled; a request then costs a call per plugin and
//! phase, and nothing where there is no plugin.
//! A service or route that names a plugin which is not in [`ALL`] is refused when it is published, and answered with
//! 503 where it is served all the same: nothing is skipped silently.
//!
//! A good plugin reads like its documentation: module doc (what it is for, when not to use it), `KIND`, `Config` with
//! a sentence per field, the instance, its phases, tests as tables of request and outcome. It never sees a socket;
//! what it has to wait for it hands back as a [`exchange::Flow`].

pub mod chain;
pub mod consumers;
pub mod exchange;
pub mod kafka;
pub mod kind;
pub mod outbound;
pub mod protos;
pub mod redis;
pub mod response;
pub mod secrets;
pub mod shared;
pub mod streams;

mod authentication;
mod compression;
mod counters;
mod edits;
mod jose;
mod limiting;
mod logging;
mod meta;
mod rewriting;
mod schema;
mod shipping;
mod template;
mod tracing;

mod api_breaker;
mod basic_auth;
mod body_transformer;
mod brotli;
mod client_control;
mod consumer_restriction;
mod cors;
mod csrf;
mod echo;
mod fault_injection;
mod file_logger;
mod forward_auth;
mod grpc_transcode;
mod grpc_web;
mod gzip;
mod hmac_auth;
mod http_logger;
mod ip_restriction;
mod jwt_auth;
#[cfg(feature = "kafka")]
mod kafka_logger;
mod key_auth;
mod limit_conn;
mod limit_count;
mod limit_req;
mod mocking;
mod multi_auth;
mod openid_connect;
mod opentelemetry;
mod prometheus;
mod proxy_buffering;
mod proxy_cache;
mod proxy_mirror;
mod proxy_rewrite;
mod real_ip;
mod redirect;
mod referer_restriction;
mod request_id;
mod request_validation;
mod response_rewrite;
mod syslog;
mod tcp_logger;
mod traffic_split;
mod ua_restriction;
mod udp_logger;
mod uri_blocker;
mod workflow;
mod zipkin;

#[cfg(test)]
mod testing;

use std::collections::HashMap;
use std::sync::LazyLock;

use gatewright_model::validation::Violations;
use serde_json::Value;

pub use authentication::is_same_secret;
pub use kind::{Category, Kind};
use kind::{Schemas, Site};

/// Every plugin, in the order they run within a phase. A test keeps this sorted and complete.
pub const ALL: &[&Kind] = &[
    &real_ip::KIND,
    &client_control::KIND,
    &proxy_buffering::KIND,
    &request_id::KIND,
    &zipkin::KIND,
    &opentelemetry::KIND,
    &fault_injection::KIND,
    &mocking::KIND,
    &cors::KIND,
    &ip_restriction::KIND,
    &ua_restriction::KIND,
    &referer_restriction::KIND,
    &csrf::KIND,
    &uri_blocker::KIND,
    &request_validation::KIND,
    &multi_auth::KIND,
    &openid_connect::KIND,
    &hmac_auth::KIND,
    &basic_auth::KIND,
    &jwt_auth::KIND,
    &key_auth::KIND,
    &consumer_restriction::KIND,
    &forward_auth::KIND,
    &proxy_cache::KIND,
    &body_transformer::KIND,
    &proxy_mirror::KIND,
    &proxy_rewrite::KIND,
    &workflow::KIND,
    &api_breaker::KIND,
    &limit_conn::KIND,
    &limit_count::KIND,
    &limit_req::KIND,
    &brotli::KIND,
    &gzip::KIND,
    &traffic_split::KIND,
    &redirect::KIND,
    &response_rewrite::KIND,
    &grpc_transcode::KIND,
    &grpc_web::KIND,
    &prometheus::KIND,
    &echo::KIND,
    &http_logger::KIND,
    &tcp_logger::KIND,
    #[cfg(feature = "kafka")]
    &kafka_logger::KIND,
    &syslog::KIND,
    &udp_logger::KIND,
    &file_logger::KIND,
];

/// The plugin called `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static Kind> {
    ALL.iter().find(|kind| kind.name == name).copied()
}

/// Whether this release can run the plugin called `name`.
#[must_use]
pub fn is_known(name: &str) -> bool {
    find(name).is_some()
}

/// Everything wrong with `config` as the configuration of the plugin called `name` on a service, route, global rule or
/// consumer, each with its JSON path in `config`.
#[must_use]
pub fn validate(name: &str, config: &Value) -> Violations {
    let Some(kind) = find(name) else {
        return Violations::one("", format!("unknown plugin `{name}`"));
    };
    if secrets::are_in(config) {
        return secrets::around_references(config, &schemas(kind).config.violations(config));
    }
    let (shared, outbound) = (shared::Shared::default(), outbound::refusing());
    let protos = protos::Protos::default();
    let site = Site { metadata: None, shared: &shared, outbound: &outbound, protos: &protos, owner: "" };
    chain::Instance::build(kind, config, &site).err().unwrap_or_default()
}

/// Everything wrong with `config` as a credential of a consumer for the plugin called `name`.
#[must_use]
pub fn validate_credential(name: &str, config: &Value) -> Violations {
    match find(name) {
        Some(kind) => consumers::violations(kind, schemas(kind), config),
        None => Violations::one("", format!("unknown plugin `{name}`")),
    }
}

/// Everything wrong with `config` as it stands in the plugins of a consumer: a credential, or a plugin of its own.
#[must_use]
pub fn validate_for_consumer(name: &str, config: &Value) -> Violations {
    match find(name) {
        Some(kind) if consumers::is_credential(kind, config) => validate_credential(name, config),
        _ => validate(name, config),
    }
}

/// Everything wrong with `settings` as the metadata of the plugin called `name`.
#[must_use]
pub fn validate_metadata(name: &str, settings: &Value) -> Violations {
    let Some(kind) = find(name) else {
        return Violations::one("", format!("unknown plugin `{name}`"));
    };
    match &schemas(kind).metadata {
        Some(schema) => schema.violations(settings),
        None => Violations::one("", format!("plugin `{name}` has no metadata")),
    }
}

fn schemas(kind: &Kind) -> &'static Schemas {
    static COMPILED: LazyLock<HashMap<&'static str, Schemas>> =
        LazyLock::new(|| ALL.iter().map(|kind| (kind.name, Schemas::of(kind))).collect());
    match COMPILED.get(kind.name) {
        Some(schemas) => schemas,
        None => unreachable!("plugin {} is not listed in ALL", kind.name),
    }
}

#[cfg(test)]
mod tests;
