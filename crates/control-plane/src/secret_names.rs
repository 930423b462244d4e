//! Which members of documents hold secrets: by their names, because the control plane does not know the meaning of every
//! document. One too many is kept secret rather than one too few.

/// Names that hold secrets wherever they stand in a name, and names that do so alone or as its last word.
const PARTS: [&str; 9] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "private",
    "credential",
    "authorization",
    "cookie",
];
const WORDS: [&str; 4] = ["key", "keys", "apikey", "pin"];

/// Secrets of plugins whose names do not tell, as the published schemas mark them.
const UNTOLD: [(&str, &str); 11] = [
    ("ai-proxy", "header"),
    ("ai-proxy", "query"),
    ("ai-proxy", "service_account_json"),
    ("ai-proxy-multi", "header"),
    ("ai-proxy-multi", "query"),
    ("ai-proxy-multi", "service_account_json"),
    ("aws-lambda", "accesskey"),
    ("elasticsearch-logger", "headers"),
    ("graphql-limit-count", "introspection_headers"),
    ("http-logger", "auth_header"),
    ("loki-logger", "headers"),
];

/// Whether a member of this name holds a secret.
pub(crate) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let last = name.rsplit(['_', '-', '.']).next().unwrap_or(&name);
    PARTS.iter().any(|part| name.contains(part)) || WORDS.contains(&last)
}

/// Where in a document a member stands, as far as it matters to what it holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Surroundings<'d> {
    /// The name of the member around it.
    parent: &'d str,
    /// The plugin whose configuration it is in.
    plugin: &'d str,
}

impl<'d> Surroundings<'d> {
    /// Those of the members of member `name`, which stands here.
    pub(crate) fn inside(self, name: &'d str) -> Self {
        let plugin = if self.parent == "plugins" { name } else { self.plugin };
        Self { parent: name, plugin }
    }

    /// Whether member `name`, which stands here, holds a secret.
    pub(crate) fn hold_secret(self, name: &str) -> bool {
        // Below `plugins` stand names of plugins, such as `key-auth`.
        self.parent != "plugins" && (is_secret(name) || UNTOLD.contains(&(self.plugin, name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The members that the published schemas of plugins mark as encrypted.
    const MARKED: [(&str, &str); 26] = [
        ("ai-cache", "semantic.embedding.openai.api_key"),
        ("ai-proxy", "auth.header"),
        ("ai-proxy", "auth.gcp.service_account_json"),
        ("ai-proxy-multi", "instances.auth.query"),
        ("authz-keycloak", "client_secret"),
        ("aws-lambda", "authorization.iam.accesskey"),
        ("aws-lambda", "authorization.iam.secretkey"),
        ("azure-functions", "authorization.apikey"),
        ("basic-auth", "password"),
        ("cas-auth", "cookie.secret"),
        ("csrf", "key"),
        ("elasticsearch-logger", "headers"),
        ("feishu-auth", "secret_fallbacks"),
        ("google-cloud-logging", "auth_config.private_key"),
        ("graphql-limit-count", "introspection_headers"),
        ("hmac-auth", "secret_key"),
        ("http-logger", "auth_header"),
        ("jwt-auth", "secret"),
        ("kafka-logger", "brokers.sasl_config.password"),
        ("key-auth", "key"),
        ("lago", "token"),
        ("limit-count", "redis_password"),
        ("loggly", "customer_token"),
        ("loki-logger", "headers"),
        ("openid-connect", "client_rsa_private_key"),
        ("sls-logger", "access_key_secret"),
    ];

    #[test]
    fn every_member_that_published_schemas_mark_is_a_secret() {
        for (plugin, path) in MARKED {
            let mut at = Surroundings::default().inside("plugins").inside(plugin);
            let mut holds = false;
            for name in path.split('.') {
                holds |= at.hold_secret(name);
                at = at.inside(name);
            }
            assert!(holds, "{plugin}: {path}");
        }
    }

    #[test]
    fn names_of_plugins_and_of_plain_settings_are_no_secrets() {
        let plugins = Surroundings::default().inside("plugins");
        assert!(!plugins.hold_secret("key-auth") && !plugins.hold_secret("csrf"));
        assert!(!plugins.inside("limit-count").hold_secret("key_type"));
        assert!(!plugins.inside("response-rewrite").hold_secret("headers"));
    }
}
