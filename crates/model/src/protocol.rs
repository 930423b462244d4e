//! What a gateway and a control plane say to each other: the only place where the two planes meet.
//!
//! A gateway opens one request, [`WATCH_PATH`] with [`WatchQuery`], authenticated by its instance token, and keeps
//! reading the response: one JSON [`Message`] per line. It travels over HTTP/2, and packed ([`ENCODING`]) to those who
//! accept that. It names what it has; every [`Update`] it receives
//! contains everything that changed since, and ends at a newer revision. An update is complete or absent, never
//! partial, and a gateway applies it whole.
//! Nothing is acknowledged on this stream: a gateway that reconnects says again what it has. Beside it a gateway sends
//! a [`Heartbeat`] now and then, and whenever what it serves has changed.
//!
//! Revisions count within an [`Epoch`], the life of one store. A gateway never goes back within an epoch: a control
//! plane whose store is behind says so ([`Message::Behind`]), and people decide which of the two is right.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::digest::{ContentDigest, ItemKey, Ledger};
use crate::id::{GatewayGroupId, InstanceId, ObjectId, ServiceId};
use crate::matching::MatchSettings;
use crate::resource::group_object::{GroupObject, ObjectKey};
use crate::rollout::verdict::{LATENCY_ENDS, VersionCounts};
use crate::snapshot::{PublishedService, Revision};
use crate::stream::ports::Ports;

/// Where a control plane serves the watch.
pub const WATCH_PATH: &str = "/sync/v1/watch";

/// Where a control plane takes heartbeats.
pub const HEARTBEAT_PATH: &str = "/sync/v1/heartbeat";

/// The request header that carries the instance token.
pub const TOKEN_HEADER: &str = "x-gatewright-instance-token";

/// What separates an instance token from the digest of the certificate authority that its gateway trusts.
pub const TOKEN_PIN_SEPARATOR: char = '.';

/// The name in the certificate of every control plane, whatever its address: a gateway knows the authority that signed
/// it, and which addresses there are is not the authority's business.
pub const CONTROL_PLANE_NAME: &str = "control-plane.gatewright.internal";

/// The media type of the response: one JSON message per line.
pub const CONTENT_TYPE: &str = "application/x-ndjson";

/// How lines are packed on a network: each is one frame, and frames in a row are a stream.
pub const ENCODING: &str = "zstd";

/// How often a control plane sends [`Message::Ping`] while nothing changes.
pub const PING_INTERVAL: Duration = Duration::from_secs(10);

/// After how long without a message a gateway gives the connection up: three lost pings.
pub const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Bytes of one message a gateway accepts; 100,000 routes with plugins fit several times over.
pub const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// How often a gateway sends a [`Heartbeat`] while nothing changes.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);

/// The same while versions are compared, so that a bad one is seen soon.
pub const COMPARED_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Versions of one group that are compared at a time: two of each rollout.
pub const COMPARED_VERSIONS_MAX: usize = 200;

/// Bytes of one heartbeat that a control plane accepts.
pub const HEARTBEAT_BYTES_MAX: usize = 256 << 10;

/// Objects a heartbeat names; the rest is only counted.
pub const QUARANTINED_NAMED_MAX: usize = 100;

/// Characters of a reason in a heartbeat.
pub const REASON_LENGTH_MAX: usize = 500;

/// Characters of any other text in a heartbeat.
pub const HEARTBEAT_TEXT_LENGTH_MAX: usize = 255;

/// Ports, and plugins, in a heartbeat.
pub const HEARTBEAT_LIST_MAX: usize = 512;

/// The life of a store in which revisions are counted: which store, and how often people have said that gateways
/// ahead of it must go back. Written `store.number`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Epoch {
    /// The store; a backup that is restored is the same store.
    pub store: String,
    /// Rises.
    pub number: u64,
}

/// Why a text is no epoch.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no epoch: a store, a point and a number")]
pub struct InvalidEpoch(String);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.store, self.number)
    }
}

impl FromStr for Epoch {
    type Err = InvalidEpoch;

    fn from_str(text: &str) -> Result<Self, InvalidEpoch> {
        let invalid = || InvalidEpoch(text.to_owned());
        let (store, number) = text.split_once('.').ok_or_else(invalid)?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if store.is_empty() || store.len() > 64 || !store.bytes().all(is_plain) {
            return Err(invalid());
        }
        Ok(Self { store: store.to_owned(), number: number.parse().map_err(|_| invalid())? })
    }
}

impl From<Epoch> for String {
    fn from(epoch: Epoch) -> Self {
        epoch.to_string()
    }
}

impl TryFrom<String> for Epoch {
    type Error = InvalidEpoch;

    fn try_from(text: String) -> Result<Self, InvalidEpoch> {
        text.parse()
    }
}

/// The query of a watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchQuery {
    /// The group whose configuration is wanted; the token must belong to it.
    pub gateway_group_id: GatewayGroupId,
    /// The revision the gateway has; absent: it has nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub have: Option<Revision>,
    /// The epoch that revision is counted in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// The digest of what the gateway has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<ContentDigest>,
    /// The gateway's release; a control plane refuses one that is newer than itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

impl WatchQuery {
    /// The query as it stands in a URL. Ids, epochs, digests and versions need no escaping, which is what their form
    /// is for.
    #[must_use]
    pub fn to_query_string(&self) -> String {
        let mut query = format!("gateway_group_id={}", self.gateway_group_id);
        let have = self.have.map(|have| ("have", have.to_string()));
        let epoch = self.epoch.as_ref().map(|epoch| ("epoch", epoch.to_string()));
        let digest = self.digest.map(|digest| ("digest", digest.to_string()));
        let version = self.version.clone().map(|version| ("version", version));
        for (name, value) in [have, epoch, digest, version].into_iter().flatten() {
            query.push_str(&format!("&{name}={value}"));
        }
        query
    }
}

/// One line of the watch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// The configuration changed (or the gateway had nothing).
    Update(Update),
    /// Nothing changed; the connection lives.
    Ping,
    /// The gateway has a revision that this control plane does not know, as after a backup was restored; it keeps it.
    Behind {
        /// The newest revision that is known here.
        revision: Revision,
    },
    /// Services to compile and not to serve; the next heartbeat says what came of it ([`Prepared`]).
    Prepare {
        /// Names the preparation.
        id: String,
        /// The services, as they would be published.
        services: Vec<PublishedService>,
    },
}

/// Everything that changed since a revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Update {
    /// The epoch the revision is counted in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// The revision the gateway has after applying this.
    pub revision: Revision,
    /// Whether this is everything, so that what it does not mention is gone.
    pub full: bool,
    /// The digest of the whole configuration after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<ContentDigest>,
    /// How the group matches; always said, because it is small.
    #[serde(default)]
    pub settings: MatchSettings,
    /// The services that are new or changed.
    pub services: Vec<PublishedService>,
    /// The services that are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<ServiceId>,
    /// The objects beside services that are new or changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<GroupObject>,
    /// The objects that are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed_objects: Vec<ObjectKey>,
}

impl Update {
    /// Enters what this says into the sender's ledger.
    ///
    /// # Errors
    /// If an item cannot be written as JSON.
    pub fn enter(&self, ledger: &mut Ledger) -> Result<(), serde_json::Error> {
        if self.full {
            ledger.clear();
        }
        ledger.put(ItemKey::Settings, &serde_json::to_vec(&self.settings)?);
        self.removed.iter().for_each(|id| ledger.remove(ItemKey::Service(id)));
        self.removed_objects.iter().for_each(|key| ledger.remove(ItemKey::Object(key)));
        for service in &self.services {
            ledger.put(ItemKey::Service(&service.service_id), &serde_json::to_vec(service)?);
        }
        for object in &self.objects {
            ledger.put(ItemKey::Object(&object.key()), &serde_json::to_vec(object)?);
        }
        Ok(())
    }
}

/// A [`Message`] as it is received: items are still the text that was sent.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Received<'a> {
    /// See [`Message::Update`].
    #[serde(borrow)]
    Update(ReceivedUpdate<'a>),
    /// See [`Message::Ping`].
    Ping,
    /// See [`Message::Behind`].
    Behind {
        /// The newest revision that is known there.
        revision: Revision,
    },
    /// See [`Message::Prepare`].
    Prepare {
        /// Names the preparation.
        id: String,
        /// The services, as they would be published.
        services: Vec<PublishedService>,
    },
}

/// An [`Update`] as it is received.
#[derive(Debug, Deserialize)]
pub struct ReceivedUpdate<'a> {
    #[serde(default)]
    epoch: Option<Epoch>,
    revision: Revision,
    full: bool,
    #[serde(default)]
    digest: Option<ContentDigest>,
    #[serde(default, borrow)]
    settings: Option<&'a RawValue>,
    #[serde(borrow)]
    services: Vec<&'a RawValue>,
    #[serde(default)]
    removed: Vec<ServiceId>,
    #[serde(default, borrow)]
    objects: Vec<&'a RawValue>,
    #[serde(default)]
    removed_objects: Vec<ObjectKey>,
}

impl ReceivedUpdate<'_> {
    /// The revision this ends at.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Whether it is everything.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// The epoch of that revision.
    #[must_use]
    pub fn epoch(&self) -> Option<&Epoch> {
        self.epoch.as_ref()
    }

    /// Parses the items, and enters them into the receiver's ledger.
    ///
    /// # Errors
    /// If an item is not what it should be; the ledger is then worth nothing any more.
    pub fn read(self, ledger: &mut Ledger) -> Result<Update, serde_json::Error> {
        if self.full {
            ledger.clear();
        }
        let settings = match self.settings {
            Some(text) => {
                ledger.put(ItemKey::Settings, text.get().as_bytes());
                serde_json::from_str(text.get())?
            }
            None => MatchSettings::default(),
        };
        self.removed.iter().for_each(|id| ledger.remove(ItemKey::Service(id)));
        self.removed_objects.iter().for_each(|key| ledger.remove(ItemKey::Object(key)));
        let mut services = Vec::with_capacity(self.services.len());
        for text in self.services {
            let service: PublishedService = serde_json::from_str(text.get())?;
            ledger.put(ItemKey::Service(&service.service_id), text.get().as_bytes());
            services.push(service);
        }
        let mut objects = Vec::with_capacity(self.objects.len());
        for text in self.objects {
            let object: GroupObject = serde_json::from_str(text.get())?;
            ledger.put(ItemKey::Object(&object.key()), text.get().as_bytes());
            objects.push(object);
        }
        let Self { epoch, revision, full, digest, removed, removed_objects, .. } = self;
        Ok(Update { epoch, revision, full, digest, settings, services, removed, objects, removed_objects })
    }
}

/// A gateway instance's report: who it is, and what it serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The instance; the same over restarts.
    pub instance_id: InstanceId,
    /// The name of its machine.
    pub hostname: String,
    /// Its release.
    pub version: String,
    /// The ports it answers clients on.
    pub ports: Vec<u16>,
    /// The ports it may open for streams.
    #[serde(default, skip_serializing_if = "Ports::is_empty")]
    pub stream_ports: Ports,
    /// Its workers, each on one core.
    pub cores: u32,
    /// The epoch of the applied revision.
    #[serde(default)]
    pub epoch: Option<Epoch>,
    /// The applied revision; absent: it serves nothing yet.
    #[serde(default)]
    pub applied: Option<Revision>,
    /// The revision it has on disk.
    #[serde(default)]
    pub persisted: Option<Revision>,
    /// What is not served as it was published.
    #[serde(default)]
    pub quarantined: Vec<Quarantined>,
    /// The plugins it can run.
    #[serde(default)]
    pub plugins: Vec<String>,
    /// What came of the last preparation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared: Option<Prepared>,
    /// What it counted of the versions that somebody compares.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<VersionCounts>,
    /// What it found when it last looked at the service registries of its group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub registries: Vec<RegistryReport>,
}

/// What an instance found when it last looked at a service registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryReport {
    /// The registry.
    pub id: ObjectId,
    /// Whether it is there and lets itself be asked.
    pub healthy: bool,
    /// Why not, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// What came of a [`Message::Prepare`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// Names the preparation.
    pub id: String,
    /// What does not compile, and why; none: everything does.
    pub complaints: Vec<Quarantined>,
}

/// An object that a gateway does not serve as it was published, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// The id of the object; of a service, its service id.
    pub id: String,
    /// Why, for people.
    pub reason: String,
}

impl Heartbeat {
    /// What is wrong with it, if anything: a gateway must not be able to fill a control plane with garbage.
    #[must_use]
    pub fn complaint(&self) -> Option<&'static str> {
        let texts = [&self.hostname, &self.version];
        let is_long = |text: &str, max: usize| text.chars().count() > max;
        if texts.iter().any(|text| is_long(text, HEARTBEAT_TEXT_LENGTH_MAX) || text.contains('\0')) {
            return Some("hostname or version is longer than 255 characters, or contains NUL");
        }
        if self.ports.len() > HEARTBEAT_LIST_MAX || self.plugins.len() > HEARTBEAT_LIST_MAX {
            return Some("there are more than 512 ports or plugins");
        }
        if self.plugins.iter().any(|name| is_long(name, HEARTBEAT_TEXT_LENGTH_MAX)) {
            return Some("the name of a plugin is longer than 255 characters");
        }
        let is_long_count = |one: &VersionCounts| {
            is_long(&one.version, HEARTBEAT_TEXT_LENGTH_MAX)
                || one.counts.latencies.len() > LATENCY_ENDS.len() + 1
        };
        if self.versions.len() > COMPARED_VERSIONS_MAX || self.versions.iter().any(is_long_count) {
            return Some("more versions are counted than anybody compares, or with other buckets");
        }
        let is_long_report =
            |one: &RegistryReport| is_long(&one.reason, REASON_LENGTH_MAX) || one.reason.contains('\0');
        if self.registries.len() > HEARTBEAT_LIST_MAX || self.registries.iter().any(is_long_report) {
            return Some(
                "there are more than 512 service registries, or a reason of more than 500 characters",
            );
        }
        let is_large = |one: &Quarantined| {
            is_long(&one.id, HEARTBEAT_TEXT_LENGTH_MAX + 1) || is_long(&one.reason, REASON_LENGTH_MAX)
        };
        let is_much =
            |named: &[Quarantined]| named.len() > QUARANTINED_NAMED_MAX || named.iter().any(is_large);
        let prepared = self.prepared.as_ref();
        if is_much(&self.quarantined) || prepared.is_some_and(|prepared| is_much(&prepared.complaints)) {
            return Some("more does not compile than is taken: 100 objects with reasons of 500 characters");
        }
        if prepared.is_some_and(|prepared| is_long(&prepared.id, HEARTBEAT_TEXT_LENGTH_MAX)) {
            return Some("the name of a preparation is longer than 255 characters");
        }
        None
    }
}

/// Whether release `version` is newer than `ours`; what is not understood is not.
#[must_use]
pub fn is_newer(version: &str, ours: &str) -> bool {
    let numbers = |text: &str| -> Option<Vec<u64>> {
        let plain = text.split(['-', '+']).next().unwrap_or_default();
        plain.split('.').map(|part| part.parse().ok()).collect()
    };
    match (numbers(version), numbers(ours)) {
        (Some(theirs), Some(ours)) => theirs > ours,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn update() -> Update {
        let service = json!({
            "service_id": "s", "service_version_id": "v", "version": "1", "name": "s", "type": "http",
            "routes": [{"route_id": "r", "name": "r", "paths": ["/*"], "vars": [["arg_a", "==", 0.1]]}],
            "strip_path_prefix": true, "upstream": {"retry_timeout": 0.3}, "status": 1
        });
        Update {
            epoch: Some("store.1".parse().unwrap()),
            revision: Revision(7),
            full: true,
            digest: None,
            settings: MatchSettings::default(),
            services: vec![serde_json::from_value(service).unwrap()],
            removed: Vec::new(),
            objects: Vec::new(),
            removed_objects: Vec::new(),
        }
    }

    #[test]
    fn both_sides_come_to_the_same_digest() {
        let (mut sender, mut receiver) = (Ledger::default(), Ledger::default());
        let sent = update();
        sent.enter(&mut sender).unwrap();
        let line = serde_json::to_string(&Message::Update(sent.clone())).unwrap();
        let Received::Update(received) = serde_json::from_str(&line).unwrap() else { panic!("{line}") };
        let received = received.read(&mut receiver).unwrap();
        assert_eq!(received, sent);
        assert_eq!(sender.digest(), receiver.digest());
        let mut again = Ledger::default();
        received.enter(&mut again).unwrap();
        assert_eq!(again.digest(), sender.digest(), "reading and writing it again changes no byte");
    }

    #[test]
    fn a_field_that_only_the_sender_knows_counts_on_both_sides() {
        let (mut sender, mut receiver) = (Ledger::default(), Ledger::default());
        let text = r#"{"service_id":"s","service_version_id":"v","version":"1","name":"s","type":"http","routes":[],"strip_path_prefix":true,"upstream":{},"status":1,"of_tomorrow":1}"#;
        sender.put(ItemKey::Service(&"s".parse().unwrap()), text.as_bytes());
        let line = format!(r#"{{"update":{{"revision":1,"full":true,"services":[{text}]}}}}"#);
        let Received::Update(received) = serde_json::from_str(&line).unwrap() else { panic!("{line}") };
        received.read(&mut receiver).unwrap();
        assert_eq!(sender.digest(), receiver.digest());
    }

    #[test]
    fn an_epoch_is_a_store_and_a_number() {
        let epoch: Epoch = "0190-ab.12".parse().unwrap();
        assert_eq!(
            (epoch.store.as_str(), epoch.number, epoch.to_string()),
            ("0190-ab", 12, "0190-ab.12".into())
        );
        for wrong in ["", "a", ".1", "a.", "a.b", "a&b.1", "a.1.2"] {
            assert!(wrong.parse::<Epoch>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn releases_compare_by_their_numbers() {
        assert!(is_newer("0.10.0", "0.9.9") && is_newer("1.0.0", "0.9.9"));
        assert!(!is_newer("0.9.9", "0.9.9") && !is_newer("0.9.8", "0.9.9") && !is_newer("odd", "0.9.9"));
    }

    #[test]
    fn p28_a_heartbeat_that_is_too_much_is_refused() {
        let fine = Heartbeat {
            instance_id: "i".parse().unwrap(),
            hostname: "h".to_owned(),
            version: "1.0.0".to_owned(),
            ports: vec![9080],
            stream_ports: Ports::default(),
            cores: 2,
            epoch: None,
            applied: None,
            persisted: None,
            quarantined: Vec::new(),
            plugins: Vec::new(),
            prepared: None,
            versions: Vec::new(),
            registries: Vec::new(),
        };
        assert_eq!(fine.complaint(), None);
        let one = Quarantined { id: "s".to_owned(), reason: "x".repeat(501) };
        for wrong in [
            Heartbeat { hostname: "h".repeat(256), ..fine.clone() },
            Heartbeat { ports: vec![1; 513], ..fine.clone() },
            Heartbeat { plugins: vec!["p".repeat(256)], ..fine.clone() },
            Heartbeat { quarantined: vec![one], ..fine.clone() },
        ] {
            assert!(wrong.complaint().is_some(), "{wrong:?}");
        }
    }
}
