//! Nacos: the healthy instances of a service, asked for again and again.
//!
//! A service has a namespace and a group. Whoever asks is let in by user name and password, which become a token that
//! runs out, by a token, or by a signature of what is asked for.

mod interface;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gatewright_model::resource::service_registry::{NacosAuth, NacosConfig, Wanted};
use gatewright_model::resource::upstream::Node;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use sha1::Sha1;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::browse::{Found, Place};
use crate::http::{Ask, Http};
use crate::{Outside, Registry, Trouble, Waiting, Watch, has_metadata};
use interface::{Catalog, CatalogEntry, Instance, Interface, Listed, Login, Namespaces};

/// What Nacos calls them where nobody says otherwise.
const NAMESPACE_DEFAULT: &str = "public";
const GROUP_DEFAULT: &str = "DEFAULT_GROUP";

/// The parameter that carries a token.
const TOKEN: &str = "accessToken";

/// How long a token of a login is used that does not say how long it holds.
const TOKEN_SECONDS_DEFAULT: u64 = 18_000;

/// What a weight of 1, which Nacos gives instances that say nothing, is here.
const WEIGHT_ONE: f64 = 100.0;

/// Services listed at a time, and at most.
const PAGE_SIZE: usize = 500;
const PAGES_MAX: usize = 40;

/// A Nacos.
pub(crate) struct Nacos {
    http: Http,
    interface: Interface,
    config: NacosConfig,
    /// What the last login gave, and how long it holds.
    token: Mutex<Option<(String, Instant)>>,
}

/// Which service of which group and namespace.
#[derive(Clone)]
struct Name {
    namespace: Option<String>,
    group: String,
    service: String,
}

impl Nacos {
    pub(crate) fn new(config: &NacosConfig, outside: &Outside) -> Result<Self, Trouble> {
        let tls = (outside.tls)(true).map_err(Trouble::new)?;
        let http = Http::new(&config.hosts, &config.prefix, config.timeout.connect.duration(), tls, outside)?;
        let interface = Interface::of(&config.prefix);
        Ok(Self { http, interface, config: config.clone(), token: Mutex::default() })
    }

    fn within(&self) -> Duration {
        let timeout = self.config.timeout;
        timeout.connect.duration() + timeout.send.duration() + timeout.read.duration()
    }

    fn get(&self, path: &'static [&'static str]) -> Ask<'static> {
        Ask::get(path.iter().copied(), self.within())
    }

    fn auth(&self) -> Option<&NacosAuth> {
        self.config.auth.as_ref()
    }

    /// Asks as one who may; once more with a fresh token, if the one there was is not believed any more.
    async fn ask<T: DeserializeOwned>(
        &self,
        ask: impl Fn() -> Ask<'static>,
        signed: &str,
    ) -> Result<T, Trouble> {
        let asked = self.authorised(ask(), signed, None).await?;
        let first = self.http.ask(&asked).await?;
        let is_refused = matches!(first.status, StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED);
        let has_login = self.auth().is_some_and(|auth| auth.username.is_some());
        if !is_refused || !has_login {
            return first.json();
        }
        let refused = asked.query.iter().find(|(name, _)| *name == TOKEN).map(|(_, token)| token.as_str());
        self.http.ask(&self.authorised(ask(), signed, refused).await?).await?.json()
    }

    async fn authorised(
        &self,
        ask: Ask<'static>,
        signed: &str,
        refused: Option<&str>,
    ) -> Result<Ask<'static>, Trouble> {
        let Some(auth) = self.auth() else { return Ok(ask) };
        if let Some(token) = &auth.token {
            return Ok(ask.with(TOKEN, token));
        }
        if let (Some(access_key), Some(secret_key)) = (&auth.access_key, &auth.secret_key) {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let mut data = now.as_millis().to_string();
            // Where no service is asked for, the time is all there is to sign.
            if !signed.is_empty() {
                data = format!("{data}@@{signed}");
            }
            let signature = signature(secret_key, &data)?;
            return Ok(ask.with("ak", access_key).with("data", data).with("signature", signature));
        }
        if let (Some(username), Some(password)) = (&auth.username, &auth.password) {
            let mut token = self.token.lock().await;
            let is_good = |(known, until): &&(String, Instant)| {
                refused != Some(known.as_str()) && *until > Instant::now()
            };
            if let Some((known, _)) = token.as_ref().filter(is_good) {
                return Ok(ask.with(TOKEN, known));
            }
            let (fresh, seconds) = self.log_in(username, password).await?;
            // Renewed in time: half of it is enough for any clock.
            *token = Some((fresh.clone(), Instant::now() + Duration::from_secs(seconds / 2)));
            return Ok(ask.with(TOKEN, fresh));
        }
        Ok(ask)
    }

    async fn log_in(&self, username: &str, password: &str) -> Result<(String, u64), Trouble> {
        let mut ask = self.get(self.interface.login());
        ask.method = Method::POST;
        ask.form = vec![("username", username), ("password", password)];
        let login: Login = self
            .http
            .ask(&ask)
            .await?
            .json()
            .map_err(|trouble| Trouble::new(format!("cannot log in: {trouble}")))?;
        Ok((login.access_token, login.token_ttl.unwrap_or(TOKEN_SECONDS_DEFAULT)))
    }

    async fn instances(&self, name: &Name) -> Result<Vec<Instance>, Trouble> {
        let signed = format!("{}@@{}", name.group, name.service);
        let (service, group, namespace) = (name.service.clone(), name.group.clone(), name.namespace.clone());
        let ask = || {
            let ask = self.get(self.interface.instances());
            let ask = ask.with("serviceName", &service).with("groupName", &group).with("healthyOnly", "true");
            match &namespace {
                Some(namespace) => ask.with("namespaceId", namespace),
                None => ask,
            }
        };
        let listed: Listed = self.ask(ask, &signed).await?;
        Ok(listed.hosts)
    }

    /// The services of a namespace with their groups.
    async fn catalog(&self, namespace: &str) -> Result<Vec<CatalogEntry>, Trouble> {
        let mut entries = Vec::new();
        for page in 1..=PAGES_MAX {
            let ask = || {
                let ask = self.get(self.interface.services());
                let ask = ask.with("withInstances", "false").with("namespaceId", namespace);
                ask.with("pageNo", page.to_string()).with("pageSize", PAGE_SIZE.to_string())
            };
            let catalog: Catalog = self.ask(ask, "").await?;
            let page = catalog.services();
            let count = page.len();
            entries.extend(page);
            if count < PAGE_SIZE {
                break;
            }
        }
        Ok(entries)
    }

    async fn look(&self, place: &Place) -> Result<Found, Trouble> {
        match place {
            Place::Namespaces => {
                let ask = || self.get(self.interface.namespaces());
                let found: Namespaces = self.ask(ask, "").await?;
                // Nacos knows the first one by no id at all.
                let id = |id: String| if id.is_empty() { NAMESPACE_DEFAULT.to_owned() } else { id };
                let pairs = found.data.into_iter().map(|one| (id(one.namespace), one.namespace_show_name));
                Ok(Found::Namespaces(pairs.collect()))
            }
            Place::Groups { namespace } => {
                let entries = self.catalog(namespace).await?;
                Ok(Found::Names(entries.into_iter().map(|entry| entry.group_name).collect()))
            }
            Place::GroupServices { namespace, group } => {
                let entries = self.catalog(namespace).await?;
                let of_group = entries.into_iter().filter(|entry| entry.group_name == *group);
                Ok(Found::Names(of_group.map(|entry| entry.name).collect()))
            }
            Place::Metadata { namespace, group, service } => {
                let (group, service) = (group.clone(), service.clone());
                let name = Name { namespace: Some(namespace.clone()), group, service };
                let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
                for (key, value) in self.instances(&name).await?.into_iter().flat_map(|one| one.metadata) {
                    found.entry(key).or_default().insert(value);
                }
                Ok(Found::Metadata(found))
            }
            Place::Services => Err(Trouble::new(format!("there is no {place} in a Nacos but by group"))),
        }
    }
}

fn signature(secret_key: &str, data: &str) -> Result<String, Trouble> {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret_key.as_bytes())
        .map_err(|_| Trouble::new("the secret key cannot sign anything"))?;
    mac.update(data.as_bytes());
    Ok(STANDARD.encode(mac.finalize().into_bytes()))
}

impl Registry for Nacos {
    fn watch(self: Arc<Self>, wanted: &Wanted) -> Result<Box<dyn Watch>, Trouble> {
        let parts: Vec<&str> = wanted.split().1.split('/').collect();
        let (namespace, group, service) = match parts[..] {
            [service] => (wanted.namespace.clone(), wanted.group.clone(), service),
            [namespace, group, service] => (Some(namespace.to_owned()), Some(group.to_owned()), service),
            _ => return Err(Trouble::new("the name is not `service` or `namespace/group/service`")),
        };
        if service.is_empty() {
            return Err(Trouble::new("the name of the service is empty"));
        }
        let group = group.unwrap_or_else(|| GROUP_DEFAULT.to_owned());
        let name = Name { namespace, group, service: service.to_owned() };
        Ok(Box::new(Service { nacos: self, name, metadata: wanted.metadata.clone(), until: None }))
    }

    fn probe(&self) -> Waiting<'_, Result<(), Trouble>> {
        Box::pin(async move {
            let name = Name {
                namespace: None,
                group: GROUP_DEFAULT.to_owned(),
                service: "gatewright-probe".to_owned(),
            };
            self.instances(&name).await.map(drop)
        })
    }

    fn browse<'b>(&'b self, place: &'b Place) -> Waiting<'b, Result<Found, Trouble>> {
        Box::pin(self.look(place))
    }
}

/// One service of a Nacos.
struct Service {
    nacos: Arc<Nacos>,
    name: Name,
    metadata: Vec<(String, Vec<String>)>,
    /// When it is asked for again.
    until: Option<Instant>,
}

impl Watch for Service {
    fn next(&mut self) -> Waiting<'_, Result<Vec<Node>, Trouble>> {
        Box::pin(async move {
            if let Some(until) = self.until {
                tokio::time::sleep_until(until).await;
                self.until = None;
            }
            let instances = self.nacos.instances(&self.name).await?;
            let interval = Duration::from_secs(self.nacos.config.fetch_interval.into());
            self.until = Some(Instant::now() + interval);
            let weight = self.nacos.config.default_weight;
            let wanted = |instance: &Instance| {
                let value = |name: &str| instance.metadata.get(name).map(String::as_str);
                instance.enabled && instance.healthy && has_metadata(&self.metadata, value)
            };
            Ok(instances.into_iter().filter(wanted).map(|instance| instance.node(weight)).collect())
        })
    }
}

impl Instance {
    fn node(self, weight: u16) -> Node {
        // Nacos counts in fractions; a weight is a share, so a hundred times as much is the same.
        let weight = self.weight.map_or(f64::from(weight), |weight| (weight * WEIGHT_ONE).round());
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "within the bounds just set"
        )]
        let weight = weight.clamp(0.0, f64::from(u16::MAX)) as u16;
        Node { host: self.ip, port: self.port, weight, priority: 0 }
    }
}

#[cfg(test)]
mod scripted;
#[cfg(test)]
mod tests;
