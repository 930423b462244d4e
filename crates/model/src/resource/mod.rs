//! What people design, field by field as the published API spells it.
//!
//! A type here is the writable content of an object. What the system adds (ids, times, states) belongs to
//! [`crate::lifecycle`] and to the views of the admin API.
//! Field documentation and limits are the user reference: the JSON Schema that validates a request, the OpenAPI
//! document and `/api/schema/core` are all generated from these declarations.

pub mod as_sent;
pub mod certificate;
pub mod checks;
pub mod consumer;
pub mod gateway_group;
pub mod global_rule;
pub mod group_object;
pub mod plugin_metadata;
pub mod proto;
pub mod route;
pub mod secret_provider;
pub mod service;
pub mod service_registry;
pub mod sni;
pub mod ssl;
pub mod stream_route;
pub mod upstream;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

pub use as_sent::{AsSent, Verbatim};

/// Key/value pairs for filtering; they mean nothing to traffic.
pub type Labels = BTreeMap<String, String>;

/// Plugin name to that plugin's configuration, stored as it was written.
pub type Plugins = Map<String, Value>;
