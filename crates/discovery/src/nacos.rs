//! Nacos: the healthy instances of a service, asked for again and again.
//!
//! A service has a namespace and a group. Whoever asks is let in by user name and password, which become a token that
//! runs out, by a token, or by a signature of what is asked for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gatewright_model::resource::service_registry::{NacosAuth, NacosConfig, Wanted};
use gatewright_model::resource::upstream::Node;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha1::Sha1;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::browse::{Found, Place};
use crate::http::{Ask, Http};
use crate::{Outside, Registry, Trouble, Waiting, Watch, has_metadata};

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
        Ok(Self { http, config: config.clone(), token: Mutex::default() })
    }

    fn within(&self) -> Duration {
        let timeout = self.config.timeout;
        timeout.connect.duration() + timeout.send.duration() + timeout.read.duration()
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
            let data = format!("{}@@{signed}", now.as_millis());
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
        let mut ask = Ask::get(["auth", "login"], self.within());
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
            let ask = Ask::get(["ns", "instance", "list"], self.within());
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
                let ask = Ask::get(["ns", "catalog", "services"], self.within());
                let ask = ask.with("withInstances", "false").with("namespaceId", namespace);
                ask.with("pageNo", page.to_string()).with("pageSize", PAGE_SIZE.to_string())
            };
            let catalog: Catalog = self.ask(ask, "").await?;
            let count = catalog.service_list.len();
            entries.extend(catalog.service_list);
            if count < PAGE_SIZE {
                break;
            }
        }
        Ok(entries)
    }

    async fn look(&self, place: &Place) -> Result<Found, Trouble> {
        match place {
            Place::Namespaces => {
                let ask = || Ask::get(["console", "namespaces"], self.within());
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

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Login {
    access_token: String,
    token_ttl: Option<u64>,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    hosts: Vec<Instance>,
}

#[derive(Deserialize)]
struct Instance {
    ip: String,
    port: u16,
    weight: Option<f64>,
    #[serde(default = "yes")]
    healthy: bool,
    #[serde(default = "yes")]
    enabled: bool,
    #[serde(default)]
    metadata: HashMap<String, String>,
}

const fn yes() -> bool {
    true
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

#[derive(Deserialize)]
struct Namespaces {
    data: Vec<Namespace>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Namespace {
    namespace: String,
    namespace_show_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Catalog {
    #[serde(default)]
    service_list: Vec<CatalogEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CatalogEntry {
    name: String,
    group_name: String,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::signature;
    use crate::browse::{Found, Place};
    use crate::testing::{Exchange, Peer, hosts, registry, watch, watch_with};

    fn config(peer: &Peer, auth: Value) -> Value {
        let mut config = json!({"hosts": [peer.url()], "fetch_interval": 1});
        if !auth.is_null() {
            config["auth"] = auth;
        }
        json!({"name": "n", "type": "nacos", "nacos_config": config})
    }

    fn instance(ip: &str, more: Value) -> Value {
        let mut instance =
            json!({"ip": ip, "port": 80, "weight": 1.0, "healthy": true, "enabled": true, "metadata": {}});
        more.as_object().unwrap().iter().for_each(|(name, value)| instance[name] = value.clone());
        instance
    }

    fn listed(instances: &[Value]) -> Exchange {
        Exchange::json(200, &json!({"name": "DEFAULT_GROUP@@web", "hosts": instances}))
    }

    #[tokio::test]
    async fn healthy_instances_with_the_metadata_that_is_wanted_are_nodes() {
        let instances = [
            instance("10.0.0.1", json!({"metadata": {"idc": "beijing"}})),
            instance("10.0.0.2", json!({"metadata": {"idc": "shanghai"}})),
            instance("10.0.0.3", json!({"metadata": {"idc": "beijing"}, "healthy": false})),
            instance("10.0.0.4", json!({"metadata": {"idc": "beijing"}, "enabled": false})),
            instance("10.0.0.5", json!({"metadata": {"idc": "beijing"}, "weight": 0.25})),
            instance("10.0.0.6", json!({"metadata": {"idc": "beijing"}, "weight": null})),
        ];
        let peer = Peer::start(vec![listed(&instances), listed(&[])]).await;
        let args = json!({"metadata": {"idc": "beijing"}});
        let config = config(&peer, Value::Null);
        let mut service = watch_with(&config, "one/space/blue/web", args).unwrap();
        assert_eq!(hosts(service.next().await), ["10.0.0.1:80 100", "10.0.0.5:80 25", "10.0.0.6:80 100"]);
        assert_eq!(hosts(service.next().await), [""; 0], "asked again after a second");
        let path = "/nacos/v1/ns/instance/list";
        let query = "serviceName=web&groupName=blue&healthyOnly=true&namespaceId=space";
        assert_eq!(peer.asked()[1].line, format!("GET {path}?{query}"));
        let args = json!({"namespace_id": "n", "group_name": "g"});
        let mut service = watch_with(&config, "web", args).unwrap();
        tokio::select! { _ = service.next() => {}, () = asked(&peer, 3) => {} }
        assert!(peer.asked()[2].line.ends_with("serviceName=web&groupName=g&healthyOnly=true&namespaceId=n"));
        assert!(watch(&config, "a/b/c/d/e").is_err());
    }

    /// Until a peer was asked so often.
    async fn asked(peer: &Peer, count: usize) {
        while peer.asked().len() < count {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_login_becomes_a_token_which_is_renewed_when_it_is_not_believed_any_more() {
        let login = |token: &str| Exchange::json(200, &json!({"accessToken": token, "tokenTtl": 18000}));
        let peer = Peer::start(vec![
            login("t1"),
            listed(&[instance("10.0.0.1", json!({}))]),
            Exchange::text(403, "token expired!"),
            login("t2"),
            listed(&[]),
            Exchange::text(500, "caused: server is DOWN now"),
        ])
        .await;
        let mut service = watch(&config(&peer, json!({"username": "u", "password": "p&w"})), "web").unwrap();
        assert_eq!(hosts(service.next().await), ["10.0.0.1:80 100"]);
        assert_eq!(hosts(service.next().await), [""; 0]);
        assert!(service.next().await.unwrap_err().to_string().contains("server is DOWN"));
        let asked = peer.asked();
        assert_eq!(
            (asked[0].line.as_str(), asked[0].body.as_str()),
            ("POST /nacos/v1/auth/login", "username=u&password=p%26w")
        );
        for (at, token) in [(1, "t1"), (2, "t1"), (4, "t2"), (5, "t2")] {
            assert!(asked[at].line.ends_with(&format!("&accessToken={token}")), "{}", asked[at].line);
        }
    }

    #[tokio::test]
    async fn what_is_asked_for_is_signed_where_keys_say_so() {
        let peer = Peer::start(vec![listed(&[])]).await;
        let auth = json!({"access_key": "ak", "secret_key": "sk"});
        watch(&config(&peer, auth), "web").unwrap().next().await.unwrap();
        let url = reqwest::Url::parse(&format!("http://n{}", &peer.asked()[0].line[4..])).unwrap();
        let value = |name: &str| url.query_pairs().find(|(known, _)| known == name).unwrap().1.into_owned();
        assert!(value("data").ends_with("@@DEFAULT_GROUP@@web"));
        assert_eq!(
            (value("ak"), value("signature")),
            ("ak".to_owned(), signature("sk", &value("data")).unwrap())
        );
        assert_eq!(
            signature("key", "The quick brown fox jumps over the lazy dog").unwrap(),
            "3nybhbi3iqa8ino29wqQcBydtNk="
        );
    }

    #[tokio::test]
    async fn namespaces_groups_services_and_metadata_can_be_looked_at() {
        let namespaces = json!({"code": 200, "data": [
            {"namespace": "", "namespaceShowName": "public"}, {"namespace": "dev", "namespaceShowName": "Development"}]});
        let entry = |name: &str, group: &str| json!({"name": name, "groupName": group, "ipCount": 1});
        let catalog = json!({"count": 3, "serviceList": [entry("a", "G"), entry("b", "G"), entry("c", "H")]});
        let metadata = [
            instance("1", json!({"metadata": {"idc": "x"}})),
            instance("2", json!({"metadata": {"idc": "y"}})),
        ];
        let catalog = Exchange::json(200, &catalog);
        let peer =
            Peer::start(vec![Exchange::json(200, &namespaces), catalog.clone(), catalog, listed(&metadata)])
                .await;
        let nacos = registry(&config(&peer, Value::Null)).unwrap();
        let (namespace, group, service) = ("dev".to_owned(), "G".to_owned(), "a".to_owned());
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let pairs = [("public", "public"), ("dev", "Development")];
        let pairs = pairs.map(|(id, name)| (id.to_owned(), name.to_owned())).to_vec();
        for (place, expected) in [
            (Place::Namespaces, Found::Namespaces(pairs)),
            (Place::Groups { namespace: namespace.clone() }, Found::Names(names(&["G", "H"]))),
            (
                Place::GroupServices { namespace: namespace.clone(), group: group.clone() },
                Found::Names(names(&["a", "b"])),
            ),
            (
                Place::Metadata { namespace, group, service },
                Found::Metadata([("idc".to_owned(), names(&["x", "y"]))].into()),
            ),
        ] {
            assert_eq!(nacos.browse(&place).await.unwrap(), expected);
        }
    }
}
