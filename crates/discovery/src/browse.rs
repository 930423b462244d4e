//! What there is in a registry, for those who choose from it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A place that can be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// All services, by namespace.
    Services,
    /// The namespaces.
    Namespaces,
    /// The groups of a namespace.
    Groups {
        /// The namespace.
        namespace: String,
    },
    /// The services of a group.
    GroupServices {
        /// The namespace.
        namespace: String,
        /// The group.
        group: String,
    },
    /// The metadata of the instances of a service.
    Metadata {
        /// The namespace.
        namespace: String,
        /// The group.
        group: String,
        /// The service.
        service: String,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Services | Self::GroupServices { .. } => "list of services",
            Self::Namespaces => "list of namespaces",
            Self::Groups { .. } => "list of groups",
            Self::Metadata { .. } => "metadata of instances",
        })
    }
}

/// What there was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The names of services, by namespace.
    Services(BTreeMap<String, BTreeSet<String>>),
    /// Namespaces: their ids and what they are called.
    Namespaces(Vec<(String, String)>),
    /// Names.
    Names(BTreeSet<String>),
    /// The values of each name of metadata.
    Metadata(BTreeMap<String, BTreeSet<String>>),
}
