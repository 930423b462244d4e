//! Services at layer 4: what a stream route claims, where gateways may listen for streams, and what of a service means
//! nothing to them.
//!
//! Both planes ask here, so that what a control plane accepts is what a gateway serves.
//!
//! * [`claim`]: the connections a stream route takes, and which of two comes first.
//! * [`ports`]: the ports a gateway may open.
//! * [`check`]: what a service of one type must not say.

pub mod check;
pub mod claim;
pub mod ports;
