//! Google Cloud Secret Manager, as a service account.
//!
//! `name` is the whole of the newest version of a secret, `name/key` the member `key` of the JSON document it holds.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;

use super::{Provider, TIMEOUT, document, member};
use crate::jose::{Algorithm, Signer};
use crate::outbound::{Connection, Outbound, Request, Waiting};

#[derive(Deserialize)]
pub(super) struct Settings {
    auth_config: Account,
    #[serde(default = "yes")]
    ssl_verify: bool,
}

#[derive(Deserialize)]
struct Account {
    client_email: String,
    private_key: String,
    project_id: String,
    #[serde(default = "token_uri")]
    token_uri: String,
    #[serde(default = "entries_uri")]
    entries_uri: String,
    #[serde(default = "scope")]
    scope: Vec<String>,
}

const fn yes() -> bool {
    true
}

fn token_uri() -> String {
    "https://oauth2.googleapis.com/token".to_owned()
}

fn entries_uri() -> String {
    "https://secretmanager.googleapis.com/v1".to_owned()
}

fn scope() -> Vec<String> {
    vec!["https://www.googleapis.com/auth/cloud-platform".to_owned()]
}

/// How long an assertion is good for.
const ASSERTION_SECONDS: u64 = 3600;

/// Tokens are renewed so long before they end.
const MARGIN: Duration = Duration::from_secs(60);

pub(super) struct SecretManager(Arc<Inner>);

struct Inner {
    settings: Settings,
    signer: Signer,
    outbound: Arc<dyn Outbound>,
    /// The token in use, and until when.
    token: Mutex<Option<(String, Duration)>>,
}

impl SecretManager {
    pub(super) fn new(settings: Settings, outbound: Arc<dyn Outbound>) -> Result<Self, String> {
        let key = &settings.auth_config.private_key;
        let signer = Signer::new(Algorithm::RS256, key, None).map_err(|wrong| format!("gcp: {wrong}"))?;
        Ok(Self(Arc::new(Inner { settings, signer, outbound, token: Mutex::default() })))
    }
}

impl Inner {
    fn over(&self, request: Request) -> Request {
        let connection = Connection { verify: self.settings.ssl_verify, ..Connection::default() };
        request.within(TIMEOUT).over(connection)
    }

    async fn token(&self, now: Duration) -> Result<String, String> {
        let known = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((token, until)) = known
            && now < until
        {
            return Ok(token);
        }
        let account = &self.settings.auth_config;
        let issued = now.as_secs();
        let assertion = self.signer.sign(&json!({
            "iss": account.client_email,
            "aud": account.token_uri,
            "scope": account.scope.join(" "),
            "iat": issued,
            "exp": issued + ASSERTION_SECONDS,
        }))?;
        let body = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")
            .append_pair("assertion", &assertion)
            .finish();
        let request = Request::post(account.token_uri.as_str(), body)
            .field("Content-Type", "application/x-www-form-urlencoded");
        let answer = self.outbound.send(self.over(request)).await;
        let granted = document("gcp", &answer.map_err(|failure| format!("gcp: {failure}"))?)?;
        let token = granted["access_token"].as_str().ok_or("gcp: no access token was granted")?.to_owned();
        let lifetime = Duration::from_secs(granted["expires_in"].as_u64().unwrap_or_default());
        let until = now + lifetime.saturating_sub(MARGIN);
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some((token.clone(), until));
        Ok(token)
    }

    async fn read(&self, path: &str, now: Duration) -> Result<String, String> {
        let (name, key) = path.split_once('/').map_or((path, None), |(name, key)| (name, Some(key)));
        let token = self.token(now).await?;
        let Account { entries_uri, project_id, .. } = &self.settings.auth_config;
        let entries = entries_uri.trim_end_matches('/');
        let url = format!("{entries}/projects/{project_id}/secrets/{name}/versions/latest:access");
        let request = Request::get(url).field("Authorization", format!("Bearer {token}"));
        let answer = self.outbound.send(self.over(request)).await;
        let document = document("gcp", &answer.map_err(|failure| format!("gcp: {failure}"))?)?;
        let data = document["payload"]["data"].as_str().ok_or("gcp: the secret is empty")?;
        let data = STANDARD.decode(data).map_err(|_| "gcp: the secret is not in base64")?;
        let text = String::from_utf8(data).map_err(|_| "gcp: the secret is no text")?;
        member(&text, key)
    }
}

impl Provider for SecretManager {
    fn read(&self, path: &str, now: Duration) -> Waiting<Result<String, String>> {
        let (inner, path) = (Arc::clone(&self.0), path.to_owned());
        Box::pin(async move { inner.read(&path, now).await })
    }
}
