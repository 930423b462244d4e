//! What a file says beside services: SSL objects, consumers with their credentials, global rules, plugin metadata,
//! protos, service registries.
//!
//! `ssls`, `protos`, `service_registries` and `consumers` are lists, in the words of the admin API, each consumer with its `credentials`
//! nested in it;
//! `global_rules` and `plugin_metadata` go by the name of the plugin, which is all that their objects say beside its
//! configuration.

use std::sync::{Arc, LazyLock};

use gatewright_model::id::ObjectId;
use gatewright_model::resource::consumer::{Consumer, Credential};
use gatewright_model::resource::global_rule::GlobalRule;
use gatewright_model::resource::group_object::{GroupObject, ObjectContent};
use gatewright_model::resource::plugin_metadata::PluginMetadata;
use gatewright_model::resource::proto::Proto;
use gatewright_model::resource::service_registry::ServiceRegistry;
use gatewright_model::resource::ssl::Ssl;
use gatewright_model::resource::{AsSent, Plugins};
use gatewright_model::validation::{Schema, Violations};
use gatewright_plugins::protos;
use serde_json::{Map, Value};

use super::{OBJECTS_MAX, Reader};
use crate::tls;

impl Reader {
    /// Takes out of a file what it says beside services.
    pub(super) fn objects(&mut self, members: &mut Map<String, Value>) -> Vec<Arc<GroupObject>> {
        let mut objects = Vec::new();
        let ssls = self.list(members, "ssls", "", OBJECTS_MAX);
        for (index, ssl) in ssls.into_iter().enumerate() {
            let object = self.ssl(ssl, index, &format!("/ssls/{index}"));
            objects.extend(object);
        }
        let consumers = self.list(members, "consumers", "", OBJECTS_MAX);
        for (index, consumer) in consumers.into_iter().enumerate() {
            self.consumer(consumer, &format!("/consumers/{index}"), &mut objects);
        }
        let protos = self.list(members, "protos", "", OBJECTS_MAX);
        for (index, proto) in protos.into_iter().enumerate() {
            let object = self.proto(proto, index, &format!("/protos/{index}"));
            objects.extend(object);
        }
        let registries = self.list(members, "service_registries", "", OBJECTS_MAX);
        for (index, registry) in registries.into_iter().enumerate() {
            let object = self.service_registry(registry, index, &format!("/service_registries/{index}"));
            objects.extend(object);
        }
        for (name, config) in self.by_plugin(members, "global_rules") {
            let plugins: Plugins = [(name.clone(), config)].into_iter().collect();
            self.plugins(&plugins, "/global_rules", gatewright_plugins::validate);
            let rule = GlobalRule { labels: AsSent::default(), plugins };
            objects.extend(self.named(&name, "/global_rules", ObjectContent::GlobalRule(rule)));
        }
        for (name, settings) in self.by_plugin(members, "plugin_metadata") {
            let at = format!("/plugin_metadata/{name}");
            self.violations.absorb(&at, gatewright_plugins::validate_metadata(&name, &settings));
            let Some(settings) = self.object(settings, &at) else { continue };
            let metadata = PluginMetadata { settings };
            objects.extend(self.named(&name, "/plugin_metadata", ObjectContent::PluginMetadata(metadata)));
        }
        for object in &objects {
            if !self.object_keys.insert(object.key()) {
                let message = format!("`{}` is there twice", object.id);
                self.violations.add("", message);
            }
        }
        objects.into_iter().map(Arc::new).collect()
    }

    fn ssl(&mut self, ssl: Value, index: usize, at: &str) -> Option<GroupObject> {
        static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<Ssl>);
        let mut members = self.object(ssl, at)?;
        let id = self.id::<ObjectId>(&mut members, &format!("ssl-{index:06}"), at)?;
        // An SSL object has no name that the id could stand for.
        members.remove("name");
        let ssl: Ssl = self.checked(&SCHEMA, Value::Object(members), at)?;
        let mut wrong = Violations::default();
        ssl.check("", &mut wrong);
        if wrong.is_empty() {
            wrong = tls::violations(&ssl);
        }
        self.violations.absorb(at, wrong);
        Some(GroupObject { id, content: ObjectContent::Ssl(ssl) })
    }

    fn proto(&mut self, proto: Value, index: usize, at: &str) -> Option<GroupObject> {
        static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<Proto>);
        let mut members = self.object(proto, at)?;
        let id = self.id::<ObjectId>(&mut members, &format!("proto-{index:06}"), at)?;
        let proto: Proto = self.checked(&SCHEMA, Value::Object(members), at)?;
        if let Err(reason) = protos::Proto::compile(&proto.content) {
            self.violations.add(format!("{at}/content"), reason);
        }
        Some(GroupObject { id, content: ObjectContent::Proto(proto) })
    }

    fn service_registry(&mut self, registry: Value, index: usize, at: &str) -> Option<GroupObject> {
        static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<ServiceRegistry>);
        let mut members = self.object(registry, at)?;
        let id = self.id::<ObjectId>(&mut members, &format!("registry-{index:06}"), at)?;
        members.entry("name").or_insert_with(|| id.as_str().into());
        let registry: ServiceRegistry = self.checked(&SCHEMA, Value::Object(members), at)?;
        let mut wrong = Violations::default();
        registry.check(&mut wrong);
        self.violations.absorb(at, wrong);
        Some(GroupObject { id, content: ObjectContent::ServiceRegistry(Box::new(registry)) })
    }

    fn consumer(&mut self, consumer: Value, at: &str, objects: &mut Vec<GroupObject>) {
        static CONSUMER: LazyLock<Schema> = LazyLock::new(Schema::of::<Consumer>);
        static CREDENTIAL: LazyLock<Schema> = LazyLock::new(Schema::of::<Credential>);
        let Some(mut members) = self.object(consumer, at) else { return };
        let credentials = self.list(&mut members, "credentials", at, OBJECTS_MAX);
        let Some(consumer) = self.checked::<Consumer>(&CONSUMER, Value::Object(members), at) else { return };
        self.plugins(&consumer.plugins, at, gatewright_plugins::validate_for_consumer);
        let owner = consumer.username.clone();
        let Some(object) = self.named(&owner, at, ObjectContent::Consumer(consumer)) else { return };
        let owner = object.id.clone();
        objects.push(object);
        for (index, credential) in credentials.into_iter().enumerate() {
            let at = format!("{at}/credentials/{index}");
            let Some(mut members) = self.object(credential, &at) else { continue };
            let id = self.id::<ObjectId>(&mut members, &format!("credential-{index:06}"), &at);
            let credential = self.checked::<Credential>(&CREDENTIAL, Value::Object(members), &at);
            let (Some(id), Some(credential)) = (id, credential) else { continue };
            credential.check(&at, &mut self.violations);
            self.plugins(&credential.plugins, &at, gatewright_plugins::validate_credential);
            let consumer = owner.clone();
            objects.push(GroupObject { id, content: ObjectContent::Credential { consumer, credential } });
        }
    }

    /// The members of an object whose keys are names of plugins.
    fn by_plugin(&mut self, members: &mut Map<String, Value>, name: &str) -> Map<String, Value> {
        match members.remove(name) {
            None | Some(Value::Null) => Map::new(),
            Some(value) => self.object(value, &format!("/{name}")).unwrap_or_default(),
        }
    }

    /// The object that is known by `name`.
    fn named(&mut self, name: &str, at: &str, content: ObjectContent) -> Option<GroupObject> {
        match name.parse() {
            Ok(id) => Some(GroupObject { id, content }),
            Err(error) => {
                self.violations.add(at, format!("{error}"));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn ssl_objects_are_read_and_their_certificates_checked() {
        let (certificate, key) = crate::tls::testing::pair("a.example");
        let file = |key: &str| {
            let ssl = serde_json::json!({"id": "a", "snis": ["a.example"], "cert": certificate, "key": key});
            parse(&serde_json::json!({ "ssls": [ssl] }).to_string())
        };
        let object = file(&key).unwrap().objects.remove(0);
        let ObjectContent::Ssl(ssl) = &object.content else { panic!("an SSL object") };
        assert_eq!((object.id.as_str(), &*ssl.snis), ("a", &["a.example".to_owned()][..]));
        let (_, another_key) = crate::tls::testing::pair("a.example");
        let wrong = file(&another_key).unwrap_err().to_string();
        assert_eq!(wrong, "Error at \"/ssls/0/key\": the private key does not belong to the certificate");
    }

    #[test]
    fn consumers_rules_and_metadata_are_read_and_checked() {
        let file = parse(
            "consumers:\n- username: alice\n  credentials:\n  - {name: k, plugins: {key-auth: {key: secret}}}\n\
             global_rules: {cors: {}}\nprotos: [{id: p, content: 'syntax = \"proto3\";'}]\n",
        )
        .unwrap();
        let keys: Vec<_> =
            file.objects.iter().map(|object| (object.key().kind, object.id.as_str())).collect();
        use gatewright_model::resource::group_object::ObjectKind::{Consumer, Credential, GlobalRule, Proto};
        assert_eq!(
            keys,
            [(Consumer, "alice"), (Credential, "credential-000000"), (Proto, "p"), (GlobalRule, "cors")]
        );

        let wrong = parse(
            "consumers:\n- {username: a, credentials: [{name: k, plugins: {}}]}\n- {username: a}\n- {username: 'a b'}\n\
             global_rules: {no-such-plugin: {}}\nplugin_metadata: [x]\n\
             protos: [{id: p, content: 'syntax = \"proto3\"; message {'}]\n\
             services: [{name: s, plugins: {key-auth: {hide_credentials: 7}}}]\n",
        );
        let wrong = wrong.unwrap_err().to_string();
        for expected in [
            "/consumers/0/credentials/0/plugins",
            "`a` is there twice",
            "/consumers/2/username",
            "plugin `no-such-plugin` cannot be run",
            "/plugin_metadata",
            "/protos/0/content",
            "/services/0/plugins/key-auth",
        ] {
            assert!(wrong.contains(expected), "{expected}: {wrong}");
        }
    }
}
