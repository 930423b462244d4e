//! Certificates: what can be read from them, and what makes two of them the same.
//!
//! Certificates are parsed, not verified: published clients send self-signed ones of X.509 version 1 whose names do
//! not cover the server names, and gateways show them to clients, they do not trust them.

use gatewright_model::resource::ssl::Ssl;
use gatewright_model::validation::Violations;
use x509_parser::pem::Pem;

/// From when to when a certificate is valid, in unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) start: i64,
    pub(crate) end: i64,
}

/// Refuses certificates that cannot be parsed and keys that are none.
pub(super) fn certificates_check(ssl: &Ssl, violations: &mut Violations) {
    for (at, pem) in ssl.certificates() {
        certificate_check(&at, pem, violations);
    }
    let further = ssl.keys.iter().enumerate().map(|(index, key)| (format!("/keys/{index}"), key));
    for (at, key) in ssl.key.iter().map(|key| ("/key".to_owned(), key)).chain(further) {
        key_check(&at, key, violations);
    }
    if let Some(client) = &ssl.client {
        certificate_check("/client/ca", &client.ca, violations);
    }
}

pub(super) fn certificate_check(at: &str, pem: &str, violations: &mut Violations) {
    if let Err(reason) = validity_of(pem) {
        violations.add(at, format!("is no certificate in PEM: {reason}"));
    }
}

pub(super) fn key_check(at: &str, key: &str, violations: &mut Violations) {
    let is_key = first_block(key).is_ok_and(|pem| pem.label.ends_with("PRIVATE KEY"));
    if !is_key {
        violations.add(at, "is no private key in PEM");
    }
}

/// When certificates are valid: all of them at once.
pub(crate) fn validity<'a>(certificates: impl Iterator<Item = &'a str>) -> Option<Validity> {
    let each = certificates.filter_map(|pem| validity_of(pem).ok());
    each.reduce(|all, one| Validity { start: all.start.max(one.start), end: all.end.min(one.end) })
}

/// What no other object of the kind may have in a group: the certificate, whatever its PEM looks like.
pub(super) fn certificate_mark(pem: &str) -> Option<String> {
    first_block(pem).ok().map(|pem| hex::encode(pem.contents))
}

fn first_block(text: &str) -> Result<Pem, String> {
    let (pem, _) = Pem::read(std::io::Cursor::new(text)).map_err(|error| error.to_string())?;
    Ok(pem)
}

fn validity_of(text: &str) -> Result<Validity, String> {
    let pem = first_block(text)?;
    let certificate = pem.parse_x509().map_err(|error| error.to_string())?;
    let validity = certificate.validity();
    Ok(Validity { start: validity.not_before.timestamp(), end: validity.not_after.timestamp() })
}
