//! What a change changes, before and after, for the audit log.
//!
//! Every operation that writes an object names it first ([`Writing::witness`]); what it was is read then, and what it
//! has become when the change is committed, so no rule has to remember to tell. Without a call, and in a dry run,
//! nobody asks and nothing is read.
//! Documents are compared in the clear and told with their secrets masked: that a secret changed is seen, not the
//! secret.

use std::collections::BTreeMap;

use gatewright_model::diff::{self, Change};
use gatewright_model::id::{GatewayGroupId, RouteId, ServiceId, ServiceVersionId};
use serde::Serialize;
use serde_json::{Value, json};

use super::call::Call;
use super::database::query;
use super::group_route::RouteKey;
use super::{ObjectKey, ObjectKind, Reading, StoreError, Writing, from_json, to_json};
use crate::mask::mask;

/// Bytes of changes that one audit row keeps; configuration itself is kept elsewhere.
const CHANGES_BYTES_MAX: usize = 64 << 10;

/// An object that is changed.
#[derive(Clone, Debug)]
pub(super) enum Subject {
    GatewayGroup(GatewayGroupId),
    ServiceTemplate(ServiceId),
    RouteTemplate(RouteId),
    PublishedService(GatewayGroupId, ServiceId),
    /// A route of a service without a version: of which group, of which kind, and which.
    GroupRoute(GatewayGroupId, &'static str, String),
    GroupObject {
        group: GatewayGroupId,
        kind: ObjectKind,
        owner: String,
        id: String,
    },
    GroupAdminKey(GatewayGroupId),
    InstanceToken(String),
    InstanceCertificate(String),
    User(String),
    AccessToken(String),
    Rollout(String),
}

/// What a transaction has named so far, as it was.
#[derive(Default)]
pub(super) struct Witnessed(BTreeMap<String, (Subject, Option<Value>)>);

/// What became of one object.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ObjectChange {
    noun: &'static str,
    pub(super) id: String,
    /// What it belongs to, if it is a part of something.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) owner: String,
    outcome: Outcome,
    changes: Vec<Change>,
}

/// What became of it as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Created,
    Changed,
    Deleted,
}

impl Subject {
    pub(super) fn group_route(key: RouteKey<'_>) -> Self {
        Self::GroupRoute(key.group.clone(), super::route::kind_text(key.kind), key.id.to_string())
    }

    pub(super) fn group_object(key: ObjectKey<'_>) -> Self {
        let (group, kind) = (key.group.clone(), key.kind);
        Self::GroupObject { group, kind, owner: key.owner.to_owned(), id: key.id.to_owned() }
    }

    fn noun(&self) -> &'static str {
        match self {
            Self::GatewayGroup(_) => "gateway_group",
            Self::ServiceTemplate(_) => "service_template",
            Self::RouteTemplate(_) => "route_template",
            Self::PublishedService(..) => "published_service",
            Self::GroupRoute(..) => "route",
            Self::GroupObject { kind, .. } => kind.name(),
            Self::GroupAdminKey(_) => "gateway_group_admin_key",
            Self::InstanceToken(_) => "instance_token",
            Self::InstanceCertificate(_) => "instance_certificate",
            Self::User(_) => "user",
            Self::AccessToken(_) => "access_token",
            Self::Rollout(_) => "rollout",
        }
    }

    fn id(&self) -> &str {
        match self {
            Self::GatewayGroup(id) | Self::GroupAdminKey(id) => id.as_str(),
            Self::ServiceTemplate(id) | Self::PublishedService(_, id) => id.as_str(),
            Self::RouteTemplate(id) => id.as_str(),
            Self::GroupRoute(_, _, id) | Self::GroupObject { id, .. } => id,
            Self::InstanceToken(id) | Self::InstanceCertificate(id) => id,
            Self::User(id) | Self::AccessToken(id) | Self::Rollout(id) => id,
        }
    }

    fn owner(&self) -> &str {
        match self {
            Self::GroupObject { owner, .. } => owner,
            _ => "",
        }
    }

    /// Tells it apart from every other one.
    fn place(&self) -> String {
        let group = match self {
            Self::PublishedService(group, _) | Self::GroupObject { group, .. } => group.as_str().to_owned(),
            Self::GroupRoute(group, kind, _) => format!("{group}/{kind}"),
            _ => String::new(),
        };
        format!("{}/{group}/{}/{}", self.noun(), self.owner(), self.id())
    }
}

impl Writing {
    /// Says that `subject` is about to be changed.
    pub(super) async fn witness(&mut self, subject: Subject) -> Result<(), StoreError> {
        if Call::current().is_none_or(|call| call.is_dry_run()) {
            return Ok(());
        }
        let place = subject.place();
        if !self.witnessed.0.contains_key(&place) {
            let before = self.document(&subject).await?;
            self.witnessed.0.insert(place, (subject, before));
        }
        Ok(())
    }

    /// Says that everything these rows name is about to be changed; the first column names it.
    pub(super) async fn witness_all(
        &mut self,
        ids: super::database::Query,
        subject: impl Fn(String) -> Option<Subject>,
    ) -> Result<(), StoreError> {
        if Call::current().is_none_or(|call| call.is_dry_run()) {
            return Ok(());
        }
        for row in self.tx.rows(ids).await? {
            if let Some(subject) = subject(row.text("id")?) {
                self.witness(subject).await?;
            }
        }
        Ok(())
    }

    /// What has changed of what was named.
    pub(super) async fn changes(&mut self) -> Result<Vec<ObjectChange>, StoreError> {
        let mut changes = Vec::new();
        for (subject, mut before) in std::mem::take(&mut self.witnessed).0.into_values() {
            let mut after = self.document(&subject).await?;
            if let Subject::PublishedService(..) = subject {
                self.routes_add(&mut before, &mut after).await?;
            }
            changes.extend(change(&subject, before, after));
        }
        Ok(changes)
    }

    /// Adds the routes of versions, which are only worth reading if there is another version now.
    async fn routes_add(
        &mut self,
        before: &mut Option<Value>,
        after: &mut Option<Value>,
    ) -> Result<(), StoreError> {
        let version = |document: &Option<Value>| -> Option<ServiceVersionId> {
            document.as_ref()?["service_version_id"].as_str()?.parse().ok()
        };
        if version(before) == version(after) {
            return Ok(());
        }
        for document in [before, after] {
            let Some(id) = version(document) else { continue };
            let Some(version) = self.service_version_get(&id).await? else { continue };
            let routes = version.routes.iter().map(|route| (route.route_id.to_string(), json!(route.route)));
            let streams =
                version.stream_routes.iter().map(|route| (route.route_id.to_string(), json!(route.route)));
            if let Some(document) = document {
                document["routes"] = routes.chain(streams).collect();
            }
        }
        Ok(())
    }
}

impl Reading {
    /// An object as the audit log tells of it, in the clear; none: it is not there.
    async fn document(&mut self, subject: &Subject) -> Result<Option<Value>, StoreError> {
        Ok(match subject {
            Subject::GatewayGroup(id) => self.gateway_group_get(id).await?.map(|row| json!(row.group)),
            Subject::ServiceTemplate(id) => {
                self.service_template_get(id).await?.map(|row| json!(row.template))
            }
            Subject::RouteTemplate(id) => {
                let one = query("SELECT service_id, content FROM route_template WHERE id = $1");
                self.route_document(one.bind(id.as_str())).await?
            }
            Subject::PublishedService(group, id) => self.published_service_document(group, id).await?,
            Subject::GroupRoute(group, kind, id) => {
                let one = query(
                    "SELECT service_id, content FROM group_route \
                     WHERE gateway_group_id = $1 AND kind = $2 AND id = $3",
                );
                self.route_document(one.bind(group.as_str()).bind(*kind).bind(id.as_str())).await?
            }
            Subject::GroupObject { group, kind, owner, id } => {
                let row = self.group_object_get(ObjectKey { group, kind: *kind, owner, id }).await?;
                row.map(|row| from_json(&row.document)).transpose()?
            }
            Subject::GroupAdminKey(group) => {
                let one =
                    query("SELECT key_sha256 AS value FROM group_admin_key WHERE gateway_group_id = $1");
                self.secret_document("admin_key", one.bind(group.as_str())).await?
            }
            Subject::InstanceToken(id) => {
                let one = query("SELECT token_sha256 AS value FROM instance_token WHERE id = $1");
                self.secret_document("token", one.bind(id.as_str())).await?
            }
            Subject::InstanceCertificate(id) => {
                let one =
                    query("SELECT certificate_sha256, expires_at FROM instance_certificate WHERE id = $1");
                let row = self.tx.row(one.bind(id.as_str())).await?;
                let read = |row: super::database::Row| -> Result<Value, StoreError> {
                    let sha256 = row.text("certificate_sha256")?;
                    Ok(json!({ "certificate_sha256": sha256, "expires_at": row.integer("expires_at")? }))
                };
                row.map(read).transpose()?
            }
            Subject::Rollout(id) => self.rollout_get(id).await?.map(|row| {
                let end = row
                    .end
                    .as_ref()
                    .map(|end| json!({ "outcome": end.outcome.name(), "reason": end.reason }));
                json!({
                    "kind": row.kind.name(), "version": row.candidate.number, "before": row.baseline.number,
                    "percent": row.share, "step": row.step, "plan": row.plan, "end": end,
                })
            }),
            Subject::User(id) => self.user_document(id).await?,
            Subject::AccessToken(id) => {
                let one = query("SELECT name, expires_at, token_sha256 FROM access_token WHERE id = $1");
                let row = self.tx.row(one.bind(id.as_str())).await?;
                let read = |row: super::database::Row| -> Result<Value, StoreError> {
                    let (name, expires_at) = (row.text("name")?, row.integer("expires_at")?);
                    Ok(json!({ "name": name, "expires_at": expires_at, "token": row.text("token_sha256")? }))
                };
                row.map(read).transpose()?
            }
        })
    }

    async fn route_document(&mut self, one: super::database::Query) -> Result<Option<Value>, StoreError> {
        let members = self.members();
        let Some(row) = self.tx.row(one).await? else { return Ok(None) };
        let service = row.text("service_id")?;
        let mut document: Value = members.open(&service, &row.text("content")?)?;
        document["service_id"] = service.into();
        Ok(Some(document))
    }

    async fn published_service_document(
        &mut self,
        group: &GatewayGroupId,
        id: &ServiceId,
    ) -> Result<Option<Value>, StoreError> {
        let Some(row) = self.published_service_get(group, id).await? else { return Ok(None) };
        let mut document = json!(row.runtime);
        for (name, value) in [
            ("service_version_id", json!(row.version.as_ref().map(|version| &version.id))),
            ("version", json!(row.version.as_ref().map(|version| &version.number))),
            ("name", json!(row.content.name)),
            ("desc", json!(row.content.desc)),
            ("labels", json!(row.content.labels)),
            ("type", json!(row.content.kind)),
            ("plugins", json!(row.content.plugins)),
        ] {
            document[name] = value;
        }
        Ok(Some(document))
    }

    async fn user_document(&mut self, id: &str) -> Result<Option<Value>, StoreError> {
        let Some(user) = self.user_get(id).await? else { return Ok(None) };
        let one = query("SELECT password_hash FROM \"user\" WHERE id = $1").bind(id);
        let row = self.tx.row(one).await?.ok_or(StoreError::NotFound)?;
        Ok(Some(json!({
            "username": user.known.username, "first_name": user.first_name, "last_name": user.last_name,
            "roles": user.known.roles, "password": row.text("password_hash")?,
        })))
    }

    /// A document that is one secret, of which at most a digest is known.
    async fn secret_document(
        &mut self,
        name: &str,
        one: super::database::Query,
    ) -> Result<Option<Value>, StoreError> {
        self.tx.row(one).await?.map(|row| Ok(json!({ name: row.text("value")? }))).transpose()
    }
}

/// What became of an object; none: it is as it was.
fn change(subject: &Subject, before: Option<Value>, after: Option<Value>) -> Option<ObjectChange> {
    let outcome = match (&before, &after) {
        (None, None) => return None,
        (None, Some(_)) => Outcome::Created,
        (Some(_), None) => Outcome::Deleted,
        (Some(_), Some(_)) => Outcome::Changed,
    };
    let [before, after] = [before, after].map(|document| document.unwrap_or_else(|| json!({})));
    let mut changes = diff::changes(&before, &after);
    if changes.is_empty() && outcome == Outcome::Changed {
        return None;
    }
    let [before, after] = [before, after].map(|document| mask(&document).document);
    for change in &mut changes {
        change.before = change.before.take().and_then(|_| before.pointer(&change.path).cloned());
        change.after = change.after.take().and_then(|_| after.pointer(&change.path).cloned());
    }
    let (noun, id, owner) = (subject.noun(), subject.id().to_owned(), subject.owner().to_owned());
    Some(ObjectChange { noun, id, owner, outcome, changes })
}

/// The changes as a row keeps them: a JSON object with those there is room for, and how many there is none for.
pub(super) fn written(changes: Vec<ObjectChange>) -> String {
    if changes.is_empty() {
        return String::new();
    }
    let (mut room, mut omitted) = (CHANGES_BYTES_MAX, 0_usize);
    let mut fits = |bytes: usize, fields: usize| {
        let fits = bytes <= room;
        if fits {
            room -= bytes
        } else {
            omitted += fields
        }
        fits
    };
    let mut objects = Vec::new();
    for mut object in changes {
        if !fits(object.id.len() + object.owner.len() + 100, object.changes.len()) {
            continue;
        }
        object.changes.retain(|change| fits(to_json(change).map_or(usize::MAX, |text| text.len()), 1));
        objects.push(object);
    }
    json!({ "objects": objects, "omitted": omitted }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(before: Value, after: Value) -> Value {
        let subject = Subject::ServiceTemplate("s".parse().unwrap());
        let document = |value: Value| (!value.is_null()).then_some(value);
        json!(change(&subject, document(before), document(after)))
    }

    #[test]
    fn a_secret_that_changed_is_seen_to_change_and_not_shown() {
        let document = |key: &str, desc: &str| json!({"desc": desc, "plugins": {"csrf": {"key": key}}});
        let told = told(document("s3cret-one", "a"), document("s3cret-two", "a"));
        assert_eq!(told["outcome"], "changed");
        let masked = json!([{"path": "/plugins/csrf/key", "before": "******", "after": "******"}]);
        assert_eq!(told["changes"], masked);
    }

    #[test]
    fn what_came_and_what_went_is_told_whole_and_what_stayed_is_not_told() {
        let document = json!({"name": "s", "password": "p4ss"});
        let came = told(Value::Null, document.clone());
        assert_eq!((&came["outcome"], &came["changes"][1]["after"]), (&json!("created"), &json!("******")));
        let went = told(document.clone(), Value::Null);
        assert_eq!((&went["outcome"], &went["changes"][0]["before"]), (&json!("deleted"), &json!("s")));
        assert_eq!(told(document.clone(), document), Value::Null);
    }

    #[test]
    fn what_there_is_no_room_for_is_counted() {
        let subject = Subject::ServiceTemplate("s".parse().unwrap());
        let large = json!({"a": "x".repeat(CHANGES_BYTES_MAX), "b": 1});
        let text = written(vec![change(&subject, None, Some(large)).unwrap()]);
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["omitted"], 1);
        assert_eq!(read["objects"][0]["changes"][0]["path"], "/b");
        assert_eq!(written(Vec::new()), "");
    }
}
