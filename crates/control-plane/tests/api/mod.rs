//! The admin API, noun by noun.

mod access;
mod audit_log;
mod conflict_check;
mod explain;
mod gateway_group;
mod openapi;
mod published_service;
mod route_template;
mod runtime_configuration;
mod service_publish;
mod service_template;
mod session;
mod variable;
