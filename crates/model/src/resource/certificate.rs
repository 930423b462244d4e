//! Certificates on their own: with a private key, and of authorities. SNIs refer to them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{AsSent, Labels};

/// The writable content of a certificate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Certificate {
    /// Name of the certificate.
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
    /// The certificate in PEM, with its chain.
    #[schema(min_length = 128, max_length = 65536)]
    pub cert: String,
    /// Its private key, in PEM; never returned.
    #[schema(min_length = 32, max_length = 65536)]
    pub key: String,
}

/// The writable content of a CA certificate: authorities that clients' certificates must come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CaCertificate {
    /// Name of the CA certificate.
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
    /// The authorities, in PEM.
    #[schema(min_length = 128, max_length = 65536)]
    pub cert: String,
}
