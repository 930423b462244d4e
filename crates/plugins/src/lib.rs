//! What can be done to a request or a response: extension point 1, one file per plugin.
//!
//! There is no plugin yet; the trait and the first ones arrive together, so that the seam is shaped by what
//! plugins need.
//! A service or route that names a plugin is refused when it is published (see [`is_known`]): an unknown plugin
//! must never be skipped silently.

/// Whether this release can run the plugin called `name`.
#[must_use]
pub fn is_known(_name: &str) -> bool {
    false
}
