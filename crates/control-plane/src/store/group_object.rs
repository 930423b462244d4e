//! What a gateway group keeps beside services: consumers, certificates, global rules and the like.
//!
//! One table, because they are all read and written alike. Documents are encrypted (see [`super::sealed`]); name and
//! labels stay readable, because lists filter by them. Every write carries the group's revision of that moment, and a
//! removal leaves a tombstone with its revision.

use gatewright_model::id::{GatewayGroupId, ObjectId};
use gatewright_model::resource::Labels;
use gatewright_model::resource::certificate::Certificate;
use gatewright_model::resource::group_object::{self as wire, GroupObject, ObjectContent};
use gatewright_model::resource::sni::Sni;
use gatewright_model::resource::ssl::Ssl;
use gatewright_model::snapshot::Revision;
use serde::de::DeserializeOwned;

use super::database::{Row, query};
use super::list::{self, ListFilter, Listed, Scope, Source};
use super::object_count::Counted;
use super::published_service::number;
use super::witness::Subject;
use super::{Reading, Stamp, StoreError, Writing, from_json, to_json};

/// What kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ObjectKind {
    CaCertificate,
    Certificate,
    Consumer,
    Credential,
    GlobalRule,
    PluginMetadata,
    Proto,
    SecretProvider,
    ServiceRegistry,
    ServiceUpstream,
    Sni,
    Ssl,
}

impl ObjectKind {
    const ALL: [Self; 12] = [
        Self::CaCertificate,
        Self::Certificate,
        Self::Consumer,
        Self::Credential,
        Self::GlobalRule,
        Self::PluginMetadata,
        Self::Proto,
        Self::SecretProvider,
        Self::ServiceRegistry,
        Self::ServiceUpstream,
        Self::Sni,
        Self::Ssl,
    ];

    /// The kind as it stands in the store.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::CaCertificate => "ca_certificate",
            Self::Certificate => "certificate",
            Self::Consumer => "consumer",
            Self::Credential => "credential",
            Self::GlobalRule => "global_rule",
            Self::PluginMetadata => "plugin_metadata",
            Self::Proto => "proto",
            Self::SecretProvider => "secret_provider",
            Self::ServiceRegistry => "service_registry",
            Self::ServiceUpstream => "service_upstream",
            Self::Sni => "sni",
            Self::Ssl => "ssl",
        }
    }

    /// Whether such an object belongs to another one, not to the group itself.
    const fn has_owner(self) -> bool {
        matches!(self, Self::Credential | Self::SecretProvider | Self::ServiceUpstream)
    }

    fn of_row(row: &Row) -> Result<Self, StoreError> {
        let name = row.text("kind")?;
        let unknown = || StoreError::Unavailable { reason: format!("an object is of unknown kind `{name}`") };
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(unknown)
    }
}

/// Which object of which group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ObjectKey<'a> {
    pub(crate) group: &'a GatewayGroupId,
    pub(crate) kind: ObjectKind,
    /// What the object belongs to; empty: the group.
    pub(crate) owner: &'a str,
    pub(crate) id: &'a str,
}

impl ObjectKey<'_> {
    /// What gateways know the object by; none: it reaches them as a part of something else.
    pub(crate) fn on_the_wire(self) -> Result<Option<wire::ObjectKey>, String> {
        let kind = match self.kind {
            ObjectKind::Consumer => wire::ObjectKind::Consumer,
            ObjectKind::Credential => wire::ObjectKind::Credential,
            ObjectKind::GlobalRule => wire::ObjectKind::GlobalRule,
            ObjectKind::PluginMetadata => wire::ObjectKind::PluginMetadata,
            ObjectKind::Proto => wire::ObjectKind::Proto,
            ObjectKind::SecretProvider => wire::ObjectKind::SecretProvider,
            ObjectKind::ServiceRegistry => wire::ObjectKind::ServiceRegistry,
            ObjectKind::Certificate | ObjectKind::Sni | ObjectKind::Ssl => wire::ObjectKind::Ssl,
            ObjectKind::CaCertificate | ObjectKind::ServiceUpstream => return Ok(None),
        };
        let parsed = |text: &str| text.parse::<ObjectId>().map_err(|error| error.to_string());
        let (consumer, id) = match self.kind {
            ObjectKind::Credential => (Some(parsed(self.owner)?), parsed(self.id)?),
            ObjectKind::SecretProvider => (None, parsed(&format!("{}.{}", self.owner, self.id))?),
            ObjectKind::Certificate => (None, parsed(&format!("{}{}", wire::CERTIFICATE_PLACE, self.id))?),
            ObjectKind::Sni => (None, parsed(&format!("{}{}", wire::SNI_PLACE, self.id))?),
            _ => (None, parsed(self.id)?),
        };
        Ok(Some(wire::ObjectKey { kind, consumer, id }))
    }

    /// The place a document belongs to; ids hold no `/`. It is encrypted for this place only.
    pub(super) fn place(self) -> String {
        format!("{}/{}/{}/{}", self.group, self.kind.name(), self.owner, self.id)
    }
}

/// An object as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ObjectRow {
    pub(crate) owner: String,
    pub(crate) id: String,
    /// In the clear.
    pub(crate) document: String,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
    /// Rises with every change of the object.
    pub(crate) change_number: i64,
}

/// What is written about an object.
pub(crate) struct ObjectWrite<'a> {
    pub(crate) name: &'a str,
    pub(crate) labels: &'a Labels,
    /// In the clear.
    pub(crate) document: &'a str,
    /// What no other object of the kind may share in the group.
    pub(crate) mark: Option<&'a str>,
    pub(crate) revision: Revision,
    /// Encrypts this document and no other.
    pub(crate) random: [u8; 32],
}

const SOURCE: Source = Source {
    columns: "o.owner, o.id, o.sealed, o.created_at, o.updated_at, o.change_number",
    tables: "group_object o",
    object: "o",
    named: "o",
    id: "id",
    owner: Some("owner"),
};

impl Reading {
    pub(crate) async fn group_object_get(
        &mut self,
        key: ObjectKey<'_>,
    ) -> Result<Option<ObjectRow>, StoreError> {
        let one = query(
            "SELECT owner, id, sealed, created_at, updated_at, change_number FROM group_object \
             WHERE gateway_group_id = $1 AND kind = $2 AND owner = $3 AND id = $4",
        );
        let one = one.bind(key.group.as_str()).bind(key.kind.name()).bind(key.owner).bind(key.id);
        let row = self.tx.row(one).await?;
        row.map(|row| self.group_object(key.group, key.kind, &row)).transpose()
    }

    /// The objects of one kind; of one owner, or of all.
    pub(crate) async fn group_object_list(
        &mut self,
        group: &GatewayGroupId,
        kind: ObjectKind,
        owner: Option<&str>,
        filter: &ListFilter,
    ) -> Result<Listed<ObjectRow>, StoreError> {
        let mut fixed = vec![("o.gateway_group_id", group.as_str()), ("o.kind", kind.name())];
        fixed.extend(owner.map(|owner| ("o.owner", owner)));
        let secret_key = self.secret_key()?.clone();
        let read = |row: &Row| read(&secret_key, group, kind, row);
        // Objects with an owner are counted with those of all owners.
        let is_whole = owner.is_none_or(|owner| owner.is_empty() && !kind.has_owner());
        let counted = is_whole.then_some(Counted { group: group.as_str(), noun: kind.name() });
        list::select(&mut self.tx, &SOURCE, Scope { fixed: &fixed, counted }, filter, read).await
    }

    fn group_object(
        &self,
        group: &GatewayGroupId,
        kind: ObjectKind,
        row: &Row,
    ) -> Result<ObjectRow, StoreError> {
        read(self.secret_key()?, group, kind, row)
    }

    /// The object of this kind that has this mark: its owner and id.
    pub(crate) async fn group_object_marked(
        &mut self,
        group: &GatewayGroupId,
        kind: ObjectKind,
        mark: &str,
    ) -> Result<Option<(String, String)>, StoreError> {
        let one = query(
            "SELECT owner, id FROM group_object WHERE gateway_group_id = $1 AND kind = $2 AND mark = $3",
        );
        let mark = self.secret_key()?.mark(mark);
        let row = self.tx.row(one.bind(group.as_str()).bind(kind.name()).bind(mark)).await?;
        row.map(|row| Ok((row.text("owner")?, row.text("id")?))).transpose()
    }

    /// The objects of a group that changed after `since`, as gateways get them, in a stable order. Upstreams are in
    /// their services, CA certificates in their SNIs.
    pub(crate) async fn group_object_changes(
        &mut self,
        group: &GatewayGroupId,
        since: Revision,
    ) -> Result<Vec<GroupObject>, StoreError> {
        let changed = query(
            "SELECT kind, owner, id, sealed, created_at, updated_at, change_number FROM group_object \
             WHERE gateway_group_id = $1 AND revision > $2 AND kind NOT IN ('service_upstream', 'ca_certificate') \
             ORDER BY revision, kind, owner, id",
        );
        let rows = self.tx.rows(changed.bind(group.as_str()).bind(number(since))).await?;
        let mut objects = Vec::with_capacity(rows.len());
        for row in rows {
            let kind = ObjectKind::of_row(&row)?;
            let stored = self.group_object(group, kind, &row)?;
            let key = wire_key(ObjectKey { group, kind, owner: &stored.owner, id: &stored.id })?;
            let content = match kind {
                ObjectKind::Sni => Some(ObjectContent::Ssl(self.sni_as_ssl(group, &stored).await?)),
                kind => content(kind, &stored)?,
            };
            if let (Some(key), Some(content)) = (key, content) {
                objects.push(GroupObject { id: key.id, content });
            }
        }
        Ok(objects)
    }

    /// What gateways get of an SNI.
    async fn sni_as_ssl(&mut self, group: &GatewayGroupId, stored: &ObjectRow) -> Result<Ssl, StoreError> {
        let sni: Sni = from_json(&stored.document)?;
        let certificates = self.referred_to(group, ObjectKind::Certificate, &sni.certificate_ids).await?;
        let authorities = self.referred_to(group, ObjectKind::CaCertificate, &sni.ca_certificate_ids).await?;
        Ok(sni.as_ssl(certificates, &authorities))
    }

    /// The objects with these ids; the rules keep what is referred to.
    async fn referred_to<T: DeserializeOwned>(
        &mut self,
        group: &GatewayGroupId,
        kind: ObjectKind,
        ids: &[ObjectId],
    ) -> Result<Vec<T>, StoreError> {
        let mut objects = Vec::with_capacity(ids.len());
        for id in ids {
            let row = self.group_object_get(ObjectKey { group, kind, owner: "", id: id.as_str() }).await?;
            objects.extend(row.map(|row| from_json(&row.document)).transpose()?);
        }
        Ok(objects)
    }

    /// The objects that were removed from a group after `since` and are not back.
    pub(crate) async fn removed_object_list(
        &mut self,
        group: &GatewayGroupId,
        since: Revision,
    ) -> Result<Vec<wire::ObjectKey>, StoreError> {
        let removed = query(
            "SELECT kind, owner, id FROM removed_object WHERE gateway_group_id = $1 AND revision > $2 \
             ORDER BY kind, owner, id",
        );
        let rows = self.tx.rows(removed.bind(group.as_str()).bind(number(since))).await?;
        let keys = rows.iter().map(|row| {
            let (owner, id) = (row.text("owner")?, row.text("id")?);
            wire_key(ObjectKey { group, kind: ObjectKind::of_row(row)?, owner: &owner, id: &id })
        });
        Ok(keys.collect::<Result<Vec<_>, StoreError>>()?.into_iter().flatten().collect())
    }
}

impl Writing {
    /// Creates the object or replaces it whole.
    pub(crate) async fn group_object_put(
        &mut self,
        stamp: Stamp,
        key: ObjectKey<'_>,
        write: &ObjectWrite<'_>,
    ) -> Result<(), StoreError> {
        self.witness(Subject::group_object(key)).await?;
        let forget = query(
            "DELETE FROM removed_object WHERE gateway_group_id = $1 AND kind = $2 AND owner = $3 AND id = $4",
        );
        let forget = forget.bind(key.group.as_str()).bind(key.kind.name()).bind(key.owner).bind(key.id);
        self.tx.execute(forget).await?;
        let put = query(
            "INSERT INTO group_object (gateway_group_id, kind, owner, id, name, labels, sealed, mark, revision, \
             created_at, updated_at, created_number, change_number) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, $11, $11) \
             ON CONFLICT (gateway_group_id, kind, owner, id) DO UPDATE SET name = excluded.name, \
             labels = excluded.labels, sealed = excluded.sealed, mark = excluded.mark, \
             revision = excluded.revision, updated_at = excluded.updated_at, change_number = excluded.change_number",
        );
        let secret_key = self.secret_key()?;
        let sealed = secret_key.seal(&key.place(), write.document, write.random)?;
        let mark = write.mark.map(|mark| secret_key.mark(mark));
        let put = put.bind(key.group.as_str()).bind(key.kind.name()).bind(key.owner).bind(key.id);
        let put = put.bind(write.name).bind(to_json(write.labels)?).bind(sealed).bind(mark);
        let put = put.bind(number(write.revision));
        self.tx.execute_one(put.bind(stamp.at).bind(stamp.number)).await
    }

    /// Notes that what gateways get of the object changed in this revision, because of something it refers to.
    pub(crate) async fn group_object_touch(
        &mut self,
        key: ObjectKey<'_>,
        revision: Revision,
    ) -> Result<(), StoreError> {
        let touch = query(
            "UPDATE group_object SET revision = $5 \
             WHERE gateway_group_id = $1 AND kind = $2 AND owner = $3 AND id = $4",
        );
        let touch = touch.bind(key.group.as_str()).bind(key.kind.name()).bind(key.owner).bind(key.id);
        self.tx.execute_one(touch.bind(number(revision))).await
    }

    /// Deletes the object and leaves a tombstone. Tombstones up to `forgotten` are dropped: gateways that are still
    /// behind it are sent everything.
    pub(crate) async fn group_object_delete(
        &mut self,
        key: ObjectKey<'_>,
        revision: Revision,
        forgotten: Revision,
    ) -> Result<(), StoreError> {
        self.witness(Subject::group_object(key)).await?;
        let delete = query(
            "DELETE FROM group_object WHERE gateway_group_id = $1 AND kind = $2 AND owner = $3 AND id = $4",
        );
        let delete = delete.bind(key.group.as_str()).bind(key.kind.name()).bind(key.owner).bind(key.id);
        self.tx.execute_one(delete).await?;
        let tombstone = query(
            "INSERT INTO removed_object (gateway_group_id, kind, owner, id, revision) VALUES ($1, $2, $3, $4, $5)",
        );
        let tombstone = tombstone.bind(key.group.as_str()).bind(key.kind.name()).bind(key.owner).bind(key.id);
        self.tx.execute_one(tombstone.bind(number(revision))).await?;
        let forget = query("DELETE FROM removed_object WHERE gateway_group_id = $1 AND revision <= $2");
        self.tx.execute(forget.bind(key.group.as_str()).bind(number(forgotten))).await?;
        Ok(())
    }

    /// Deletes everything of one kind that belongs to `owner`, and leaves tombstones.
    pub(crate) async fn group_object_delete_owned(
        &mut self,
        group: &GatewayGroupId,
        kind: ObjectKind,
        owner: &str,
        revision: Revision,
    ) -> Result<(), StoreError> {
        let owned =
            query("SELECT id FROM group_object WHERE gateway_group_id = $1 AND kind = $2 AND owner = $3");
        let owned = owned.bind(group.as_str()).bind(kind.name()).bind(owner);
        let subject = |id: String| Subject::group_object(ObjectKey { group, kind, owner, id: &id });
        self.witness_all(owned, |id| Some(subject(id))).await?;
        let tombstones = query(
            "INSERT INTO removed_object (gateway_group_id, kind, owner, id, revision) \
             SELECT gateway_group_id, kind, owner, id, $4 FROM group_object \
             WHERE gateway_group_id = $1 AND kind = $2 AND owner = $3",
        );
        let tombstones = tombstones.bind(group.as_str()).bind(kind.name()).bind(owner);
        self.tx.execute(tombstones.bind(number(revision))).await?;
        let delete =
            query("DELETE FROM group_object WHERE gateway_group_id = $1 AND kind = $2 AND owner = $3");
        self.tx.execute(delete.bind(group.as_str()).bind(kind.name()).bind(owner)).await?;
        Ok(())
    }
}

fn read(
    secret_key: &super::SecretKey,
    group: &GatewayGroupId,
    kind: ObjectKind,
    row: &Row,
) -> Result<ObjectRow, StoreError> {
    let (owner, id) = (row.text("owner")?, row.text("id")?);
    let place = ObjectKey { group, kind, owner: &owner, id: &id }.place();
    let document = secret_key.open(&place, &row.text("sealed")?)?;
    let (created_at, updated_at) = (row.integer("created_at")?, row.integer("updated_at")?);
    let change_number = row.integer("change_number")?;
    Ok(ObjectRow { owner, id, document, created_at, updated_at, change_number })
}

fn wire_key(key: ObjectKey<'_>) -> Result<Option<wire::ObjectKey>, StoreError> {
    let unusable = |reason| StoreError::Unavailable { reason: format!("{}: {reason}", key.place()) };
    key.on_the_wire().map_err(unusable)
}

/// What gateways get; none: the object is a part of something else, or made of several.
fn content(kind: ObjectKind, stored: &ObjectRow) -> Result<Option<ObjectContent>, StoreError> {
    let document = stored.document.as_str();
    Ok(Some(match kind {
        ObjectKind::Consumer => ObjectContent::Consumer(from_json(document)?),
        ObjectKind::Credential => ObjectContent::Credential {
            consumer: stored.owner.parse().map_err(|error| StoreError::Unavailable {
                reason: format!("a credential belongs to `{}`: {error}", stored.owner),
            })?,
            credential: from_json(document)?,
        },
        ObjectKind::GlobalRule => ObjectContent::GlobalRule(from_json(document)?),
        ObjectKind::PluginMetadata => ObjectContent::PluginMetadata(from_json(document)?),
        ObjectKind::Proto => ObjectContent::Proto(from_json(document)?),
        ObjectKind::SecretProvider => ObjectContent::SecretProvider(from_json(document)?),
        ObjectKind::ServiceRegistry => ObjectContent::ServiceRegistry(from_json(document)?),
        ObjectKind::Ssl => ObjectContent::Ssl(from_json(document)?),
        ObjectKind::Certificate => ObjectContent::Ssl(from_json::<Certificate>(document)?.as_ssl()),
        ObjectKind::CaCertificate | ObjectKind::ServiceUpstream | ObjectKind::Sni => return Ok(None),
    }))
}
