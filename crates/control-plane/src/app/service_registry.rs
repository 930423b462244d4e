//! Service registries of a gateway group: what is special about them beside being objects of the group.
//!
//! The secrets in a registry are masked in every answer, and put back where an answer is sent back. A registry is not
//! deleted while a service of the group finds its nodes there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gatewright_discovery::Outside;
use gatewright_discovery::browse::{Found, Place};
use gatewright_discovery::outside::CLOUD_METADATA;
use gatewright_model::id::{GatewayGroupId, ObjectId, ServiceId};
use gatewright_model::resource::service_registry::{RegistryKind, ServiceRegistry, Wanted};
use gatewright_model::validation::Violations;
use serde_json::Value;

use super::group_object::object_of;
use super::{Action, App, Caller, GroupObject, InstanceStatus, Object, Refusal, paged};
use crate::mask::MASK;
use crate::store::{
    Direction, ListFilter, Listed, ObjectKey, ObjectKind, PublishedServiceRow, Reading, RegistryCheckRow,
};

/// How long whoever browses waits for a registry.
const BROWSE_TIMEOUT: Duration = Duration::from_secs(20);

/// What stands in the addresses of servers in place of a password.
const PASSWORD_MASK: &str = ":******@";

impl App {
    /// The services of the group that find nodes in the registry.
    pub(crate) async fn service_registry_services(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        id: &ObjectId,
        filter: &ListFilter,
    ) -> Result<Listed<PublishedServiceRow>, Refusal> {
        caller.must(Action::GetServiceRegistry, group.as_str())?;
        let mut tx = self.store().read().await?;
        registry(&mut tx, group, id).await?;
        let using = users(&mut tx, group).await?.remove(id.as_str()).unwrap_or_default();
        let whole = ListFilter { page: None, ..filter.clone() };
        let mut services = tx.published_service_list(group, &whole).await?.rows;
        services.retain(|service| using.contains(&service.service_id));
        Ok(paged(services, filter))
    }

    /// How many services find nodes in each registry of the group, by its id.
    pub(crate) async fn service_registry_uses(
        &self,
        group: &GatewayGroupId,
    ) -> Result<BTreeMap<String, usize>, Refusal> {
        let mut tx = self.store().read().await?;
        let using = users(&mut tx, group).await?;
        Ok(using.into_iter().map(|(id, services)| (id, services.len())).collect())
    }
}

/// How a registry is, as the gateways of its group find it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RegistryHealth {
    /// Whether every living gateway that has looked has found it, and one has looked.
    pub(crate) healthy: bool,
    /// When one of them last did.
    pub(crate) last_connect_time: Option<i64>,
}

/// What is wanted of the history of a registry; nothing said: everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct RegistryCheckFilter {
    pub(crate) healthy: Option<bool>,
    pub(crate) list: ListFilter,
}

impl App {
    /// How the registries of a group are, by id.
    pub(crate) async fn service_registry_health(
        &self,
        group: &GatewayGroupId,
    ) -> Result<BTreeMap<String, RegistryHealth>, Refusal> {
        let mut found: BTreeMap<String, (RegistryHealth, bool)> = BTreeMap::new();
        for instance in self.instances_now(Some(group)).await? {
            let lives = matches!(instance.status, InstanceStatus::Healthy | InstanceStatus::OutOfSync);
            for report in &instance.row.heartbeat.registries {
                let (health, lost) = found.entry(report.id.to_string()).or_default();
                if report.healthy {
                    health.healthy |= lives;
                    health.last_connect_time = health.last_connect_time.max(Some(instance.row.heartbeat_at));
                } else {
                    *lost |= lives;
                }
            }
        }
        let judged = found
            .into_iter()
            .map(|(id, (health, lost))| (id, RegistryHealth { healthy: health.healthy && !lost, ..health }));
        Ok(judged.collect())
    }

    /// What gateways found when they looked at a registry, each change once.
    pub(crate) async fn service_registry_check_list(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        id: &ObjectId,
        filter: &RegistryCheckFilter,
    ) -> Result<Listed<RegistryCheckRow>, Refusal> {
        caller.must(Action::GetServiceRegistry, group.as_str())?;
        self.instances_write().await?;
        let mut tx = self.store().read().await?;
        registry(&mut tx, group, id).await?;
        let mut rows = tx.registry_check_list(group, id.as_str()).await?;
        let search = filter.list.search.as_ref().map(|search| search.to_ascii_lowercase());
        rows.retain(|row| {
            filter.healthy.is_none_or(|healthy| healthy == row.healthy)
                && search.as_ref().is_none_or(|search| row.hostname.to_ascii_lowercase().contains(search))
        });
        if filter.list.direction == Direction::Ascending {
            rows.reverse();
        }
        Ok(paged(rows, &filter.list))
    }

    /// What there is at a place of a registry of this type, which is asked now.
    pub(crate) async fn service_registry_browse(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        id: &ObjectId,
        (kind, place): (RegistryKind, Place),
    ) -> Result<Found, Refusal> {
        caller.must(Action::GetServiceRegistry, group.as_str())?;
        let registry = registry(&mut self.store().read().await?, group, id).await?;
        if registry.kind != kind {
            let message = format!(
                "service registry `{id}` is of type `{}`, not `{}`",
                registry.kind.name(),
                kind.name()
            );
            return Err(Violations::one("/service_registry_id", message).into());
        }
        let mut references = BTreeSet::new();
        let written = serde_json::to_value(&registry).unwrap_or(Value::Null);
        gatewright_plugins::secrets::collect(&written, &mut references);
        if let Some(reference) = references.first() {
            let message = format!(
                "only gateways know what `{reference}` stands for, so it cannot be browsed from here"
            );
            return Err(Violations::one("/service_registry_id", message).into());
        }
        let silent = |reason: String| Refusal::RegistrySilent { id: id.to_string(), reason };
        let asking = async { gatewright_discovery::connect(&registry, &outside())?.browse(&place).await };
        match tokio::time::timeout(BROWSE_TIMEOUT, asking).await {
            Ok(found) => found.map_err(|trouble| silent(trouble.to_string())),
            Err(_) => Err(silent(format!("no answer within {} seconds", BROWSE_TIMEOUT.as_secs()))),
        }
    }
}

/// The way outside of whoever browses.
fn outside() -> Outside {
    let allow = |address: IpAddr| match CLOUD_METADATA.contains(&address.to_canonical()) {
        true => Err(format!("{address} is an address that a control plane must not reach")),
        false => Ok(()),
    };
    Outside { allow: Arc::new(allow), tls: Arc::new(gatewright_discovery::tls::system) }
}

async fn registry(
    tx: &mut Reading,
    group: &GatewayGroupId,
    id: &ObjectId,
) -> Result<ServiceRegistry, Refusal> {
    let key = ObjectKey { group, kind: ObjectKind::ServiceRegistry, owner: "", id: id.as_str() };
    let row = tx.group_object_get(key).await?;
    let row = row.ok_or_else(|| Refusal::NotFound { noun: ServiceRegistry::NOUN, id: id.to_string() })?;
    Ok(object_of::<ServiceRegistry>(row)?.content)
}

/// A service that finds nodes in the object, if that is a registry.
pub(super) async fn user(tx: &mut Reading, key: ObjectKey<'_>) -> Result<Option<ServiceId>, Refusal> {
    if key.kind != ObjectKind::ServiceRegistry {
        return Ok(None);
    }
    let using = users(tx, key.group).await?;
    Ok(using.get(key.id).and_then(|services| services.first()).cloned())
}

/// The services that find nodes in each registry, by its id. What they say is partly sealed, so all of them are read; this
/// is asked seldom.
async fn users(
    tx: &mut Reading,
    group: &GatewayGroupId,
) -> Result<BTreeMap<String, Vec<ServiceId>>, Refusal> {
    let everything = ListFilter::default();
    let registries = tx.group_object_list(group, ObjectKind::ServiceRegistry, None, &everything).await?.rows;
    let registries =
        registries.into_iter().map(object_of).collect::<Result<Vec<Object<ServiceRegistry>>, _>>()?;
    let mut users: BTreeMap<String, Vec<ServiceId>> = BTreeMap::new();
    if registries.is_empty() {
        return Ok(users);
    }
    let kinds: Vec<(String, RegistryKind)> =
        registries.into_iter().map(|registry| (registry.id, registry.content.kind)).collect();
    let further = tx.group_object_list(group, ObjectKind::ServiceUpstream, None, &everything).await?.rows;
    for service in tx.published_service_list(group, &everything).await?.rows {
        let id = service.service_id.as_str();
        let mut wanted = Vec::new();
        for upstream in further.iter().filter(|upstream| upstream.owner == id) {
            collect(&serde_json::from_str(&upstream.document).unwrap_or(Value::Null), &mut wanted);
        }
        collect(&serde_json::to_value(&service.runtime.upstream).unwrap_or(Value::Null), &mut wanted);
        service.content.plugins.values().for_each(|config| collect(config, &mut wanted));
        for registry in wanted.iter().filter_map(|wanted| meant(wanted, &kinds)) {
            let using = users.entry(registry.to_owned()).or_default();
            if using.last() != Some(&service.service_id) {
                using.push(service.service_id.clone());
            }
        }
    }
    Ok(users)
}

/// What the upstreams in a document are looking for, wherever they stand: those of plugins are written into them.
fn collect(document: &Value, found: &mut Vec<Wanted>) {
    match document {
        Value::Object(members) => {
            found.extend(Wanted::written(members));
            members.values().for_each(|value| collect(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        _ => {}
    }
}

/// The registry that is meant, as gateways find it: the one that is named, or else the only one of its type.
fn meant<'k>(wanted: &Wanted, kinds: &'k [(String, RegistryKind)]) -> Option<&'k str> {
    let mut of_kind = kinds.iter().filter(|(_, kind)| *kind == wanted.kind);
    let (id, _) = match wanted.split().0 {
        Some(named) => of_kind.find(|(id, _)| id == named)?,
        None => of_kind.next().filter(|_| of_kind.next().is_none())?,
    };
    Some(id)
}

/// Whether a connection can be made of what is written, as gateways make it; nothing is asked.
pub(super) fn connection_check(registry: &ServiceRegistry, violations: &mut Violations) {
    if !violations.is_empty() {
        return;
    }
    let outside = Outside {
        allow: Arc::new(|_: IpAddr| Ok(())),
        tls: Arc::new(|_| gatewright_discovery::tls::nobody()),
    };
    if let Err(trouble) = gatewright_discovery::connect(registry, &outside) {
        violations.add("", trouble.to_string());
    }
}

/// The registry with masks in place of its secrets.
pub(crate) fn secrets_mask(registry: &mut ServiceRegistry) {
    for (_, secret) in secrets(registry) {
        MASK.clone_into(secret);
    }
    addresses(registry).into_iter().flatten().for_each(|address| *address = address_masked(address));
}

/// Puts back the secrets of `before` where masks stand.
pub(super) fn secrets_restore(
    registry: &mut ServiceRegistry,
    before: Option<&ServiceRegistry>,
) -> Result<(), Violations> {
    let mut violations = Violations::default();
    let mut before = before.cloned();
    let mut known: BTreeMap<&'static str, String> = BTreeMap::new();
    let mut known_addresses = Vec::new();
    if let Some(before) = &mut before {
        known.extend(secrets(before).into_iter().map(|(at, secret)| (at, secret.clone())));
        known_addresses.extend(addresses(before).into_iter().flatten().map(|address| address.clone()));
    }
    let message = "is the mask that answers show in place of a secret; send the secret itself";
    for (at, secret) in secrets(registry).into_iter().filter(|(_, secret)| *secret == MASK) {
        match known.get(at) {
            Some(known) => secret.clone_from(known),
            None => violations.add(at, message),
        }
    }
    let masked = addresses(registry).into_iter().flatten().filter(|address| address.contains(PASSWORD_MASK));
    for address in masked {
        match known_addresses.iter().find(|known| address_masked(known) == *address) {
            Some(known) => address.clone_from(known),
            None => violations.add("", format!("`{address}`: the password {message}")),
        }
    }
    violations.into_result()
}

/// The members that are secrets, each with its JSON path.
fn secrets(registry: &mut ServiceRegistry) -> Vec<(&'static str, &mut String)> {
    let mut found: Vec<(&'static str, Option<&mut String>)> = Vec::new();
    if let Some(client) = registry.kubernetes_config.as_mut().and_then(|config| config.client.as_mut()) {
        found.push(("/kubernetes_config/client/token", client.token.as_mut()));
        found.push(("/kubernetes_config/client/kubeconfig", client.kubeconfig.as_mut()));
    }
    if let Some(auth) = registry.nacos_config.as_mut().and_then(|config| config.auth.as_mut()) {
        found.push(("/nacos_config/auth/password", auth.password.as_mut()));
        found.push(("/nacos_config/auth/token", auth.token.as_mut()));
        found.push(("/nacos_config/auth/secret_key", auth.secret_key.as_mut()));
    }
    if let Some(config) = &mut registry.consul_config {
        found.push(("/consul_config/token", config.token.as_mut()));
    }
    // A reference to a secret is none.
    let is_secret = |text: &String| !gatewright_plugins::secrets::is_reference(text);
    found.into_iter().filter_map(|(at, secret)| Some((at, secret.filter(|text| is_secret(text))?))).collect()
}

/// The addresses of servers, in which passwords may stand.
fn addresses(registry: &mut ServiceRegistry) -> [&mut [String]; 3] {
    [
        registry.nacos_config.as_mut().map(|config| &mut *config.hosts).unwrap_or_default(),
        registry.consul_config.as_mut().map(|config| &mut *config.servers).unwrap_or_default(),
        registry.eureka_config.as_mut().map(|config| &mut *config.host).unwrap_or_default(),
    ]
}

fn address_masked(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    match rest.rsplit_once('@').and_then(|(user, host)| Some((user.split_once(':')?.0, host))) {
        Some((user, host)) => format!("{scheme}://{user}{PASSWORD_MASK}{host}"),
        None => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn registry(config: Value) -> ServiceRegistry {
        let mut document = json!({"name": "r"});
        config.as_object().unwrap().iter().for_each(|(name, value)| document[name] = value.clone());
        serde_json::from_value(document).unwrap()
    }

    #[test]
    fn secrets_are_masked_in_answers_and_put_back_where_an_answer_is_sent_back() {
        for (config, hidden) in [
            (
                json!({"type": "consul", "consul_config": {"servers": ["http://u:pw1@c:8500", "http://c2"], "token": "s3cret"}}),
                2,
            ),
            (
                json!({"type": "nacos", "nacos_config": {"hosts": ["http://n"], "auth": {"username": "u", "password": "s3cret"}}}),
                1,
            ),
            (
                json!({"type": "nacos", "nacos_config": {"hosts": ["http://n"], "auth": {"token": "$secret://vault/a/b"}}}),
                0,
            ),
            (
                json!({"type": "kubernetes", "kubernetes_config":
                {"service": {"schema": "https", "host": "k", "port": "443"}, "client": {"token": "s3cret"}}}),
                1,
            ),
        ] {
            let before = registry(config);
            let mut shown = before.clone();
            secrets_mask(&mut shown);
            let text = serde_json::to_string(&shown).unwrap();
            assert!(!text.contains("s3cret") && !text.contains("pw1"), "{text}");
            assert_eq!(text.matches(MASK).count(), hidden, "{text}");
            let mut sent_back = shown.clone();
            secrets_restore(&mut sent_back, Some(&before)).unwrap();
            assert_eq!(sent_back, before);
            assert_eq!(
                secrets_restore(&mut shown, None).is_err(),
                hidden > 0,
                "there is nothing to put back"
            );
        }
    }

    #[test]
    fn the_registry_that_is_meant_is_the_one_that_is_named_or_the_only_one() {
        let kinds = |kinds: &[(&str, RegistryKind)]| -> Vec<(String, RegistryKind)> {
            kinds.iter().map(|(id, kind)| ((*id).to_owned(), *kind)).collect()
        };
        let one = kinds(&[("a", RegistryKind::Consul), ("k", RegistryKind::Kubernetes)]);
        let two = kinds(&[("a", RegistryKind::Consul), ("b", RegistryKind::Consul)]);
        let document = json!({"plugins": {"traffic-split": {"rules": [{"weighted_upstreams": [
            {"upstream": {"service_name": "b/web", "discovery_type": "consul"}},
            {"upstream": {"service_name": "web", "discovery_type": "consul"}}
        ]}]}}});
        let mut wanted = Vec::new();
        collect(&document, &mut wanted);
        let meant = |kinds: &[(String, RegistryKind)]| -> Vec<Option<String>> {
            wanted.iter().map(|wanted| meant(wanted, kinds).map(str::to_owned)).collect()
        };
        assert_eq!(meant(&one), [None, Some("a".to_owned())]);
        assert_eq!(meant(&two), [Some("b".to_owned()), None]);
    }
}
