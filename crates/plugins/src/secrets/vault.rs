//! Vault and OpenBao: key/value secrets of both versions.
//!
//! `path/key` is the member `key` of the secret at `path`, below the prefix. Version 2 keeps secrets below `data/` of
//! its mount; where the prefix does not say so, that is tried as well.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::{Provider, TIMEOUT, document, text_of};
use crate::outbound::{Outbound, Request, Waiting};

#[derive(Deserialize)]
pub(super) struct Settings {
    uri: String,
    prefix: String,
    token: String,
    #[serde(default)]
    namespace: Option<String>,
}

pub(super) struct Vault {
    settings: Settings,
    outbound: Arc<dyn Outbound>,
}

impl Vault {
    pub(super) fn new(settings: Settings, outbound: Arc<dyn Outbound>) -> Self {
        Self { settings, outbound }
    }

    fn request(&self, path: &str) -> Request {
        let uri = self.settings.uri.trim_end_matches('/');
        let request = Request::get(format!("{uri}/v1/{path}")).within(TIMEOUT);
        let request = request.field("X-Vault-Token", self.settings.token.as_str());
        match &self.settings.namespace {
            Some(namespace) => request.field("X-Vault-Namespace", namespace.as_str()),
            None => request,
        }
    }
}

impl Provider for Vault {
    fn read(&self, path: &str, _: Duration) -> Waiting<Result<String, String>> {
        let Some((path, key)) = path.rsplit_once('/') else {
            let wrong = format!("`{path}` must be like `path/key`");
            return Box::pin(std::future::ready(Err(wrong)));
        };
        let prefix = self.settings.prefix.trim_matches('/');
        let first = self.request(&format!("{prefix}/{path}"));
        let (mount, below) = prefix.split_once('/').unwrap_or((prefix, ""));
        let is_explicit = below == "data" || below.starts_with("data/");
        let below = if below.is_empty() { String::new() } else { format!("{below}/") };
        let second = (!is_explicit).then(|| self.request(&format!("{mount}/data/{below}{path}")));
        let (outbound, key) = (Arc::clone(&self.outbound), key.to_owned());
        Box::pin(async move {
            let send = |request| {
                let sending = outbound.send(request);
                async { sending.await.map_err(|failure| format!("vault: {failure}")) }
            };
            let mut answer = send(first).await?;
            if let (404, Some(second)) = (answer.status, second) {
                answer = send(second).await?;
            }
            let document = document("vault", &answer)?;
            let data = &document["data"];
            // Version 2 has the version of the secret beside it.
            let data = if data["metadata"].is_object() && data["data"] != Value::Null {
                &data["data"]
            } else {
                data
            };
            text_of(data.get(&key)).ok_or_else(|| format!("vault: the secret has no member `{key}`"))
        })
    }
}
