//! An SNI: server names, and the certificates that clients who ask for them are shown.
//!
//! It says in references what an SSL object says in one piece, so that several can share a certificate. Gateways get
//! the SSL object that an SNI amounts to ([`Sni::as_ssl`]).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::certificate::{CaCertificate, Certificate};
use super::ssl::{ClientVerification, Ssl, SslKind, TlsProtocol};
use super::{AsSent, Labels};
use crate::id::ObjectId;
use crate::lifecycle::Status;

/// The writable content of an SNI.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Sni {
    /// Name of the SNI.
    #[schema(min_length = 1, max_length = 65536)]
    pub name: String,
    /// Free text for people.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = String, max_length = 65536)]
    pub desc: AsSent<String>,
    /// Key/value pairs for filtering.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Labels)]
    pub labels: AsSent<Labels>,
    /// The server names.
    #[schema(schema_with = super::service::hosts_schema)]
    pub hosts: Vec<String>,
    /// The certificates; each client gets one that it can verify.
    #[schema(min_items = 1, max_items = 16)]
    pub certificate_ids: Vec<ObjectId>,
    /// The CA certificates that clients' own certificates must come from; none: clients need none.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Vec<ObjectId>, max_items = 16)]
    pub ca_certificate_ids: AsSent<Vec<ObjectId>>,
    /// How many certificates may stand between a client's certificate and its authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, nullable = false)]
    pub client_depth: Option<u32>,
    /// The versions of TLS that are spoken; none: every one the gateway knows.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Vec<TlsProtocol>, max_items = 2)]
    pub ssl_protocols: AsSent<Vec<TlsProtocol>>,
    /// Whether the SNI is used: 1 yes, 0 no.
    #[serde(default)]
    #[schema(value_type = u8, minimum = 0, maximum = 1)]
    pub status: Status,
}

impl Sni {
    /// The SSL object that this SNI amounts to with the certificates it refers to.
    #[must_use]
    pub fn as_ssl(&self, certificates: Vec<Certificate>, authorities: &[CaCertificate]) -> Ssl {
        let (certs, keys): (Vec<_>, Vec<_>) =
            certificates.into_iter().map(|pair| (pair.cert, pair.key)).unzip();
        let authorities: Vec<&str> = authorities.iter().map(|authority| authority.cert.trim_end()).collect();
        // An SNI that names authorities verifies clients even if they are gone: it must not become open.
        let verifies = !self.ca_certificate_ids.is_empty();
        Ssl {
            labels: self.labels.clone(),
            kind: SslKind::Server,
            snis: self.hosts.clone(),
            cert: None,
            key: None,
            certs: AsSent::from(certs),
            keys,
            client: verifies
                .then(|| ClientVerification { ca: authorities.join("\n"), depth: self.client_depth }),
            ssl_protocols: self.ssl_protocols.clone(),
            status: self.status,
        }
    }
}

impl Certificate {
    /// The SSL object under which gateways find a certificate that upstreams' nodes are shown.
    #[must_use]
    pub fn as_ssl(self) -> Ssl {
        Ssl {
            labels: self.labels,
            kind: SslKind::Client,
            snis: Vec::new(),
            cert: Some(self.cert),
            key: Some(self.key),
            certs: AsSent::default(),
            keys: Vec::new(),
            client: None,
            ssl_protocols: AsSent::default(),
            status: Status::Enabled,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_sni_amounts_to_an_ssl_object_of_its_certificates() {
        let sni: Sni = serde_json::from_value(json!({
            "name": "n", "hosts": ["a.example"], "certificate_ids": ["c", "d"], "ca_certificate_ids": ["e", "f"],
            "client_depth": 2, "ssl_protocols": ["TLSv1.3"],
        }))
        .unwrap();
        let certificate = |name: &str| -> Certificate {
            let (cert, key) = (format!("{name}-cert"), format!("{name}-key"));
            serde_json::from_value(json!({"name": name, "cert": cert, "key": key})).unwrap()
        };
        let authority = |pem: &str| -> CaCertificate {
            serde_json::from_value(json!({"name": "a", "cert": pem})).unwrap()
        };
        let certificates = || vec![certificate("c"), certificate("d")];
        let ssl = sni.as_ssl(certificates(), &[authority("one\n"), authority("two")]);
        assert_eq!((ssl.snis.as_slice(), ssl.kind), (&["a.example".to_owned()][..], SslKind::Server));
        assert_eq!(
            (ssl.certs.into_inner(), ssl.keys),
            (vec!["c-cert".into(), "d-cert".into()], vec!["c-key".into(), "d-key".into()])
        );
        assert_eq!(ssl.client, Some(ClientVerification { ca: "one\ntwo".to_owned(), depth: Some(2) }));
        assert_eq!(*ssl.ssl_protocols, [TlsProtocol::Tls13]);
        assert!(sni.as_ssl(certificates(), &[]).client.is_some(), "clients are verified even by nobody");
        let open = Sni { ca_certificate_ids: AsSent::default(), ..sni };
        assert_eq!(open.as_ssl(certificates(), &[]).client, None);
    }
}
