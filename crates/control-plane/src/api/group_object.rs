//! What the operations on a gateway group's objects have in common; the nouns beside this file only write them down.

use gatewright_model::id::ObjectId;
use gatewright_model::resource::certificate::{CaCertificate, Certificate};
use gatewright_model::resource::consumer::{Consumer, Credential};
use gatewright_model::resource::global_rule::GlobalRule;
use gatewright_model::resource::plugin_metadata::PluginMetadata;
use gatewright_model::resource::proto::Proto;
use gatewright_model::resource::secret_provider::{SECRET_MANAGERS, SecretProvider};
use gatewright_model::resource::sni::Sni;
use gatewright_model::resource::ssl::Ssl;
use gatewright_model::validation::Violations;
use serde_json::Value;

use super::ca_certificate::CaCertificateView;
use super::certificate::CertificateView;
use super::consumer::ConsumerView;
use super::credential::CredentialView;
use super::error::ApiError;
use super::global_rule::GlobalRuleView;
use super::group_call::GroupCall;
use super::proto::ProtoView;
use super::request::{Ids, ListQuery};
use super::secret_provider::SecretProviderView;
use super::sni::SniView;
use super::ssl::SslView;
use super::{ManyAnswer, Nothing, SingleAnswer, TaggedAnswer, many, single, tagged, warned};
use crate::app::group_document::parse_with_id;
use crate::app::{GroupObject, Object, Patch, Shelf};

/// How a kind of object stands in paths and answers.
pub(super) trait Noun: GroupObject {
    /// What paths call its id.
    const ID: &'static str;
    /// What answers show of it.
    type View: From<Object<Self>>;

    /// What it belongs to; empty: the group.
    fn owner(_ids: &Ids) -> Result<String, ApiError> {
        Ok(String::new())
    }
}

impl Noun for CaCertificate {
    const ID: &'static str = "ca_certificate_id";
    type View = CaCertificateView;
}

impl Noun for Certificate {
    const ID: &'static str = "certificate_id";
    type View = CertificateView;
}

impl Noun for Consumer {
    const ID: &'static str = "username";
    type View = ConsumerView;
}

impl Noun for Credential {
    const ID: &'static str = "credential_id";
    type View = CredentialView;

    fn owner(ids: &Ids) -> Result<String, ApiError> {
        Ok(ids.id::<ObjectId>("username")?.into())
    }
}

impl Noun for GlobalRule {
    const ID: &'static str = "global_rule_id";
    type View = GlobalRuleView;
}

impl Noun for PluginMetadata {
    const ID: &'static str = "plugin_name";
    type View = Value;
}

impl Noun for Proto {
    const ID: &'static str = "proto_id";
    type View = ProtoView;
}

impl Noun for SecretProvider {
    const ID: &'static str = "secret_id";
    type View = SecretProviderView;

    fn owner(ids: &Ids) -> Result<String, ApiError> {
        let text = ids.text("secret_manager");
        let known = SECRET_MANAGERS.into_iter().find(|manager| *manager == text);
        let message = || format!("value is not one of the allowed values {SECRET_MANAGERS:?}");
        Ok(known.ok_or_else(|| Violations::one("/secret_manager", message()))?.to_owned())
    }
}

impl Noun for Sni {
    const ID: &'static str = "sni_id";
    type View = SniView;
}

impl Noun for Ssl {
    const ID: &'static str = "ssl_id";
    type View = SslView;
}

pub(super) async fn object_list<N: Noun>(call: GroupCall, query: ListQuery) -> ManyAnswer<N::View> {
    let query = query.must_order_by(None)?;
    let owner = N::owner(&call.ids)?;
    let shelf = Shelf { group: &call.group, owner: &owner };
    Ok(many(call.app.object_list::<N>(&call.caller, shelf, &query.filter).await?))
}

pub(super) async fn object_create<N: Noun>(call: GroupCall, body: Value) -> TaggedAnswer<N::View> {
    let owner = N::owner(&call.ids)?;
    let shelf = Shelf { group: &call.group, owner: &owner };
    let document = parse_with_id::<N, ObjectId>(body)?;
    let (object, warnings) = call.app.object_create(&call.caller, shelf, document).await?;
    tagged(object.change_number, warned(object.into(), &warnings))
}

pub(super) async fn object_get<N: Noun>(call: GroupCall) -> TaggedAnswer<N::View> {
    let (owner, id) = (N::owner(&call.ids)?, call.ids.id(N::ID)?);
    let shelf = Shelf { group: &call.group, owner: &owner };
    let object = call.app.object_get::<N>(&call.caller, shelf, &id).await?;
    tagged(object.change_number, single(object.into()))
}

pub(super) async fn object_put<N: Noun>(call: GroupCall, body: Value) -> TaggedAnswer<N::View> {
    let (owner, id) = (N::owner(&call.ids)?, call.ids.id(N::ID)?);
    let shelf = Shelf { group: &call.group, owner: &owner };
    let document = parse_with_id::<N, ObjectId>(body)?;
    let (object, warnings) = call.app.object_put(&call.caller, shelf, &id, document).await?;
    tagged(object.change_number, warned(object.into(), &warnings))
}

pub(super) async fn object_patch<N: Noun>(call: GroupCall, body: Value) -> TaggedAnswer<N::View> {
    let (owner, id) = (N::owner(&call.ids)?, call.ids.id(N::ID)?);
    let shelf = Shelf { group: &call.group, owner: &owner };
    let patch = Patch::parse(body)?;
    let (object, warnings) = call.app.object_patch::<N>(&call.caller, shelf, &id, &patch).await?;
    tagged(object.change_number, warned(object.into(), &warnings))
}

pub(super) async fn object_delete<N: Noun>(call: GroupCall) -> SingleAnswer<Nothing> {
    let (owner, id) = (N::owner(&call.ids)?, call.ids.id(N::ID)?);
    let shelf = Shelf { group: &call.group, owner: &owner };
    call.app.object_delete::<N>(&call.caller, shelf, &id).await?;
    Ok(single(Nothing {}))
}
