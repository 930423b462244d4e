//! Which routes get in each other's way.
