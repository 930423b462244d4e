//! What clients must show: certificates from given authorities, verified after the handshake.
//!
//! A handshake asks for a certificate and checks that the client holds its key, but lets clients without a good one
//! in: a request then gets an answer that says what is missing, instead of a connection that breaks for reasons
//! nobody sees. So nothing but a request may look at [`ClientIdentity`], and every request does, by [`admit`].
//! A resumed session is verified again, by what is demanded now.
//!
//! What a connection has shown holds for the server name it was opened for. A request for a host that demands
//! something else is misdirected (421): another connection may serve it.

use std::fmt::Write as _;
use std::sync::Arc;

use gatewright_model::resource::ssl::ClientVerification;
use gatewright_model::validation::Violations;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use super::certificate;
use super::handshake::Session;
use super::server_names::ServerNames;
use crate::proxy::reject::RejectReason;

/// Certificates that may stand between that of a client and its authority, unless an object says otherwise.
const DEPTH_DEFAULT: u32 = 1;

/// Whose certificates are accepted.
#[derive(Debug)]
pub(crate) struct ClientPolicy {
    /// What it was compiled from.
    written: ClientVerification,
    authorities: Vec<TrustAnchor<'static>>,
    subjects: Vec<DistinguishedName>,
}

/// What a client has shown of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ClientIdentity {
    /// Nothing, or nobody asked.
    #[default]
    None,
    /// A certificate that is accepted.
    Verified(Subject),
    /// A certificate that is not, and why.
    Refused(Subject, String),
}

/// Who a certificate is about, in the words of the variables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) issuer: String,
    pub(crate) serial: String,
}

impl ClientPolicy {
    pub(crate) fn compile(written: &ClientVerification) -> Result<Self, Violations> {
        let wrong = |message: String| Violations::one("/client/ca", message);
        let mut policy = Self { written: written.clone(), authorities: Vec::new(), subjects: Vec::new() };
        for authority in certificate::chain(&written.ca).map_err(wrong)? {
            let anchor = webpki::anchor_from_trusted_cert(&authority)
                .map_err(|error| wrong(format!("the authority cannot be read: {error}")))?;
            policy.subjects.push(DistinguishedName::in_sequence(&anchor.subject));
            policy.authorities.push(anchor.to_owned());
        }
        Ok(policy)
    }

    /// Whether two policies demand the same.
    fn demands_the_same(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || self.written == other.written
    }

    /// Judges the certificates a client showed, its own first.
    pub(crate) fn identify(
        &self,
        shown: &[CertificateDer<'_>],
        algorithms: &WebPkiSupportedAlgorithms,
        now: UnixTime,
    ) -> ClientIdentity {
        let Some((own, between)) = shown.split_first() else { return ClientIdentity::None };
        let subject = Subject::of(own);
        match self.verify(own, between, algorithms, now) {
            Ok(()) => ClientIdentity::Verified(subject),
            Err(error) => ClientIdentity::Refused(subject, error.to_string()),
        }
    }

    fn verify(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        algorithms: &WebPkiSupportedAlgorithms,
        now: UnixTime,
    ) -> Result<(), webpki::Error> {
        let depth_max = self.written.depth.unwrap_or(DEPTH_DEFAULT) as usize;
        let short_enough = |path: &VerifiedPath<'_>| match path.intermediate_certificates().count() {
            count if count <= depth_max => Ok(()),
            _ => Err(webpki::Error::MaximumPathDepthExceeded),
        };
        let usage = KeyUsage::client_auth();
        EndEntityCert::try_from(own)?.verify_for_usage(
            algorithms.all,
            &self.authorities,
            between,
            now,
            usage,
            None,
            Some(&short_enough),
        )?;
        Ok(())
    }
}

/// Asks clients for a certificate and has them prove that they hold its key; what the certificate is worth is
/// judged after the handshake, see [`ClientPolicy::identify`].
#[derive(Debug)]
pub(crate) struct AskForCertificate {
    policy: Arc<ClientPolicy>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl AskForCertificate {
    pub(crate) fn new(policy: &Arc<ClientPolicy>, provider: &CryptoProvider) -> Self {
        Self { policy: Arc::clone(policy), algorithms: provider.signature_verification_algorithms }
    }
}

impl ClientCertVerifier for AskForCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.policy.subjects
    }

    fn verify_client_cert(
        &self,
        _own: &CertificateDer<'_>,
        _between: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whether a request for `host` may use the connection it came on; without a session there is nothing to demand.
///
/// # Errors
/// The reason it is rejected with.
pub(crate) fn admit(names: &ServerNames, session: Option<&Session>, host: &[u8]) -> Result<(), RejectReason> {
    let Some(session) = session else { return Ok(()) };
    if !names.verifies_clients && session.policy.is_none() {
        return Ok(());
    }
    // A dot at the end names the same host and must not be a way around what is demanded of it.
    let host = host.strip_suffix(b".").unwrap_or(host);
    let shown = names.find(std::str::from_utf8(host).ok());
    let demanded = shown.and_then(|shown| shown.policy.as_deref());
    match (demanded, session.policy.as_deref()) {
        (None, None) => return Ok(()),
        (Some(demanded), Some(met)) if demanded.demands_the_same(met) => {}
        _ => return Err(RejectReason::Misdirected),
    }
    match &session.client {
        ClientIdentity::Verified(_) => Ok(()),
        ClientIdentity::None => Err(RejectReason::ClientCertificateMissing),
        ClientIdentity::Refused(..) => Err(RejectReason::ClientCertificateRefused),
    }
}

impl ClientIdentity {
    /// Whom the client's certificate is about, if it showed one.
    pub(crate) fn subject(&self) -> Option<&Subject> {
        match self {
            Self::None => None,
            Self::Verified(subject) | Self::Refused(subject, _) => Some(subject),
        }
    }

    /// `SUCCESS`, `NONE` or `FAILED:` with the reason.
    pub(crate) fn verdict(&self) -> String {
        match self {
            Self::None => "NONE".to_owned(),
            Self::Verified(_) => "SUCCESS".to_owned(),
            Self::Refused(_, reason) => format!("FAILED:{reason}"),
        }
    }
}

impl Subject {
    fn of(certificate: &CertificateDer<'_>) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Self::default() };
        let serial = certificate.raw_serial().iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02X}");
            text
        });
        Self {
            name: distinguished_name(certificate.subject()),
            issuer: distinguished_name(certificate.issuer()),
            serial,
        }
    }
}

/// A name as RFC 4514 writes it: the most specific part first.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter()
        .map(|part| {
            let attributes = part.iter().map(|attribute| {
                let kind = x509_parser::objects::oid2abbrev(
                    attribute.attr_type(),
                    x509_parser::objects::oid_registry(),
                );
                let kind = kind.map_or_else(|_| attribute.attr_type().to_id_string(), str::to_owned);
                format!("{kind}={}", escaped(attribute.as_str().unwrap_or_default()))
            });
            attributes.collect::<Vec<_>>().join("+")
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

/// Escapes what would read as structure, and what cannot stand in a header.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for (index, character) in value.char_indices() {
        let at_end = index + character.len_utf8() == value.len();
        match character {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=' => out.extend(['\\', character]),
            '#' if index == 0 => out.push_str("\\#"),
            ' ' if index == 0 || at_end => out.push_str("\\ "),
            control if control.is_control() => {
                let _ = write!(out, "\\{:02X}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out
}
