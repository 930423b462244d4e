//! The admin API, noun by noun.

mod access;
<<<<<<< HEAD
mod conflict_check;
mod explain;
=======
mod audit_log;
>>>>>>> 8fc1391 (control-plane: test users, sessions, tokens, audit log and dry runs)
mod gateway_group;
mod openapi;
mod published_service;
mod route_template;
mod runtime_configuration;
mod service_publish;
mod service_template;
<<<<<<< HEAD
mod variable;
=======
mod session;
>>>>>>> 8fc1391 (control-plane: test users, sessions, tokens, audit log and dry runs)
