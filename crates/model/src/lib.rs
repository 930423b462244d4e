//! The language of Gatewright: what things are called, what they contain, and whether they are valid.
//!
//! Everything here is pure: no clock, no I/O, no runtime. Both planes and every command speak in these types, and
//! the two planes meet nowhere else: the control plane puts a [`snapshot`] on the wire in the words of
//! [`protocol`], and the gateway takes it from there.
//!
//! * [`id`], [`limits`]: names of things, and how large they may get.
//! * [`resource`]: what people design: services, routes, upstreams, gateway groups.
//! * [`validation`]: JSON in, every violation at once out.
//! * [`lifecycle`]: template, version, published service, and what a publish does to them.
//! * [`snapshot`], [`protocol`], [`digest`]: what travels to gateways, and how both ends know that it arrived.
//! * [`target`], [`matching`], [`path_pattern`], [`expression`]: what a matching rule means.
//! * [`rehearsal`]: what would become of a request, without sending it.
//! * [`rollout`]: a version on its way into a group, and whether it is worse than the one before.
//! * [`sample`]: what is kept of requests that came.
//! * [`stream`]: what stream routes claim, and the ports they are served at.
//! * [`conflict`]: which routes get in each other's way.
//! * [`diff`]: what differs between two states of a service.
//! * [`openapi`]: what of a service an OpenAPI document can say, and the other way round.
//! * [`message`]: HTTP message heads as bytes and slices, as router and plugins see them.

pub mod id;
pub mod limits;
pub mod validation;

pub mod resource;

pub mod lifecycle;

pub mod digest;
pub mod protocol;
pub mod snapshot;

pub mod message;

pub mod conflict;
pub mod diff;
pub mod expression;
pub mod matching;
pub mod openapi;
pub mod path_pattern;
pub mod rehearsal;
pub mod rollout;
pub mod sample;
pub mod stream;
pub mod target;
