//! HTTP message heads as one buffer and an ordered list of slices, with edits recorded on it.
//!
//! A head is forwarded by editing bytes, not by rebuilding a map: the received bytes are copied once, every field
//! is a pair of slices into them, and text that the gateway adds is appended to the same buffer. Order, spelling
//! and repetition of what was received survive. The same type serves HTTP/1 and HTTP/2, and it is what the router
//! and plugins read and change.
//!
//! Buffers are reused: [`Fields::clear`] keeps the allocations.

mod fields;
mod head;
mod variables;

pub use fields::{Field, Fields, Known, Span};
pub use head::{Method, RequestHead, ResponseHead, Version};
pub use variables::{decoded, variable};
