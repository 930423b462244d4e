//! OpenAPI documents and services: what of one can be said in the words of the other.
//!
//! * [`Document`] is a text that was read within limits; [`import`] makes a service of it, [`Import::over`] lays that
//!   over a template that exists, and [`export`] writes a service as a document.
//! * Nothing is dropped in silence: whatever has no place on the other side becomes a [`Note`]. Notes of one kind are
//!   one note with a count, so that a long document has a short list.
//! * An operation is a route, and its operation id the route's name: that is how a document that is imported again
//!   finds the routes it has made.
//! * What a document demands of callers becomes a [`Suggestion`]; whether it is followed is for people to say, because
//!   a document seldom says enough to configure a plugin.

mod document;
mod export;
mod import;
mod notes;
mod over;
mod path;
mod security;
mod server;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::resource::route::Route;
use crate::resource::service::ServiceTemplate;

pub use document::{Document, DocumentError};
pub use export::{Exported, Facts, Server, export};
pub use import::import;
pub use over::Overlaid;

/// The extension with the plugins of a document, a path or an operation.
pub const PLUGINS_EXTENSION: &str = "x-gatewright-plugins";

/// What the value of a label is whose key is a tag.
pub const TAG: &str = "tag";

/// A service as a document describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Import {
    /// The service.
    pub service: ServiceTemplate,
    /// Its routes, one for each operation, in the order of the document.
    pub routes: Vec<Route>,
    /// The plugins that what the document demands of callers would need.
    pub suggestions: Vec<Suggestion>,
    /// What has no place in a service, or not the same.
    pub notes: Vec<Note>,
}

/// A plugin that would see to what a document demands of callers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Suggestion {
    /// The plugin.
    pub plugin: String,
    /// Its configuration, as far as the document says it.
    #[schema(value_type = Object)]
    pub config: Value,
    /// What the configuration still needs, which no document says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub missing: Vec<String>,
    /// The routes it is for, by name; none: all of the service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub routes: Vec<String>,
    /// The security schemes of the document it stands for.
    pub schemes: Vec<String>,
}

/// Something that is not the same on the other side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Note {
    /// What became of it.
    pub kind: NoteKind,
    /// Where it stands first, as a JSON pointer into the document; of an export, into the service.
    pub place: String,
    /// What it is and why.
    pub message: String,
    /// In how many places it stands.
    pub count: usize,
}

/// What became of something that has no equal on the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoteKind {
    /// Requests are concerned, and it is missing.
    Skipped,
    /// It is there, but not quite as it was written.
    Adapted,
    /// It says nothing to the other side.
    Unused,
}

impl Import {
    /// Configures every suggested plugin that the document says enough about, unless it is configured already.
    pub fn follow_suggestions(&mut self) {
        for suggestion in self.suggestions.iter().filter(|suggestion| suggestion.missing.is_empty()) {
            let Suggestion { plugin, config, routes, .. } = suggestion;
            let add = |plugins: &mut crate::resource::Plugins| {
                plugins.entry(plugin.clone()).or_insert_with(|| config.clone());
            };
            if routes.is_empty() {
                add(&mut self.service.plugins);
            }
            self.routes
                .iter_mut()
                .filter(|route| routes.contains(&route.name))
                .for_each(|route| add(&mut route.plugins));
        }
    }
}

/// The operations a path can have in a document, in the order documents are written.
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// One part of a JSON pointer.
fn escaped(part: &str) -> String {
    part.replace('~', "~0").replace('/', "~1")
}
