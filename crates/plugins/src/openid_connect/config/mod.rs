//! What `openid-connect` is configured with.

mod session;

use std::time::Duration;

use gatewright_model::validation::Violations;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::jose::Algorithm;
use crate::outbound::{Connection, Proxy, Via};
use crate::schema;

pub(super) use self::session::{RedisStorage, SameSite, Session, Storage};

/// How long anybody outside may be waited for, whatever a configuration says.
const TIME_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
pub(super) struct Config {
    /// The client that the identity provider knows this gateway as.
    pub(super) client_id: String,
    /// What the client proves that with.
    pub(super) client_secret: Option<String>,
    /// Address of the discovery document of the identity provider.
    pub(super) discovery: String,
    /// Scopes that are asked for, separated by blanks.
    pub(super) scope: String,
    /// Whether only tokens in requests count, and nobody is sent to the identity provider.
    pub(super) bearer_only: bool,
    /// What `WWW-Authenticate` names.
    pub(super) realm: String,
    /// Scopes that a token must have.
    pub(super) required_scopes: Option<Vec<String>>,
    /// A JSON Schema that the claims must satisfy.
    #[schema(value_type = Option<Object>)]
    pub(super) claim_schema: Option<Value>,
    /// What else claims must say.
    #[schema(value_type = Option<ClaimValidator>)]
    pub(super) claim_validator: Option<ClaimValidator>,
    /// Verifies tokens in requests; in PEM.
    pub(super) public_key: Option<String>,
    /// Whether the keys of the identity provider verify tokens in requests, rather than introspection.
    pub(super) use_jwks: bool,
    /// The algorithm that tokens must be signed with; absent: any that the key is for.
    pub(super) token_signing_alg_values_expected: Option<String>,
    /// Address that tells of tokens in requests; absent: that of the discovery document.
    pub(super) introspection_endpoint: Option<String>,
    /// How the client proves itself there.
    pub(super) introspection_endpoint_auth_method: String,
    /// Header fields of the client's request that go along.
    #[schema(min_items = 1)]
    pub(super) introspection_addon_headers: Option<Vec<String>>,
    /// Seconds that an answer is believed at most; 0: as long as the token lives.
    pub(super) introspection_interval: i64,
    /// The claim that says how long the token lives.
    pub(super) introspection_expiry_claim: Option<String>,
    /// Where the identity provider sends the browser back to; absent: `.apisix/redirect` below the path of the request.
    pub(super) redirect_uri: Option<String>,
    /// What becomes of requests of nobody known: sent to the identity provider, refused, or let through.
    pub(super) unauth_action: UnauthAction,
    /// Further parameters for the identity provider.
    #[schema(value_type = Option<Object>)]
    pub(super) authorization_params: Option<Map<String, Value>>,
    /// Whether codes are bound to the browser that asked for them.
    pub(super) use_pkce: bool,
    /// Whether the ID token must repeat a value of ours; it is asked to in any case.
    pub(super) use_nonce: bool,
    /// The path that ends the session.
    pub(super) logout_path: String,
    /// Where the browser goes after that.
    pub(super) post_logout_redirect_uri: Option<String>,
    /// Whether the identity provider is told that tokens are not needed any more.
    pub(super) revoke_tokens_on_logout: bool,
    /// The session of a browser.
    pub(super) session: Option<Session>,
    /// Whether an access token that ended is renewed.
    pub(super) renew_access_token_on_expiry: bool,
    /// Seconds an access token lives where the identity provider does not say so.
    pub(super) access_token_expires_in: Option<i64>,
    /// Seconds before its end that it counts as ended.
    pub(super) access_token_expires_leeway: i64,
    /// Seconds after which tokens are renewed even though they live.
    pub(super) refresh_session_interval: Option<i64>,
    /// Whether the upstream gets the access token, as `X-Access-Token`.
    pub(super) set_access_token_header: bool,
    /// Whether as `Authorization` instead.
    pub(super) access_token_in_authorization_header: bool,
    /// Whether the upstream gets the claims of the ID token, as `X-ID-Token`.
    pub(super) set_id_token_header: bool,
    /// Whether the upstream gets the ID token itself, as `X-Raw-ID-Token`.
    pub(super) set_raw_id_token_header: bool,
    /// Whether the upstream gets what is known of the user, as `X-Userinfo`.
    pub(super) set_userinfo_header: bool,
    /// Whether the upstream gets the refresh token, as `X-Refresh-Token`.
    pub(super) set_refresh_token_header: bool,
    /// How the client proves itself where tokens are granted.
    pub(super) token_endpoint_auth_method: String,
    /// Signs assertions of the client; in PEM.
    pub(super) client_rsa_private_key: Option<String>,
    /// The name of that key.
    pub(super) client_rsa_private_key_id: Option<String>,
    /// How assertions are signed.
    pub(super) client_jwt_assertion_alg: Option<AssertionAlgorithm>,
    /// Whom assertions are for; absent: the address they are sent to.
    pub(super) client_jwt_assertion_audience: Option<String>,
    /// Seconds an assertion lives.
    pub(super) client_jwt_assertion_expires_in: i64,
    /// Seconds that the identity provider may take for an answer.
    #[schema(minimum = 1)]
    pub(super) timeout: u64,
    /// Whether the identity provider has to show a certificate that verifies.
    pub(super) ssl_verify: bool,
    /// Proxies towards the identity provider.
    pub(super) proxy_opts: Option<ProxyOptions>,
    /// Seconds that keys of the identity provider are kept.
    #[schema(value_type = i64)]
    pub(super) jwk_expires_in: u64,
    /// Seconds that clocks may differ.
    #[schema(value_type = i64)]
    pub(super) iat_slack: u64,
    /// Accepted and without effect: tokens without a signature are refused.
    pub(super) accept_none_alg: bool,
    /// Accepted and without effect: tokens signed in a way that cannot be verified are refused.
    pub(super) accept_unsupported_alg: bool,
    /// Accepted and without effect: every token is verified.
    pub(super) jwt_verification_cache_ignore: bool,
    /// Accepted and without effect: nothing is shared between configurations but what the identity provider publishes.
    pub(super) cache_segment: Option<String>,
    /// Whether every request of a browser needs a login of its own, also where there is a session.
    pub(super) force_reauthorize: bool,
    /// Proofs of possession towards the identity provider.
    pub(super) dpop: Option<Dpop>,
    /// Authorization requests that are pushed.
    pub(super) par: Option<Par>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum UnauthAction {
    #[default]
    Auth,
    Deny,
    Pass,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(super) enum AssertionAlgorithm {
    HS256,
    HS512,
    RS256,
    RS512,
    ES256,
    ES512,
}

impl AssertionAlgorithm {
    pub(super) fn algorithm(self) -> Algorithm {
        match self {
            Self::HS256 => Algorithm::HS256,
            Self::HS512 => Algorithm::HS512,
            Self::RS256 => Algorithm::RS256,
            Self::RS512 => Algorithm::RS512,
            Self::ES256 => Algorithm::ES256,
            Self::ES512 => Algorithm::ES512,
        }
    }
}

#[derive(Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub(super) struct ClaimValidator {
    /// Who must have made the token.
    pub(super) issuer: Option<IssuerRule>,
    /// Whom it must be for.
    pub(super) audience: Option<AudienceRule>,
}

#[derive(Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub(super) struct IssuerRule {
    /// Any of these; absent: the one of the discovery document.
    pub(super) valid_issuers: Option<Vec<String>>,
}

#[derive(Clone, Deserialize, Serialize, ToSchema)]
#[serde(default)]
#[schema(default)]
pub(super) struct AudienceRule {
    /// The claim.
    pub(super) claim: String,
    /// Whether it must be there.
    pub(super) required: bool,
    /// Whether it must be, or hold, the id of the client.
    pub(super) match_with_client_id: bool,
}

impl Default for AudienceRule {
    fn default() -> Self {
        Self { claim: "aud".to_owned(), required: false, match_with_client_id: false }
    }
}

#[derive(Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub(super) struct ProxyOptions {
    /// For `http://…`.
    pub(super) http_proxy: Option<String>,
    /// What it is told, as `Basic …`.
    pub(super) http_proxy_authorization: Option<String>,
    /// For `https://…`.
    pub(super) https_proxy: Option<String>,
    /// What it is told, as `Basic …`.
    pub(super) https_proxy_authorization: Option<String>,
    /// Hosts that are asked directly, separated by commas.
    pub(super) no_proxy: Option<String>,
}

#[derive(Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
#[schema(default)]
pub(super) struct Dpop {
    /// Whether they are made.
    pub(super) enabled: bool,
    /// Signs them; in PEM.
    pub(super) private_key: Option<String>,
    /// The public half of that key.
    #[schema(value_type = Option<Object>)]
    pub(super) public_jwk: Option<Value>,
    /// How they are signed.
    #[schema(value_type = String, default = "ES256")]
    pub(super) signing_alg: ProofAlgorithm,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ProofAlgorithm {
    #[default]
    ES256,
    RS256,
    PS256,
}

impl ProofAlgorithm {
    pub(super) fn algorithm(self) -> Algorithm {
        match self {
            Self::ES256 => Algorithm::ES256,
            Self::RS256 => Algorithm::RS256,
            Self::PS256 => Algorithm::PS256,
        }
    }
}

#[derive(Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
#[schema(default)]
pub(super) struct Par {
    /// Whether they are.
    pub(super) enabled: bool,
    /// Where to.
    pub(super) endpoint: Option<String>,
    /// How the client proves itself there.
    #[schema(value_type = Option<String>)]
    pub(super) endpoint_auth_method: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        let basic = || "client_secret_basic".to_owned();
        Self {
            client_id: String::new(),
            client_secret: None,
            discovery: String::new(),
            scope: "openid".to_owned(),
            bearer_only: false,
            realm: "apisix".to_owned(),
            required_scopes: None,
            claim_schema: None,
            claim_validator: None,
            public_key: None,
            use_jwks: false,
            token_signing_alg_values_expected: None,
            introspection_endpoint: None,
            introspection_endpoint_auth_method: basic(),
            introspection_addon_headers: None,
            introspection_interval: 0,
            introspection_expiry_claim: None,
            redirect_uri: None,
            unauth_action: UnauthAction::Auth,
            authorization_params: None,
            use_pkce: false,
            use_nonce: false,
            logout_path: "/logout".to_owned(),
            post_logout_redirect_uri: None,
            revoke_tokens_on_logout: false,
            session: None,
            renew_access_token_on_expiry: true,
            access_token_expires_in: None,
            access_token_expires_leeway: 0,
            refresh_session_interval: None,
            set_access_token_header: true,
            access_token_in_authorization_header: false,
            set_id_token_header: true,
            set_raw_id_token_header: false,
            set_userinfo_header: true,
            set_refresh_token_header: false,
            token_endpoint_auth_method: basic(),
            client_rsa_private_key: None,
            client_rsa_private_key_id: None,
            client_jwt_assertion_alg: None,
            client_jwt_assertion_audience: None,
            client_jwt_assertion_expires_in: 60,
            timeout: 3,
            ssl_verify: true,
            proxy_opts: None,
            jwk_expires_in: 86_400,
            iat_slack: 120,
            accept_none_alg: false,
            accept_unsupported_alg: true,
            jwt_verification_cache_ignore: false,
            cache_segment: None,
            force_reauthorize: false,
            dpop: None,
            par: None,
        }
    }
}

/// The documented schema, as far as types do not say it.
pub(super) fn schema() -> Value {
    let object = json!({ "type": "object" });
    let mut schema = schema::required(schema::of::<Config>(), &["client_id", "discovery"]);
    for path in ["claim_schema", "authorization_params"] {
        schema = schema::field(schema, path, object.clone());
    }
    let methods =
        json!(["client_secret_basic", "client_secret_post", "private_key_jwt", "client_secret_jwt"]);
    schema = schema::field(schema, "par.endpoint_auth_method", json!({ "type": "string", "enum": methods }));
    schema = schema::field(schema, "dpop.public_jwk", public_key());
    let proofs = json!({ "type": "string", "enum": ["ES256", "RS256", "PS256"], "default": "ES256" });
    schema = schema::field(schema, "dpop.signing_alg", proofs);
    let storage = json!({ "type": "string", "enum": ["cookie", "redis"], "default": "cookie" });
    schema = schema::field(schema, "session.storage", storage);
    let session = schema["properties"]["session"].take();
    schema["properties"]["session"] = schema::required(session, &["secret"]);
    for part in ["session", "dpop", "par"] {
        schema["properties"][part]["additionalProperties"] = false.into();
    }
    let needs = [
        ("session", "storage", json!("redis"), json!(["redis"])),
        ("dpop", "enabled", json!(true), json!(["private_key", "public_jwk"])),
    ];
    for (part, switch, value, needed) in needs {
        let part = &mut schema["properties"][part];
        part["if"] = json!({ "properties": { switch: { "const": value } }, "required": [switch] });
        part["then"] = json!({ "required": needed });
    }
    schema
}

/// A JSON Web Key without anything that is a secret.
fn public_key() -> Value {
    let secrets = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
    let secrets = secrets.map(|name| json!({ "required": [name] }));
    json!({ "type": "object", "not": { "anyOf": secrets } })
}

impl Config {
    /// What this release cannot do is refused rather than left out.
    pub(super) fn check(&self, violations: &mut Violations) {
        let mut refuse = |at: &str, refused: bool, message: &str| {
            if refused {
                violations.add(at, message);
            }
        };
        let has_secret = self.session.is_some() || self.client_secret.is_some();
        refuse(
            "/session",
            !self.bearer_only && !has_secret,
            "sessions are encrypted with session.secret, or else with client_secret; one of them is needed",
        );
        let methods = [
            ("/token_endpoint_auth_method", &self.token_endpoint_auth_method),
            ("/introspection_endpoint_auth_method", &self.introspection_endpoint_auth_method),
        ];
        for (at, method) in methods {
            let known =
                ["client_secret_basic", "client_secret_post", "private_key_jwt", "client_secret_jwt", "none"];
            refuse(at, !known.contains(&method.as_str()), "is no known way for a client to prove itself");
        }
        let expected = self.token_signing_alg_values_expected.as_deref();
        let unknown = expected.is_some_and(|name| Algorithm::of(name).is_none());
        refuse("/token_signing_alg_values_expected", unknown, "is no algorithm of this release");
    }

    /// How the identity provider is reached.
    pub(super) fn connection(&self) -> Connection {
        let proxy = self.proxy_opts.as_ref().map(|options| {
            let via = |url: &Option<String>, authorization: &Option<String>| {
                url.clone().map(|url| Via { url, authorization: authorization.clone() })
            };
            Proxy {
                http: via(&options.http_proxy, &options.http_proxy_authorization),
                https: via(&options.https_proxy, &options.https_proxy_authorization),
                except: options.no_proxy.clone(),
            }
        });
        Connection { verify: self.ssl_verify, proxy, ..Connection::default() }
    }

    pub(super) fn time_limit(&self) -> Duration {
        Duration::from_secs(self.timeout).min(TIME_MAX)
    }
}
