//! Keeps the nodes of a named service current and browses service registries: extension point 2, one file per
//! kind of registry.
//!
//! No registry is supported yet; an upstream that asks for service discovery has no nodes and answers 503.
