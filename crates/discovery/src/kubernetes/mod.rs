//! Kubernetes: the endpoint slices of a service, listed once and then watched.
//!
//! A watch goes on from the version that the list ended at. One whose version has expired (410) starts with another
//! list; the nodes before stay until it is complete. Several clusters are several registries.
//!
//! * `access`: where the API server is and what it is shown.

mod access;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use gatewright_model::resource::service_registry::{KubernetesConfig, NamespaceSelector, Wanted};
use gatewright_model::resource::upstream::Node;
use regex::Regex;
use reqwest::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::browse::{Found, Place};
use crate::http::{Ask, Http, Lines};
use crate::{Outside, Registry, Trouble, Waiting, Watch};
use access::Access;

/// Time limits of one question.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_secs(15);

/// How long the server is asked to keep a watch open, and how long it may say nothing; it sends bookmarks in between.
const WATCH_SECONDS: u64 = 240;
const SILENCE_MAX: Duration = Duration::from_secs(300);

/// The shortest life of a watch: a server that ends them at once is not asked at once.
const WATCH_TIME_MIN: Duration = Duration::from_millis(250);

/// Objects listed at a time, and at most.
const PAGE_SIZE: usize = 500;
const PAGES_MAX: usize = 200;

/// The label by which a slice belongs to its service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// A cluster.
pub(crate) struct Kubernetes {
    http: Http,
    access: Access,
    namespaces: Namespaces,
    label_selector: String,
    weight: u16,
}

impl Kubernetes {
    pub(crate) fn new(config: &KubernetesConfig, outside: &Outside) -> Result<Self, Trouble> {
        let access = Access::of(config, outside)?;
        let servers = [access.server.clone()];
        let http = Http::new(&servers, "", CONNECT_TIMEOUT, access.tls.clone(), outside)?;
        let namespaces = config.namespace_selector.as_ref().map(Namespaces::of).transpose()?;
        Ok(Self {
            http,
            access,
            namespaces: namespaces.unwrap_or(Namespaces::All),
            label_selector: config.label_selector.clone(),
            weight: config.default_weight,
        })
    }

    async fn authorised<'a>(&self, ask: Ask<'a>) -> Result<Ask<'a>, Trouble> {
        Ok(match self.access.token().await? {
            Some(token) => ask.field("authorization", format!("Bearer {token}")),
            None => ask,
        })
    }

    /// Everything that is listed there, and the version of that.
    async fn list<T: DeserializeOwned>(
        &self,
        path: &[&str],
        selector: &str,
    ) -> Result<(Vec<T>, String), Trouble> {
        let (mut items, mut going_on) = (Vec::new(), String::new());
        for _ in 0..PAGES_MAX {
            let ask = Ask::get(path.iter().copied(), CONNECT_TIMEOUT + READ_TIMEOUT);
            let mut ask = ask.with("limit", PAGE_SIZE.to_string());
            for (name, value) in [("labelSelector", selector), ("continue", &going_on)] {
                if !value.is_empty() {
                    ask = ask.with(name, value);
                }
            }
            let page: List<T> = self.http.ask(&self.authorised(ask).await?).await?.json()?;
            items.extend(page.items);
            match page.metadata.going_on.filter(|going_on| !going_on.is_empty()) {
                Some(token) => going_on = token,
                None => return Ok((items, page.metadata.resource_version)),
            }
        }
        Err(Trouble::new(format!("the list has more than {PAGES_MAX} pages")))
    }

    async fn services(&self) -> Result<Found, Trouble> {
        let (services, _) = self.list::<Object>(&["api", "v1", "services"], "").await?;
        let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for Object { metadata } in services {
            if self.namespaces.contain(&metadata.namespace) {
                found.entry(metadata.namespace).or_default().insert(metadata.name);
            }
        }
        Ok(Found::Services(found))
    }
}

impl Registry for Kubernetes {
    fn watch(self: Arc<Self>, wanted: &Wanted) -> Result<Box<dyn Watch>, Trouble> {
        let text = wanted.split().1;
        let wrong = || Trouble::new(format!("`{text}` is not `namespace/service:port`"));
        let (namespace, rest) = text.split_once('/').ok_or_else(wrong)?;
        let (service, port) = match rest.split_once(':') {
            Some((service, port)) if !port.is_empty() => (service, Some(port.to_owned())),
            Some(_) => return Err(wrong()),
            None => (rest, None),
        };
        if namespace.is_empty() || service.is_empty() {
            return Err(wrong());
        }
        if !self.namespaces.contain(namespace) {
            return Err(Trouble::new(format!("namespace `{namespace}` is not among those of this registry")));
        }
        let mut selector = format!("{SERVICE_LABEL}={service}");
        if !self.label_selector.is_empty() {
            selector = format!("{selector},{}", self.label_selector);
        }
        Ok(Box::new(Service {
            cluster: self,
            namespace: namespace.to_owned(),
            selector,
            port,
            slices: BTreeMap::new(),
            version: None,
            lines: None,
            rest: None,
        }))
    }

    fn probe(&self) -> Waiting<'_, Result<(), Trouble>> {
        Box::pin(async move {
            let ask = self.authorised(Ask::get(["version"], CONNECT_TIMEOUT + READ_TIMEOUT)).await?;
            let answer = self.http.ask(&ask).await?;
            match answer.status.is_success() {
                true => Ok(()),
                false => Err(answer.refused()),
            }
        })
    }

    fn browse<'b>(&'b self, place: &'b Place) -> Waiting<'b, Result<Found, Trouble>> {
        Box::pin(async move {
            match place {
                Place::Services => self.services().await,
                _ => Err(Trouble::new(format!("there is no {place} in a Kubernetes"))),
            }
        })
    }
}

/// Which namespaces are looked at.
enum Namespaces {
    All,
    Only(String),
    Not(String),
    Matching(Vec<Regex>),
    NotMatching(Vec<Regex>),
}

impl Namespaces {
    fn of(selector: &NamespaceSelector) -> Result<Self, Trouble> {
        let patterns = |patterns: &[String]| {
            let pattern =
                |text: &String| Regex::new(text).map_err(|error| Trouble::new(format!("`{text}`: {error}")));
            patterns.iter().map(pattern).collect::<Result<Vec<_>, _>>()
        };
        Ok(match selector {
            NamespaceSelector { equal: Some(name), .. } => Self::Only(name.clone()),
            NamespaceSelector { not_equal: Some(name), .. } => Self::Not(name.clone()),
            NamespaceSelector { matching, .. } if !matching.is_empty() => Self::Matching(patterns(matching)?),
            NamespaceSelector { not_match, .. } => Self::NotMatching(patterns(not_match)?),
        })
    }

    fn contain(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(name) => name == namespace,
            Self::Not(name) => name != namespace,
            Self::Matching(patterns) => patterns.iter().any(|pattern| pattern.is_match(namespace)),
            Self::NotMatching(patterns) => !patterns.iter().any(|pattern| pattern.is_match(namespace)),
        }
    }
}

/// One service of a cluster.
struct Service {
    cluster: Arc<Kubernetes>,
    namespace: String,
    selector: String,
    /// Name or number; `None`: the first one.
    port: Option<String>,
    slices: BTreeMap<String, Slice>,
    /// What the slices are true at; `None`: they have to be listed.
    version: Option<String>,
    lines: Option<Lines>,
    /// Until when the server is left alone.
    rest: Option<Instant>,
}

/// What an event of a watch led to.
enum Event {
    Told,
    Expired,
}

impl Watch for Service {
    fn next(&mut self) -> Waiting<'_, Result<Vec<Node>, Trouble>> {
        Box::pin(async move {
            loop {
                let Some(lines) = &mut self.lines else {
                    if let Some(until) = self.rest.take() {
                        tokio::time::sleep_until(until).await;
                    }
                    self.begin().await?;
                    return Ok(self.nodes());
                };
                let line = lines.next(SILENCE_MAX).await;
                // Whatever it is, it is read once.
                match line.and_then(|line| line.map(|line| self.apply(&line)).transpose()) {
                    Ok(Some(Event::Told)) if self.lines.as_ref().is_some_and(Lines::has_more) => {}
                    Ok(Some(Event::Told)) => return Ok(self.nodes()),
                    Ok(Some(Event::Expired)) => (self.lines, self.version) = (None, None),
                    // The server ends watches now and then.
                    Ok(None) => self.lines = None,
                    Err(trouble) => {
                        self.lines = None;
                        return Err(trouble);
                    }
                }
            }
        })
    }
}

impl Service {
    fn path(&self) -> [&str; 6] {
        ["apis", "discovery.k8s.io", "v1", "namespaces", &self.namespace, "endpointslices"]
    }

    /// Begins to watch where the slices are true, after listing them if nobody knows where.
    async fn begin(&mut self) -> Result<(), Trouble> {
        self.rest = Some(Instant::now() + WATCH_TIME_MIN);
        let version = match &self.version {
            Some(version) => version.clone(),
            None => {
                let (slices, version) = self.cluster.list::<Slice>(&self.path(), &self.selector).await?;
                self.slices = slices.into_iter().map(|slice| (slice.metadata.name.clone(), slice)).collect();
                self.version = Some(version.clone());
                version
            }
        };
        let ask = Ask::get(self.path(), CONNECT_TIMEOUT + READ_TIMEOUT).with("watch", "true");
        let ask = ask.with("labelSelector", &self.selector).with("resourceVersion", &version);
        let ask = ask.with("allowWatchBookmarks", "true").with("timeoutSeconds", WATCH_SECONDS.to_string());
        let asked = self.cluster.authorised(ask).await?;
        let (status, lines) = self.cluster.http.lines(&asked).await?;
        match status {
            StatusCode::GONE => self.version = None,
            _ => self.lines = Some(lines),
        }
        Ok(())
    }

    fn apply(&mut self, line: &[u8]) -> Result<Event, Trouble> {
        let unreadable = |error| Trouble::new(format!("an event of the watch cannot be read: {error}"));
        let event: Change<'_> = serde_json::from_slice(line).map_err(unreadable)?;
        let object = event.object.get();
        if event.kind == "ERROR" {
            let Status { code, message } = serde_json::from_str(object).map_err(unreadable)?;
            return match code {
                410 => Ok(Event::Expired),
                _ => Err(Trouble::new(format!("the watch ended with {code}: {message}"))),
            };
        }
        if event.kind == "BOOKMARK" {
            let Versioned { metadata } = serde_json::from_str(object).map_err(unreadable)?;
            self.version = Some(metadata.resource_version);
            return Ok(Event::Told);
        }
        let Versioned { metadata } = serde_json::from_str(object).map_err(unreadable)?;
        let slice: Slice = serde_json::from_str(object).map_err(unreadable)?;
        self.version = Some(metadata.resource_version);
        match &*event.kind {
            "DELETED" => drop(self.slices.remove(&slice.metadata.name)),
            "ADDED" | "MODIFIED" => drop(self.slices.insert(slice.metadata.name.clone(), slice)),
            kind => return Err(Trouble::new(format!("the watch says `{kind}`, which nobody knows"))),
        }
        Ok(Event::Told)
    }

    fn nodes(&self) -> Vec<Node> {
        let weight = self.cluster.weight;
        let slices =
            self.slices.values().filter_map(|slice| Some((slice, slice.port(self.port.as_deref())?)));
        let nodes = slices.flat_map(|(slice, port)| {
            let ready =
                slice.endpoints.iter().flatten().filter(|endpoint| endpoint.conditions.ready != Some(false));
            let addresses = ready.flat_map(|endpoint| &endpoint.addresses);
            addresses.map(move |host| Node { host: host.clone(), port, weight, priority: 0 })
        });
        nodes.collect()
    }
}

#[derive(Deserialize)]
struct List<T> {
    metadata: ListMetadata,
    #[serde(default = "Vec::new")]
    items: Vec<T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMetadata {
    #[serde(default)]
    resource_version: String,
    #[serde(rename = "continue")]
    going_on: Option<String>,
}

#[derive(Deserialize)]
struct Change<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Versioned {
    metadata: ListMetadata,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
}

#[derive(Deserialize)]
struct Slice {
    metadata: Metadata,
    endpoints: Option<Vec<Endpoint>>,
    ports: Option<Vec<Port>>,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    conditions: Conditions,
}

#[derive(Default, Deserialize)]
struct Conditions {
    /// Absent: nobody knows otherwise.
    ready: Option<bool>,
}

#[derive(Deserialize)]
struct Port {
    name: Option<String>,
    port: Option<u16>,
}

impl Slice {
    /// The number of the port that is wanted by name or number.
    fn port(&self, wanted: Option<&str>) -> Option<u16> {
        let mut ports =
            self.ports.iter().flatten().filter_map(|port| Some((port.name.as_deref(), port.port?)));
        let found = match wanted {
            None => ports.next(),
            Some(wanted) => ports.find(|(name, port)| *name == Some(wanted) || port.to_string() == wanted),
        };
        found.map(|(_, port)| port)
    }
}

#[cfg(test)]
mod tests;
