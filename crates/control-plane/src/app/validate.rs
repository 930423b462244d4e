//! Validation of whole configurations: the checks of the writes, without writing anything.
//!
//! Everything that is wrong is reported, document by document. References between documents are not followed,
//! because clients send routes without the service they will belong to.

use std::sync::LazyLock;

use gatewright_model::id::GatewayGroupId;
use gatewright_model::resource::consumer::Consumer;
use gatewright_model::resource::global_rule::GlobalRule;
use gatewright_model::resource::plugin_metadata::PluginMetadata;
use gatewright_model::resource::proto::Proto;
use gatewright_model::resource::route::Route;
use gatewright_model::resource::service::Service;
use gatewright_model::resource::ssl::Ssl;
use gatewright_model::resource::stream_route::StreamRoute;
use gatewright_model::resource::upstream::Upstream;
use gatewright_model::validation::{Schema, Violations};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::group_document::{Documented, parse, stream_scheme_default};
use super::group_object::GroupObject;
use super::published_service::group_must_exist;
use super::{Action, App, Caller, Refusal};

/// Documents to check, by the plural names of their kinds.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(crate) struct ValidateWish {
    #[schema(value_type = Vec<Object>)]
    services: Vec<Value>,
    #[schema(value_type = Vec<Object>)]
    routes: Vec<Value>,
    #[schema(value_type = Vec<Object>)]
    stream_routes: Vec<Value>,
    #[schema(value_type = Vec<Object>)]
    upstreams: Vec<Value>,
    #[schema(value_type = Vec<Object>)]
    consumers: Vec<Value>,
    #[schema(value_type = Vec<Object>)]
    ssls: Vec<Value>,
    #[schema(value_type = Vec<Object>)]
    global_rules: Vec<Value>,
    #[schema(value_type = Vec<Object>)]
    plugin_metadata: Vec<Value>,
    #[schema(value_type = Vec<Object>)]
    protos: Vec<Value>,
}

/// The documents in the body of a call.
///
/// # Errors
/// When it is something else than lists of objects.
pub(crate) fn validate_parse(value: Value) -> Result<ValidateWish, Violations> {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<ValidateWish>);
    SCHEMA.violations(&value).into_result()?;
    serde_json::from_value(value).map_err(|error| Violations::one("", error.to_string()))
}

/// What is wrong with one of the documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct InvalidDocument {
    /// The plural name the document was sent under.
    resource_type: &'static str,
    /// Its id, if it says one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    resource_id: Option<String>,
    /// Its place in its list, counted from 0.
    index: usize,
    /// Everything that is wrong with it.
    error: String,
}

impl App {
    /// Everything that is wrong with the documents; empty: they could be written to this group.
    pub(crate) async fn configuration_validate(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        wish: ValidateWish,
    ) -> Result<Vec<InvalidDocument>, Refusal> {
        caller.must(Action::GetPublishedService, group.as_str())?;
        group_must_exist(&mut self.store().read().await?, group).await?;
        Ok(invalid_documents(wish))
    }
}

fn invalid_documents(mut wish: ValidateWish) -> Vec<InvalidDocument> {
    wish.services.iter_mut().for_each(stream_scheme_default);
    let mut invalid = Vec::new();
    check::<Service>("services", wish.services, &mut invalid, |_, _| Ok(()));
    check::<Route>("routes", wish.routes, &mut invalid, |_, _| Ok(()));
    check::<StreamRoute>("stream_routes", wish.stream_routes, &mut invalid, |_, _| Ok(()));
    check::<Upstream>("upstreams", wish.upstreams, &mut invalid, |_, _| Ok(()));
    check::<Consumer>("consumers", wish.consumers, &mut invalid, |_, _| Ok(()));
    check::<Ssl>("ssls", wish.ssls, &mut invalid, |_, _| Ok(()));
    check::<GlobalRule>("global_rules", wish.global_rules, &mut invalid, |_, _| Ok(()));
    check::<PluginMetadata>("plugin_metadata", wish.plugin_metadata, &mut invalid, GroupObject::check_under);
    check::<Proto>("protos", wish.protos, &mut invalid, |_, _| Ok(()));
    invalid
}

fn check<T: Documented>(
    resource_type: &'static str,
    documents: Vec<Value>,
    invalid: &mut Vec<InvalidDocument>,
    check_under: fn(&T, &str) -> Result<(), Violations>,
) {
    for (index, document) in documents.into_iter().enumerate() {
        let id = ["id", "username"].iter().find_map(|member| document.get(member)).and_then(Value::as_str);
        let resource_id = id.map(str::to_owned);
        let wrong = match (parse::<T>(document), &resource_id) {
            (Err(wrong), _) => Some(wrong),
            (Ok((content, _)), Some(id)) => check_under(&content, id).err(),
            (Ok(_), None) => None,
        };
        invalid.extend(wrong.map(|wrong| InvalidDocument {
            resource_type,
            resource_id,
            index,
            error: wrong.to_string(),
        }));
    }
}
