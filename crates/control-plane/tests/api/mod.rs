//! The admin API, noun by noun.

mod access;
pub(crate) mod audit_log;
pub(crate) mod canary;
pub(crate) mod certificate;
pub(crate) mod conditions;
mod conflict_check;
pub(crate) mod direct;
mod explain;
mod facts;
pub(crate) mod gateway_group;
pub(crate) mod instance;
mod openapi;
mod operations;
pub(crate) mod published_service;
pub(crate) mod refusals;
pub(crate) mod route_template;
pub(crate) mod runtime_configuration;
mod secrets;
pub(crate) mod service_diff;
pub(crate) mod service_import;
pub(crate) mod service_publish;
pub(crate) mod service_sync;
pub(crate) mod service_template;
mod session;
pub(crate) mod stream_route_template;
mod user;
mod variable;
