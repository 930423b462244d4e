//! What version 1 and version 3 of the interface of Nacos call the same things, and how their answers are wrapped.
//!
//! Nacos 1 and 2 speak version 1, Nacos 3 speaks version 3 and, up to 3.1, version 1 beside it. The path in front of the
//! interface says which one is meant. Version 2 has no list of namespaces and services, and Nacos 2 speaks 1 as well.

use std::collections::HashMap;

use serde::Deserialize;

/// A version of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interface {
    One,
    Three,
}

impl Interface {
    /// The one below `prefix`.
    pub(super) fn of(prefix: &str) -> Self {
        let last = prefix.rsplit('/').find(|segment| !segment.is_empty());
        if last == Some("v3") { Self::Three } else { Self::One }
    }

    pub(super) fn login(self) -> &'static [&'static str] {
        match self {
            Self::One => &["auth", "login"],
            Self::Three => &["auth", "user", "login"],
        }
    }

    /// The instances of a service.
    pub(super) fn instances(self) -> &'static [&'static str] {
        match self {
            Self::One => &["ns", "instance", "list"],
            Self::Three => &["client", "ns", "instance", "list"],
        }
    }

    /// The services of a namespace with their groups.
    pub(super) fn services(self) -> &'static [&'static str] {
        match self {
            Self::One => &["ns", "catalog", "services"],
            Self::Three => &["admin", "ns", "service", "list"],
        }
    }

    pub(super) fn namespaces(self) -> &'static [&'static str] {
        match self {
            Self::One => &["console", "namespaces"],
            Self::Three => &["admin", "core", "namespace", "list"],
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Login {
    pub(super) access_token: String,
    pub(super) token_ttl: Option<u64>,
}

#[derive(Deserialize)]
pub(super) struct Listed {
    /// Always there, empty as well: without it this is another answer.
    #[serde(alias = "data")]
    pub(super) hosts: Vec<Instance>,
}

#[derive(Deserialize)]
pub(super) struct Instance {
    pub(super) ip: String,
    pub(super) port: u16,
    pub(super) weight: Option<f64>,
    #[serde(default = "yes")]
    pub(super) healthy: bool,
    #[serde(default = "yes")]
    pub(super) enabled: bool,
    #[serde(default)]
    pub(super) metadata: HashMap<String, String>,
}

const fn yes() -> bool {
    true
}

#[derive(Deserialize)]
pub(super) struct Namespaces {
    pub(super) data: Vec<Namespace>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Namespace {
    pub(super) namespace: String,
    pub(super) namespace_show_name: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Catalog {
    One {
        #[serde(rename = "serviceList")]
        services: Vec<CatalogEntry>,
    },
    Three {
        data: Page,
    },
}

impl Catalog {
    pub(super) fn services(self) -> Vec<CatalogEntry> {
        match self {
            Self::One { services } => services,
            Self::Three { data } => data.page_items,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page {
    page_items: Vec<CatalogEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CatalogEntry {
    pub(super) name: String,
    pub(super) group_name: String,
}
