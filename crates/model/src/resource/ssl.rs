//! An SSL object: certificates with their private keys, and the server names they are for.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{AsSent, Labels};
use crate::lifecycle::Status;
use crate::validation::Violations;

/// The writable content of an SSL object. `cert` and `key` are the first pair, `certs` and `keys` any further ones;
/// published clients send both at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Ssl {
    /// Key/value pairs for filtering.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Labels)]
    pub labels: AsSent<Labels>,
    /// Whether gateways show the certificate to clients or to upstreams.
    #[serde(default, rename = "type")]
    pub kind: SslKind,
    /// The server names the certificates are for; they need not stand in the certificates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(schema_with = super::service::hosts_schema)]
    pub snis: Vec<String>,
    /// The first certificate, in PEM, with its chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 128, max_length = 65536, nullable = false)]
    pub cert: Option<String>,
    /// Its private key, in PEM; never returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 32, max_length = 65536, nullable = false)]
    pub key: Option<String>,
    /// Further certificates, in PEM.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Vec<String>, max_items = 16)]
    pub certs: AsSent<Vec<String>>,
    /// Their private keys, in PEM; never returned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 16)]
    pub keys: Vec<String>,
    /// What clients must show themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub client: Option<ClientVerification>,
    /// The versions of TLS that are spoken with clients; none: every one the gateway knows.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Vec<TlsProtocol>, max_items = 2)]
    pub ssl_protocols: AsSent<Vec<TlsProtocol>>,
    /// Whether the object is used: 1 yes, 0 no.
    #[serde(default)]
    #[schema(value_type = u8, minimum = 0, maximum = 1)]
    pub status: Status,
}

/// A version of TLS. Older ones are broken and not spoken at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum TlsProtocol {
    /// TLS 1.2.
    #[serde(rename = "TLSv1.2")]
    Tls12,
    /// TLS 1.3.
    #[serde(rename = "TLSv1.3")]
    Tls13,
}

/// Whom a certificate is shown to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SslKind {
    /// To clients.
    #[default]
    Server,
    /// To upstreams.
    Client,
}

/// Which client certificates are accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClientVerification {
    /// The authorities clients' certificates must come from, in PEM.
    #[schema(min_length = 128, max_length = 65536)]
    pub ca: String,
    /// How many certificates may stand between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, nullable = false)]
    pub depth: Option<u32>,
}

impl Ssl {
    /// Rules between fields: `at` is the JSON path of this object.
    pub fn check(&self, at: &str, violations: &mut Violations) {
        if self.cert.is_none() && self.certs.is_empty() {
            violations.add(format!("{at}/cert"), "property \"cert\" is missing");
        }
        if self.cert.is_some() != self.key.is_some() {
            violations.add(format!("{at}/key"), "cert and key belong together");
        }
        if self.certs.len() != self.keys.len() {
            violations.add(format!("{at}/keys"), "certs and keys must be as many");
        }
        if self.kind == SslKind::Server && self.snis.is_empty() {
            violations.add(format!("{at}/snis"), "minimum number of items is 1");
        }
    }

    /// The certificates in order, each with its JSON path below this object.
    pub fn certificates(&self) -> impl Iterator<Item = (String, &str)> {
        let further = self.certs.iter().enumerate();
        let further = further.map(|(index, pem)| (format!("/certs/{index}"), pem.as_str()));
        self.cert.iter().map(|pem| ("/cert".to_owned(), pem.as_str())).chain(further)
    }
}
