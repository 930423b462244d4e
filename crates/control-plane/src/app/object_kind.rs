//! The kinds of objects that a gateway group keeps, each with what is special about it.

use gatewright_model::id::ObjectId;
use gatewright_model::resource::certificate::{CaCertificate, Certificate};
use gatewright_model::resource::consumer::{Consumer, Credential};
use gatewright_model::resource::global_rule::GlobalRule;
use gatewright_model::resource::group_object::{CERTIFICATE_PLACE, SNI_PLACE};
use gatewright_model::resource::plugin_metadata::PluginMetadata;
use gatewright_model::resource::proto::Proto;
use gatewright_model::resource::secret_provider::SecretProvider;
use gatewright_model::resource::service_registry::ServiceRegistry;
use gatewright_model::resource::sni::Sni;
use gatewright_model::resource::ssl::Ssl;
use gatewright_model::resource::upstream::Upstream;
use gatewright_model::resource::{Labels, Plugins};
use gatewright_model::validation::Violations;
use serde_json::Value;

use super::group_object::GroupObject;
use super::plugin::metadata_check;
use super::{Action, service_registry, ssl};
use crate::mask::MASK;
use crate::store::ObjectKind;

const CONSUMER_ACTIONS: [Action; 4] =
    [Action::GetConsumer, Action::CreateConsumer, Action::UpdateConsumer, Action::DeleteConsumer];

impl GroupObject for Consumer {
    const KIND: ObjectKind = ObjectKind::Consumer;
    const NOUN: &'static str = "consumer";
    const ACTIONS: [Action; 4] = CONSUMER_ACTIONS;

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn plugins(&self) -> Option<&Plugins> {
        Some(&self.plugins)
    }

    fn natural_id(&self) -> Option<&str> {
        Some(&self.username)
    }
}

impl GroupObject for Credential {
    const KIND: ObjectKind = ObjectKind::Credential;
    const NOUN: &'static str = "credential";
    const ACTIONS: [Action; 4] = CONSUMER_ACTIONS;
    const MARK: &'static str = "key";

    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn plugins(&self) -> Option<&Plugins> {
        Some(&self.plugins)
    }

    fn mark(&self) -> Option<String> {
        let key = self.plugins.get("key-auth")?.get("key")?.as_str()?;
        Some(key.to_owned())
    }
}

impl GroupObject for GlobalRule {
    const KIND: ObjectKind = ObjectKind::GlobalRule;
    const NOUN: &'static str = "global rule";
    const ACTIONS: [Action; 4] = [
        Action::GetGlobalPluginRule,
        Action::CreateGlobalPluginRule,
        Action::UpdateGlobalPluginRule,
        Action::DeleteGlobalPluginRule,
    ];

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn plugins(&self) -> Option<&Plugins> {
        Some(&self.plugins)
    }

    fn natural_id(&self) -> Option<&str> {
        self.plugin()
    }
}

impl GroupObject for PluginMetadata {
    const KIND: ObjectKind = ObjectKind::PluginMetadata;
    const NOUN: &'static str = "plugin metadata";
    const ACTIONS: [Action; 4] = [
        Action::GetPluginMetadata,
        Action::UpdatePluginMetadata,
        Action::UpdatePluginMetadata,
        Action::DeletePluginMetadata,
    ];

    fn check_under(&self, id: &str) -> Result<(), Violations> {
        metadata_check(id, &self.settings)
    }
}

impl GroupObject for SecretProvider {
    const KIND: ObjectKind = ObjectKind::SecretProvider;
    const NOUN: &'static str = "secret provider";
    const ACTIONS: [Action; 4] =
        [Action::GetSecret, Action::PutSecret, Action::PutSecret, Action::DeleteSecret];

    fn secrets_restore(&mut self, before: Option<&Self>) -> Result<(), Violations> {
        let mut violations = Violations::default();
        let none = serde_json::Map::new();
        unmask(&mut self.settings, before.map_or(&none, |before| &before.settings), "", &mut violations);
        violations.into_result()
    }
}

/// Puts what stood there before in the place of every mask.
fn unmask(
    members: &mut serde_json::Map<String, Value>,
    before: &serde_json::Map<String, Value>,
    at: &str,
    violations: &mut Violations,
) {
    for (name, value) in members {
        let (at, before) = (format!("{at}/{name}"), before.get(name));
        match (&mut *value, before) {
            (Value::String(text), Some(before)) if text == MASK => *value = before.clone(),
            (Value::String(text), None) if text == MASK => {
                violations
                    .add(at, "is the mask that answers show in place of a secret; send the secret itself");
            }
            (Value::Object(members), before) => {
                let none = serde_json::Map::new();
                unmask(members, before.and_then(Value::as_object).unwrap_or(&none), &at, violations);
            }
            _ => {}
        }
    }
}

impl GroupObject for ServiceRegistry {
    const KIND: ObjectKind = ObjectKind::ServiceRegistry;
    const NOUN: &'static str = "service registry";
    const ACTIONS: [Action; 4] = [
        Action::GetServiceRegistry,
        Action::ConnectServiceRegistry,
        Action::UpdateServiceRegistry,
        Action::DisconnectServiceRegistry,
    ];

    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn secrets_restore(&mut self, before: Option<&Self>) -> Result<(), Violations> {
        service_registry::secrets_restore(self, before)
    }
}

impl GroupObject for Proto {
    const KIND: ObjectKind = ObjectKind::Proto;
    const NOUN: &'static str = "proto";
    // Protos are a part of how services are served, and have no actions of their own.
    const ACTIONS: [Action; 4] = SERVICE_ACTIONS;

    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }
}

const SERVICE_ACTIONS: [Action; 4] = [
    Action::GetPublishedService,
    Action::UpdatePublishedService,
    Action::UpdatePublishedService,
    Action::UpdatePublishedService,
];

impl GroupObject for Upstream {
    const KIND: ObjectKind = ObjectKind::ServiceUpstream;
    const NOUN: &'static str = "upstream";
    const ACTIONS: [Action; 4] = SERVICE_ACTIONS;

    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }
}

const CERTIFICATE_ACTIONS: [Action; 4] =
    [Action::GetCertificate, Action::CreateCertificate, Action::UpdateCertificate, Action::DeleteCertificate];

impl GroupObject for Certificate {
    const KIND: ObjectKind = ObjectKind::Certificate;
    const NOUN: &'static str = "certificate";
    const ACTIONS: [Action; 4] = CERTIFICATE_ACTIONS;
    const MARK: &'static str = "certificate";

    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn mark(&self) -> Option<String> {
        ssl::certificate_mark(&self.cert)
    }
}

impl GroupObject for CaCertificate {
    const KIND: ObjectKind = ObjectKind::CaCertificate;
    const NOUN: &'static str = "CA certificate";
    const ACTIONS: [Action; 4] = CERTIFICATE_ACTIONS;

    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }
}

impl GroupObject for Sni {
    const KIND: ObjectKind = ObjectKind::Sni;
    const NOUN: &'static str = "SNI";
    const ACTIONS: [Action; 4] = [Action::GetSni, Action::CreateSni, Action::UpdateSni, Action::DeleteSni];

    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn references(&self) -> Vec<(String, ObjectKind, &ObjectId)> {
        let certificates = self.certificate_ids.iter().enumerate();
        let certificates = certificates
            .map(|(index, id)| (format!("/certificate_ids/{index}"), ObjectKind::Certificate, id));
        let authorities = self.ca_certificate_ids.iter().enumerate();
        let authorities = authorities
            .map(|(index, id)| (format!("/ca_certificate_ids/{index}"), ObjectKind::CaCertificate, id));
        certificates.chain(authorities).collect()
    }
}

impl GroupObject for Ssl {
    const KIND: ObjectKind = ObjectKind::Ssl;
    const NOUN: &'static str = "SSL object";
    const ACTIONS: [Action; 4] = CERTIFICATE_ACTIONS;
    const MARK: &'static str = "certificate";

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn check_under(&self, id: &str) -> Result<(), Violations> {
        match [SNI_PLACE, CERTIFICATE_PLACE].into_iter().find(|place| id.starts_with(place)) {
            Some(place) => {
                Err(Violations::one("/id", format!("ids of SSL objects do not begin with `{place}`")))
            }
            None => Ok(()),
        }
    }

    fn mark(&self) -> Option<String> {
        let (_, pem) = self.certificates().next()?;
        ssl::certificate_mark(pem)
    }
}
