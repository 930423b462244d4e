//! What a gateway and a control plane say to each other: the only place where the two planes meet.
//!
//! A gateway opens one request, [`WATCH_PATH`] with [`WatchQuery`], authenticated by its instance token, and keeps
//! reading the response: one JSON [`Message`] per line. It names the revision it has; every [`Update`] it receives
//! contains everything that changed since, and ends at a newer revision. An update is complete or absent, never
//! partial, and a gateway applies it whole.
//! Nothing is acknowledged on this stream: a gateway that reconnects says again what it has.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{GatewayGroupId, ServiceId};
use crate::matching::MatchSettings;
use crate::resource::group_object::{GroupObject, ObjectKey};
use crate::snapshot::{PublishedService, Revision};

/// Where a control plane serves the watch.
pub const WATCH_PATH: &str = "/sync/v1/watch";

/// The request header that carries the instance token.
pub const TOKEN_HEADER: &str = "x-gatewright-instance-token";

/// The media type of the response: one JSON message per line.
pub const CONTENT_TYPE: &str = "application/x-ndjson";

/// How often a control plane sends [`Message::Ping`] while nothing changes.
pub const PING_INTERVAL: Duration = Duration::from_secs(10);

/// After how long without a message a gateway gives the connection up: three lost pings.
pub const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Bytes of one message a gateway accepts; 100,000 routes with plugins fit several times over.
pub const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// The query of a watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchQuery {
    /// The group whose configuration is wanted; the token must belong to it.
    pub gateway_group_id: GatewayGroupId,
    /// The revision the gateway has; absent: it has nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub have: Option<Revision>,
}

impl WatchQuery {
    /// The query as it stands in a URL. Ids need no escaping, which is what their form is for.
    #[must_use]
    pub fn to_query_string(&self) -> String {
        let group = &self.gateway_group_id;
        match self.have {
            Some(have) => format!("gateway_group_id={group}&have={have}"),
            None => format!("gateway_group_id={group}"),
        }
    }
}

/// One line of the watch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Message {
    /// The configuration changed (or the gateway had nothing).
    Update(Update),
    /// Nothing changed; the connection lives.
    Ping,
}

/// Everything that changed since a revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Update {
    /// The revision the gateway has after applying this.
    pub revision: Revision,
    /// Whether this is everything, so that what it does not mention is gone.
    pub full: bool,
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
