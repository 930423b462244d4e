//! What a gateway group keeps beside services: consumers and their credentials, certificates and SNIs, global rules,
//! plugin metadata, protos, secret providers, service registries, further upstreams of services.
//!
//! They are all read and written alike, so the operations are said once for every kind; what is special about a
//! kind is in its [`GroupObject`] and in the functions about owners.
//! Every write raises the group's revision, because what its gateways do changes at once.

use gatewright_model::id::{GatewayGroupId, ObjectId, ServiceId};
use gatewright_model::resource::consumer::Consumer;
use gatewright_model::resource::sni::Sni;
use gatewright_model::resource::{Labels, Plugins};
use gatewright_model::snapshot::Revision;
use gatewright_model::validation::Violations;
use serde_json::Value;

use super::document::{Document, Warnings};
use super::group_document::{Documented, parse};
use super::instance::instances_must_run;
use super::published_service::{forgotten, group_must_exist, published_service};
use super::{Action, App, Caller, Patch, Refusal, must_be_as_expected, service_registry};
use crate::store::{
    Call, ListFilter, Listed, ObjectKey, ObjectKind, ObjectRow, ObjectWrite, Reading, Writing,
};

/// A kind of object that a group keeps.
pub(crate) trait GroupObject: Documented {
    const KIND: ObjectKind;
    /// What callers call it.
    const NOUN: &'static str;
    /// What reading, creating, changing and deleting one is called.
    const ACTIONS: [Action; 4];
    /// What two of them may not share, as callers call it.
    const MARK: &'static str = "content";

    /// What lists search in, unless that is the id.
    fn name(&self) -> Option<&str> {
        None
    }

    fn labels(&self) -> &Labels {
        static NONE: Labels = Labels::new();
        &NONE
    }

    /// The plugins that an instance must have to serve this.
    fn plugins(&self) -> Option<&Plugins> {
        None
    }

    /// The id that follows from the content.
    fn natural_id(&self) -> Option<&str> {
        None
    }

    /// What is wrong with this content under this id.
    fn check_under(&self, _id: &str) -> Result<(), Violations> {
        Ok(())
    }

    /// What no two objects of the kind may share in a group.
    fn mark(&self) -> Option<String> {
        None
    }

    /// Puts back the secrets that answers mask, where an object is sent back as it was read.
    fn secrets_restore(&mut self, _before: Option<&Self>) -> Result<(), Violations> {
        Ok(())
    }

    /// Other objects of the group that this one does not work without, each with its JSON path.
    fn references(&self) -> Vec<(String, ObjectKind, &ObjectId)> {
        Vec::new()
    }
}

/// An object of a group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Object<T> {
    pub(crate) owner: String,
    pub(crate) id: String,
    pub(crate) content: T,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
    /// Rises with every change of the object.
    pub(crate) change_number: i64,
}

/// Where objects of one kind are: in a group, and below an owner where the kind has one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shelf<'a> {
    pub(crate) group: &'a GatewayGroupId,
    pub(crate) owner: &'a str,
}

impl<'a> Shelf<'a> {
    fn key(self, kind: ObjectKind, id: &'a str) -> ObjectKey<'a> {
        ObjectKey { group: self.group, kind, owner: self.owner, id }
    }
}

impl App {
    /// The objects on a shelf.
    pub(crate) async fn object_list<T: GroupObject>(
        &self,
        caller: &Caller,
        shelf: Shelf<'_>,
        filter: &ListFilter,
    ) -> Result<Listed<Object<T>>, Refusal> {
        caller.must(T::ACTIONS[0], shelf.group.as_str())?;
        let mut tx = self.store().read().await?;
        owner_must_exist(&mut tx, shelf.key(T::KIND, "")).await?;
        self.objects(&mut tx, shelf.group, Some(shelf.owner), filter).await
    }

    /// The objects of a group, whatever they belong to.
    pub(crate) async fn object_list_all<T: GroupObject>(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        filter: &ListFilter,
    ) -> Result<Listed<Object<T>>, Refusal> {
        caller.must(T::ACTIONS[0], group.as_str())?;
        let mut tx = self.store().read().await?;
        group_must_exist(&mut tx, group).await?;
        self.objects(&mut tx, group, None, filter).await
    }

    async fn objects<T: GroupObject>(
        &self,
        tx: &mut Reading,
        group: &GatewayGroupId,
        owner: Option<&str>,
        filter: &ListFilter,
    ) -> Result<Listed<Object<T>>, Refusal> {
        let Listed { rows, total } = tx.group_object_list(group, T::KIND, owner, filter).await?;
        let rows = rows.into_iter().map(object_of).collect::<Result<_, _>>()?;
        Ok(Listed { rows, total })
    }

    pub(crate) async fn object_get<T: GroupObject>(
        &self,
        caller: &Caller,
        shelf: Shelf<'_>,
        id: &ObjectId,
    ) -> Result<Object<T>, Refusal> {
        caller.must(T::ACTIONS[0], shelf.group.as_str())?;
        let mut tx = self.store().read().await?;
        let key = shelf.key(T::KIND, id.as_str());
        owner_must_exist(&mut tx, key).await?;
        self.object(&mut tx, key).await
    }

    /// Creates an object under the id that its content implies, that the caller chose, or that we make.
    pub(crate) async fn object_create<T: GroupObject>(
        &self,
        caller: &Caller,
        shelf: Shelf<'_>,
        document: Document<T, ObjectId>,
    ) -> Result<(Object<T>, Warnings), Refusal> {
        caller.must(T::ACTIONS[1], shelf.group.as_str())?;
        let id = match (document.content.natural_id(), document.id) {
            (Some(id), _) => ObjectId::try_from(id.to_owned())
                .map_err(|error| Violations::one("/id", error.to_string()))?,
            (None, Some(id)) => id,
            (None, None) => self.world().id(),
        };
        let mut tx = self.store().write().await?;
        let key = shelf.key(T::KIND, id.as_str());
        owner_must_exist(&mut tx, key).await?;
        if tx.group_object_get(key).await?.is_some() {
            return Err(Refusal::IdTaken { noun: T::NOUN, id: id.to_string() });
        }
        let mut content = document.content;
        content.secrets_restore(None)?;
        let object = self.object_write(&mut tx, key, &content).await?;
        Call::concerns(id.as_str(), content.name().unwrap_or_default());
        tx.commit().await?;
        self.hints().changed(shelf.group);
        Ok((object, document.warnings))
    }

    /// Creates the object under this id, or replaces it whole.
    pub(crate) async fn object_put<T: GroupObject>(
        &self,
        caller: &Caller,
        shelf: Shelf<'_>,
        id: &ObjectId,
        document: Document<T, ObjectId>,
    ) -> Result<(Object<T>, Warnings), Refusal> {
        caller.must(T::ACTIONS[2], shelf.group.as_str())?;
        let mut tx = self.store().write().await?;
        let key = shelf.key(T::KIND, id.as_str());
        owner_must_exist(&mut tx, key).await?;
        let before = tx.group_object_get(key).await?.map(object_of::<T>).transpose()?;
        must_be_as_expected(T::NOUN, id.as_str(), before.as_ref().map(|object| object.change_number))?;
        let mut content = document.content;
        content.secrets_restore(before.as_ref().map(|object| &object.content))?;
        let object = self.object_write(&mut tx, key, &content).await?;
        tx.commit().await?;
        self.hints().changed(shelf.group);
        Ok((object, document.warnings))
    }

    pub(crate) async fn object_patch<T: GroupObject>(
        &self,
        caller: &Caller,
        shelf: Shelf<'_>,
        id: &ObjectId,
        patch: &Patch,
    ) -> Result<(Object<T>, Warnings), Refusal> {
        caller.must(T::ACTIONS[2], shelf.group.as_str())?;
        let mut tx = self.store().write().await?;
        let key = shelf.key(T::KIND, id.as_str());
        owner_must_exist(&mut tx, key).await?;
        let before = self.object::<T>(&mut tx, key).await?;
        must_be_as_expected(T::NOUN, id.as_str(), Some(before.change_number))?;
        let after = patch.apply(serde_json::to_value(&before.content).unwrap_or(Value::Null))?;
        let (mut content, warnings) = parse::<T>(after)?;
        content.secrets_restore(Some(&before.content))?;
        let object = self.object_write(&mut tx, key, &content).await?;
        tx.commit().await?;
        self.hints().changed(shelf.group);
        Ok((object, warnings))
    }

    /// Deletes the object, and what belongs to it.
    pub(crate) async fn object_delete<T: GroupObject>(
        &self,
        caller: &Caller,
        shelf: Shelf<'_>,
        id: &ObjectId,
    ) -> Result<(), Refusal> {
        caller.must(T::ACTIONS[3], shelf.group.as_str())?;
        let mut tx = self.store().write().await?;
        let key = shelf.key(T::KIND, id.as_str());
        owner_must_exist(&mut tx, key).await?;
        let not_found = || Refusal::NotFound { noun: T::NOUN, id: id.to_string() };
        let before = tx.group_object_get(key).await?.ok_or_else(not_found)?;
        must_be_as_expected(T::NOUN, id.as_str(), Some(before.change_number))?;
        let referrer = referrers(&mut tx, key).await?.into_iter().next().map(|sni| format!("SNI `{sni}`"));
        let user = service_registry::user(&mut tx, key).await?.map(|service| format!("service `{service}`"));
        if let Some(by) = referrer.or(user) {
            return Err(Refusal::StillReferred { noun: T::NOUN, id: id.to_string(), by });
        }
        let revision = revise(&mut tx, key).await?;
        tx.group_object_delete(key, revision, forgotten(revision)).await?;
        if key.kind == ObjectKind::ServiceRegistry {
            tx.registry_check_delete(key.group, key.id).await?;
        }
        if key.kind == ObjectKind::Consumer {
            tx.group_object_delete_owned(key.group, ObjectKind::Credential, key.id, revision).await?;
        }
        tx.commit().await?;
        self.hints().changed(shelf.group);
        Ok(())
    }

    async fn object<T: GroupObject>(
        &self,
        tx: &mut Reading,
        key: ObjectKey<'_>,
    ) -> Result<Object<T>, Refusal> {
        let row = tx.group_object_get(key).await?;
        let row = row.ok_or_else(|| Refusal::NotFound { noun: T::NOUN, id: key.id.to_owned() })?;
        object_of(row)
    }

    async fn object_write<T: GroupObject>(
        &self,
        tx: &mut Writing,
        key: ObjectKey<'_>,
        content: &T,
    ) -> Result<Object<T>, Refusal> {
        if let Some(natural) = content.natural_id().filter(|natural| *natural != key.id) {
            let message =
                format!("the id of this {} must be `{natural}`, which its content implies", T::NOUN);
            return Err(Violations::one("/id", message).into());
        }
        content.check_under(key.id)?;
        key.on_the_wire().map_err(|reason| Violations::one("/id", reason))?;
        for (at, kind, id) in content.references() {
            if tx.group_object_get(ObjectKey { kind, owner: "", id: id.as_str(), ..key }).await?.is_none() {
                let message = format!("{} `{id}` not found in the gateway group", kind.name());
                return Err(Violations::one(at, message).into());
            }
        }
        let mark = content.mark();
        if let Some(mark) = &mark {
            let other = tx.group_object_marked(key.group, T::KIND, mark).await?;
            if let Some((owner, id)) = other.filter(|(owner, id)| owner != key.owner || id != key.id) {
                let by = if owner.is_empty() { id } else { format!("{owner}/{id}") };
                return Err(Refusal::Duplicate { noun: T::NOUN, what: T::MARK, by });
            }
        }
        let plugins = content.plugins().into_iter().flat_map(Plugins::keys).cloned().collect();
        instances_must_run(tx, key.group, plugins, self.world().now()).await?;
        let text = serde_json::to_string(content).unwrap_or_default();
        let stamp = tx.stamp(self.world().now()).await?;
        let write = ObjectWrite {
            name: content.name().unwrap_or(key.id),
            labels: content.labels(),
            document: &text,
            mark: mark.as_deref(),
            revision: revise(tx, key).await?,
            random: self.world().random(),
        };
        tx.group_object_put(stamp, key, &write).await?;
        self.object(tx, key).await
    }
}

pub(super) fn object_of<T: GroupObject>(row: ObjectRow) -> Result<Object<T>, Refusal> {
    let ObjectRow { owner, id, document, created_at, updated_at, change_number } = row;
    let unreadable = |error| Refusal::Unavailable {
        reason: format!("{} `{id}` is stored and cannot be read: {error}", T::NOUN),
    };
    let content = serde_json::from_str(&document).map_err(unreadable)?;
    Ok(Object { owner, id, content, created_at, updated_at, change_number })
}

/// The revision in which the object changes. An upstream reaches gateways in its service, which changes with it;
/// certificates in the SNIs that refer to them.
async fn revise(tx: &mut Writing, key: ObjectKey<'_>) -> Result<Revision, Refusal> {
    let revision = tx.gateway_group_raise(key.group).await?;
    for sni in referrers(tx, key).await? {
        tx.group_object_touch(ObjectKey { kind: ObjectKind::Sni, owner: "", id: &sni, ..key }, revision)
            .await?;
    }
    if key.kind == ObjectKind::ServiceUpstream {
        let service = ServiceId::try_from(key.owner.to_owned());
        let service = service.map_err(|error| Violations::one("/service_id", error.to_string()))?;
        tx.group_service_touch(key.group, &service, revision).await?;
    }
    Ok(revision)
}

/// The SNIs that refer to the object. They are sealed, so they are read one by one; a group has few.
async fn referrers(tx: &mut Reading, key: ObjectKey<'_>) -> Result<Vec<String>, Refusal> {
    if !matches!(key.kind, ObjectKind::Certificate | ObjectKind::CaCertificate) {
        return Ok(Vec::new());
    }
    let listed = tx.group_object_list(key.group, ObjectKind::Sni, None, &ListFilter::default()).await?;
    let mut referrers = Vec::new();
    for row in listed.rows {
        let sni = object_of::<Sni>(row)?;
        let refers =
            |(_, kind, id): &(String, ObjectKind, &ObjectId)| *kind == key.kind && id.as_str() == key.id;
        if sni.content.references().iter().any(refers) {
            referrers.push(sni.id);
        }
    }
    Ok(referrers)
}

/// What an object belongs to must be there: the consumer of a credential, the service of an upstream, the group.
async fn owner_must_exist(tx: &mut Reading, key: ObjectKey<'_>) -> Result<(), Refusal> {
    group_must_exist(tx, key.group).await?;
    match key.kind {
        ObjectKind::Credential => {
            let consumer =
                ObjectKey { group: key.group, kind: ObjectKind::Consumer, owner: "", id: key.owner };
            let missing = || Refusal::NotFound { noun: Consumer::NOUN, id: key.owner.to_owned() };
            tx.group_object_get(consumer).await?.map(|_| ()).ok_or_else(missing)
        }
        ObjectKind::ServiceUpstream => {
            let service = ServiceId::try_from(key.owner.to_owned());
            let service = service.map_err(|error| Violations::one("/service_id", error.to_string()))?;
            published_service(tx, key.group, &service).await.map(|_| ())
        }
        ObjectKind::CaCertificate
        | ObjectKind::Certificate
        | ObjectKind::Consumer
        | ObjectKind::GlobalRule
        | ObjectKind::PluginMetadata
        | ObjectKind::Proto
        | ObjectKind::SecretProvider
        | ObjectKind::ServiceRegistry
        | ObjectKind::Sni
        | ObjectKind::Ssl => Ok(()),
    }
}
