//! AWS Secrets Manager, with requests signed by Signature Version 4.
//!
//! `name` is the whole of a secret, `name/key` the member `key` of the JSON document it holds.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use ring::{digest, hmac};
use serde::Deserialize;
use serde_json::json;
use time::OffsetDateTime;

use super::{Provider, TIMEOUT, document, member};
use crate::outbound::{Outbound, Request, Waiting};

#[derive(Deserialize)]
pub(super) struct Settings {
    access_key_id: String,
    secret_access_key: String,
    #[serde(default)]
    session_token: Option<String>,
    #[serde(default = "us_east_1")]
    region: String,
    #[serde(default)]
    endpoint_url: Option<String>,
}

fn us_east_1() -> String {
    "us-east-1".to_owned()
}

pub(super) struct SecretsManager {
    settings: Settings,
    outbound: Arc<dyn Outbound>,
}

impl SecretsManager {
    pub(super) fn new(settings: Settings, outbound: Arc<dyn Outbound>) -> Self {
        Self { settings, outbound }
    }

    fn request(&self, name: &str, now: Duration) -> Request {
        let Settings { region, endpoint_url, session_token, .. } = &self.settings;
        let regular = || format!("https://secretsmanager.{region}.amazonaws.com");
        let endpoint = endpoint_url.clone().unwrap_or_else(regular);
        let endpoint = endpoint.trim_end_matches('/');
        let host = endpoint.split("://").nth(1).unwrap_or(endpoint);
        let moment = moment(now);
        let mut fields = vec![
            ("content-type", "application/x-amz-json-1.1".to_owned()),
            ("host", host.to_owned()),
            ("x-amz-date", moment.clone()),
        ];
        fields.extend(session_token.iter().map(|token| ("x-amz-security-token", token.clone())));
        fields.push(("x-amz-target", "secretsmanager.GetSecretValue".to_owned()));
        let body = json!({ "SecretId": name }).to_string();
        let authorization = self.signature(
            "secretsmanager",
            &Signed { method: "POST", fields: &fields, body: &body },
            &moment,
        );
        let mut request = Request::post(format!("{endpoint}/"), body).within(TIMEOUT);
        for (name, value) in fields.into_iter().filter(|(name, _)| *name != "host") {
            request = request.field(name, value);
        }
        request.field("authorization", authorization)
    }

    /// The value of `Authorization` for a request to `/` of `service`; its fields are sorted by name.
    fn signature(&self, service: &str, signed: &Signed<'_>, moment: &str) -> String {
        let names: Vec<&str> = signed.fields.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let mut canonical = format!("{}\n/\n\n", signed.method);
        for (name, value) in signed.fields {
            // Writing to a string cannot fail.
            let _ = writeln!(canonical, "{name}:{}", value.trim());
        }
        let _ = write!(canonical, "\n{names}\n{}", hashed(signed.body));
        let day = &moment[..8];
        let scope = format!("{day}/{}/{service}/aws4_request", self.settings.region);
        let text = format!("AWS4-HMAC-SHA256\n{moment}\n{scope}\n{}", hashed(&canonical));
        let mut key = format!("AWS4{}", self.settings.secret_access_key).into_bytes();
        for part in [day, &self.settings.region, service, "aws4_request", &text] {
            let signing = hmac::Key::new(hmac::HMAC_SHA256, &key);
            key = hmac::sign(&signing, part.as_bytes()).as_ref().to_vec();
        }
        let id = &self.settings.access_key_id;
        format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={}", hex(&key))
    }
}

struct Signed<'s> {
    method: &'s str,
    fields: &'s [(&'s str, String)],
    body: &'s str,
}

/// `now` as `20150830T123600Z`.
fn moment(now: Duration) -> String {
    let seconds = i64::try_from(now.as_secs()).unwrap_or_default();
    let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", at.hour(), at.minute(), at.second())
}

fn hashed(text: &str) -> String {
    hex(digest::digest(&digest::SHA256, text.as_bytes()).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Provider for SecretsManager {
    fn read(&self, path: &str, now: Duration) -> Waiting<Result<String, String>> {
        let (name, key) =
            path.split_once('/').map_or((path, None), |(name, key)| (name, Some(key.to_owned())));
        let sending = self.outbound.send(self.request(name, now));
        Box::pin(async move {
            let answer = sending.await.map_err(|failure| format!("aws: {failure}"))?;
            let document = document("aws", &answer)?;
            let secret = document["SecretString"].as_str().ok_or("aws: the secret is no text")?;
            member(secret, key.as_deref())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example `get-vanilla` of the test suite that AWS publishes for Signature Version 4.
    #[test]
    fn requests_are_signed_as_published() {
        let settings = Settings {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: None,
            region: us_east_1(),
            endpoint_url: None,
        };
        let manager = SecretsManager::new(settings, crate::outbound::refusing());
        let moment = "20150830T123600Z";
        let fields = [("host", "example.amazonaws.com".to_owned()), ("x-amz-date", moment.to_owned())];
        let signed = Signed { method: "GET", fields: &fields, body: "" };
        assert_eq!(
            manager.signature("service", &signed, moment),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, \
             Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
        );
    }
}
