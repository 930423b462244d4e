//! Gateway instances.

use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use gatewright_model::snapshot::Revision;
use gatewright_model::validation::Violations;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::error::{ApiError, Refusals};
use super::request::{Ids, direction, positive};
use super::{Many, ManyAnswer, Nothing, Single, SingleAnswer, single};
use crate::app::{
    AWAIT_MAX, App, Applied, Caller, Instance, InstanceFilter, InstanceStatus, quarantine_sentence,
};
use crate::store::{Direction, Listed};

/// A running (or lost) gateway.
#[derive(Serialize, ToSchema)]
pub(super) struct InstanceView {
    id: String,
    hostname: String,
    ip: String,
    gateway_group_id: String,
    version: String,
    /// Where clients are answered.
    ports: Vec<u16>,
    /// The ports it may open for streams, such as `5432,9000-9100`; empty: none (our extension).
    stream_ports: String,
    cores: u32,
    status: InstanceStatus,
    last_heartbeat_time: i64,
    /// When its first heartbeat came.
    created_at: i64,
    /// When it will be removed if it stays silent; only for instances that are offline.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    to_be_deleted_at: Option<i64>,
    /// When the certificate it came with runs out; only for instances that came with one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    dataplane_certificate_expire_time: Option<i64>,
    /// The revision it serves.
    applied_revision: Option<u64>,
    /// How many revisions that is behind the newest one of its group; negative if it is ahead of a restored store.
    lag: Option<i64>,
    /// The revision it has on disk.
    persisted_revision: Option<u64>,
    /// What is not served there as it was published: it does not compile, and its last good form keeps serving, or it
    /// needs a plugin that the instance lacks, and is answered 503.
    quarantined: Vec<QuarantinedView>,
    /// The plugins it can run.
    plugins: Vec<String>,
}

/// An object that an instance does not serve as it was published.
#[derive(Serialize, ToSchema)]
pub(super) struct QuarantinedView {
    id: String,
    reason: String,
}

impl From<Instance> for InstanceView {
    fn from(instance: Instance) -> Self {
        let heartbeat = instance.row.heartbeat;
        let signed = |revision: Revision| i64::try_from(revision.0).unwrap_or(i64::MAX);
        let quarantined = heartbeat.quarantined.into_iter();
        Self {
            id: heartbeat.instance_id.into(),
            hostname: heartbeat.hostname,
            ip: instance.row.ip,
            gateway_group_id: instance.row.gateway_group_id.into(),
            version: heartbeat.version,
            ports: heartbeat.ports,
            stream_ports: heartbeat.stream_ports.to_string(),
            cores: heartbeat.cores,
            status: instance.status,
            last_heartbeat_time: instance.row.heartbeat_at,
            created_at: instance.row.created_at,
            to_be_deleted_at: instance.to_be_deleted_at,
            dataplane_certificate_expire_time: instance.row.certificate_expires_at,
            applied_revision: heartbeat.applied.map(|revision| revision.0),
            lag: heartbeat.applied.map(|revision| signed(instance.newest) - signed(revision)),
            persisted_revision: heartbeat.persisted.map(|revision| revision.0),
            quarantined: quarantined.map(|one| QuarantinedView { id: one.id, reason: one.reason }).collect(),
            plugins: heartbeat.plugins,
        }
    }
}

/// The parameters of lists of instances.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "documents what InstanceQuery reads")]
pub(super) struct InstanceParameters {
    /// Only instances of this group.
    #[param(pattern = r"^[0-9A-Za-z._-]{1,256}$")]
    gateway_group_id: Option<String>,
    /// Only instances with this status.
    status: Option<InstanceStatus>,
    /// A part of the id, the hostname or the address, in any case.
    search: Option<String>,
    /// `last_heartbeat_time` (the default) or `created_at`.
    order_by: Option<String>,
    /// `desc` (the default) or `asc`.
    direction: Option<String>,
    /// Which page, counted from 1; without page and page_size everything is listed.
    #[param(minimum = 1)]
    page: Option<i64>,
    /// Instances on a page.
    #[param(minimum = 1)]
    page_size: Option<i64>,
}

type Pairs = Query<Vec<(String, String)>>;

/// Instances on a page for which no size was asked.
const PAGE_SIZE_DEFAULT: i64 = 20;

/// Which instances are wanted, and in which order.
#[derive(Default)]
struct InstanceQuery {
    filter: InstanceFilter,
    by_creation: bool,
    direction: Direction,
    page: Option<i64>,
    page_size: Option<i64>,
}

impl InstanceQuery {
    fn parse(pairs: &[(String, String)]) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        let mut query = Self::default();
        for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
            match name.as_str() {
                "gateway_group_id" => match value.parse() {
                    Ok(id) => query.filter.gateway_group_id = Some(id),
                    Err(error) => violations.add("/gateway_group_id", format!("{error}")),
                },
                "status" => {
                    query.filter.status =
                        InstanceStatus::ALL.into_iter().find(|status| status.name() == value);
                    if query.filter.status.is_none() {
                        let message = "value is none of Healthy, OutOfSync, LostConnection, Offline";
                        violations.add("/status", message);
                    }
                }
                "search" => query.filter.search = Some(value.clone()),
                "order_by" if value == "created_at" => query.by_creation = true,
                "order_by" if value == "last_heartbeat_time" => query.by_creation = false,
                "order_by" => {
                    violations.add("/order_by", "value is none of last_heartbeat_time, created_at");
                }
                "direction" => query.direction = direction(value, &mut violations),
                "page" => query.page = positive("/page", value, &mut violations),
                "page_size" => query.page_size = positive("/page_size", value, &mut violations),
                _ => {}
            }
        }
        violations.into_result()?;
        Ok(query)
    }

    fn listed(&self, mut instances: Vec<Instance>) -> Listed<Instance> {
        instances.sort_by_key(|instance| match self.by_creation {
            true => instance.row.created_at,
            false => instance.row.heartbeat_at,
        });
        if self.direction == Direction::Descending {
            instances.reverse();
        }
        let total = i64::try_from(instances.len()).unwrap_or(i64::MAX);
        if self.page.is_some() || self.page_size.is_some() {
            let size = usize::try_from(self.page_size.unwrap_or(PAGE_SIZE_DEFAULT)).unwrap_or(usize::MAX);
            let page = usize::try_from(self.page.unwrap_or(1)).unwrap_or(usize::MAX);
            instances = instances.into_iter().skip(size.saturating_mul(page - 1)).take(size).collect();
        }
        Listed { rows: instances, total }
    }
}

/// Lists gateway instances.
#[utoipa::path(get, path = "/api/instances", tag = "gateway instance", params(InstanceParameters),
    responses((status = 200, body = Many<InstanceView>), Refusals))]
pub(super) async fn instance_list(
    caller: Caller,
    State(app): State<App>,
    Query(pairs): Pairs,
) -> ManyAnswer<InstanceView> {
    let query = InstanceQuery::parse(&pairs)?;
    let instances = app.instance_list(&caller, &query.filter).await?;
    Ok(super::many(query.listed(instances)))
}

/// Lists the instances of a gateway group.
#[utoipa::path(get, path = "/api/gateway_groups/{gateway_group_id}/instances", tag = "gateway instance",
    params(("gateway_group_id" = String, Path), InstanceParameters),
    responses((status = 200, body = Many<InstanceView>), Refusals))]
pub(super) async fn gateway_group_instance_list(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
    Query(pairs): Pairs,
) -> ManyAnswer<InstanceView> {
    let mut query = InstanceQuery::parse(&pairs)?;
    query.filter.gateway_group_id = Some(ids.id("gateway_group_id")?);
    let instances = app.instance_list(&caller, &query.filter).await?;
    Ok(super::many(query.listed(instances)))
}

/// How many instances have a value.
#[derive(Serialize, ToSchema)]
pub(super) struct CountView {
    /// The value.
    key: String,
    count: usize,
}

/// Counts gateway instances by status.
#[utoipa::path(get, path = "/api/instances/count/{field}", tag = "gateway instance",
    params(("field" = String, Path, description = "`status`"), InstanceParameters),
    responses((status = 200, body = Single<Vec<CountView>>), Refusals))]
pub(super) async fn instance_count(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
    Query(pairs): Pairs,
) -> SingleAnswer<Vec<CountView>> {
    if ids.text("field") != "status" {
        return Err(Violations::one("/field", "value must be status").into());
    }
    let query = InstanceQuery::parse(&pairs)?;
    let instances = app.instance_list(&caller, &query.filter).await?;
    let count = |status: InstanceStatus| CountView {
        key: status.name().to_owned(),
        count: instances.iter().filter(|instance| instance.status == status).count(),
    };
    Ok(single(InstanceStatus::ALL.map(count).into()))
}

/// Removes a gateway instance from the list; one that lives comes back with its next heartbeat.
#[utoipa::path(delete, path = "/api/gateway_groups/{gateway_group_id}/instances/{instance_id}",
    tag = "gateway instance", params(("gateway_group_id" = String, Path), ("instance_id" = String, Path)),
    responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn instance_delete(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> SingleAnswer<Nothing> {
    let (group, id) = (ids.id("gateway_group_id")?, ids.id("instance_id")?);
    app.instance_delete(&caller, &group, &id).await?;
    Ok(single(Nothing {}))
}

/// How far the instances of a group have come with a revision.
#[derive(Serialize, ToSchema)]
pub(super) struct AppliedView {
    /// The revision that was waited for.
    revision: u64,
    /// Whether every healthy instance serves it, and nothing is quarantined there.
    complete: bool,
    instances: Vec<InstanceAppliedView>,
}

/// How far one instance has come.
#[derive(Serialize, ToSchema)]
pub(super) struct InstanceAppliedView {
    id: String,
    hostname: String,
    status: InstanceStatus,
    applied_revision: Option<u64>,
    /// Why it does not serve the revision, or not all of it; empty if it does.
    reasons: Vec<String>,
}

impl From<Applied> for AppliedView {
    fn from(applied: Applied) -> Self {
        let complete = applied.is_complete();
        let view = |instance: &Instance| {
            let heartbeat = &instance.row.heartbeat;
            let mut reasons: Vec<String> = heartbeat.quarantined.iter().map(quarantine_sentence).collect();
            if heartbeat.applied < Some(applied.revision) {
                reasons.push(match instance.status {
                    InstanceStatus::Healthy => "it has not applied the revision yet".to_owned(),
                    other => format!("it is {}, and was not waited for", other.name()),
                });
            }
            InstanceAppliedView {
                id: heartbeat.instance_id.to_string(),
                hostname: heartbeat.hostname.clone(),
                status: instance.status,
                applied_revision: heartbeat.applied.map(|revision| revision.0),
                reasons,
            }
        };
        let instances = applied.instances.iter().map(view).collect();
        Self { revision: applied.revision.0, complete, instances }
    }
}

/// The parameters of waiting.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "documents what is read by hand")]
pub(super) struct AppliedParameters {
    /// The revision; without: the newest one.
    revision: Option<u64>,
    /// How long to wait at most, such as `30s` or `2m`; without: not at all.
    wait: Option<String>,
}

/// Waits until every healthy instance of a gateway group serves a revision, and says which do not and why.
#[utoipa::path(get, path = "/api/gateway_groups/{gateway_group_id}/applied", tag = "gateway instance",
    params(("gateway_group_id" = String, Path), AppliedParameters),
    responses((status = 200, body = Single<AppliedView>), Refusals))]
pub(super) async fn gateway_group_applied(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
    Query(pairs): Pairs,
) -> Result<Json<Single<AppliedView>>, ApiError> {
    let group = ids.id("gateway_group_id")?;
    let mut revision = None;
    for (_, value) in pairs.iter().filter(|(name, _)| name == "revision") {
        let number = value.parse().map_err(|_| Violations::one("/revision", "value must be a revision"))?;
        revision = Some(Revision(number));
    }
    let patience = patience(&pairs)?.unwrap_or_default();
    Ok(single(app.revision_await(&caller, &group, revision, patience).await?.into()))
}

/// The parameter `wait`, if it is there.
pub(super) fn patience(pairs: &[(String, String)]) -> Result<Option<Duration>, Violations> {
    let Some((_, value)) = pairs.iter().find(|(name, _)| name == "wait") else { return Ok(None) };
    let (number, unit) = match value.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => match value.strip_suffix('m') {
            Some(number) => (number, 60_000),
            None => (value.strip_suffix('s').unwrap_or(value), 1000),
        },
    };
    let patience = number.parse().ok().and_then(|number: u64| number.checked_mul(unit));
    let patience = patience.map(Duration::from_millis).filter(|patience| *patience <= AWAIT_MAX);
    let wrong = || Violations::one("/wait", "value must be a time of up to five minutes, such as 30s or 2m");
    patience.ok_or_else(wrong).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_a_time_with_a_unit() {
        let read = |text: &str| patience(&[("wait".to_owned(), text.to_owned())]);
        for (text, expected) in [("30s", 30_000), ("250ms", 250), ("2m", 120_000), ("5", 5000), ("0s", 0)] {
            assert_eq!(read(text).unwrap(), Some(Duration::from_millis(expected)), "{text}");
        }
        for text in ["", "s", "-1s", "6m", "1h", "1.5s", "99999999999999999999s"] {
            assert!(read(text).is_err(), "{text}");
        }
        assert_eq!(patience(&[]).unwrap(), None);
    }
}
