//! The internal certificate authority: signs for control planes and for gateway instances, and for nobody else.
//!
//! A gateway knows it by the digest of its certificate, which is part of every instance token, so that a token is all
//! that a first join needs. It lives in the store, its key encrypted, so that control planes of one database are one
//! authority. It does not run out (beyond the year 4000): another one would mean that every gateway joins again.
//! What it signs does.

use std::io;
use std::time::{Duration, SystemTime};

use gatewright_model::id::GatewayGroupId;
use gatewright_model::protocol::CONTROL_PLANE_NAME;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::gateway_group::gateway_group;
use super::{Action, App, Caller, Digest, Refusal, World};
use crate::store::{AuthorityRow, Call, InstanceCertificateRow, Store, StoreError};

/// What the authority calls itself; what it signs names it so.
const NAME: &str = "Gatewright internal authority";

/// How long the certificate of a control plane is good; it is made anew long before.
pub(crate) const CONTROL_PLANE_VALIDITY: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How far the clocks of those who verify may be behind.
const CLOCK_SKEW: Duration = Duration::from_secs(24 * 60 * 60);

/// Days for which the certificate of an instance is good unless something else is asked for, and at most.
pub(crate) const INSTANCE_DAYS_DEFAULT: u32 = 365;
pub(crate) const INSTANCE_DAYS_MAX: u32 = 3650;

/// What callers call the certificate of an instance.
const NOUN: &str = "data-plane certificate";

/// The internal certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    certificate_pem: String,
}

/// A certificate with which an instance proves its group. The key is answered once and kept nowhere.
#[derive(Clone, Debug)]
pub(crate) struct InstanceCertificate {
    pub(crate) id: String,
    pub(crate) gateway_group_id: GatewayGroupId,
    pub(crate) certificate: String,
    pub(crate) private_key: String,
    pub(crate) authority: String,
    pub(crate) expires_at: i64,
}

impl Authority {
    /// The authority of `store`, which is made unless it is there.
    pub(crate) async fn open(store: &Store, world: &World) -> Result<Self, StoreError> {
        let unusable = |error: &dyn std::fmt::Display| StoreError::Unavailable {
            reason: format!("the certificate authority in it cannot be used: {error}"),
        };
        if let Some(row) = store.read().await?.authority().await? {
            return Self::new(&row).map_err(|error| unusable(&error));
        }
        let mut tx = store.write().await?;
        let row = match tx.authority().await? {
            Some(row) => row,
            None => {
                let row = generate().map_err(|error| unusable(&error))?;
                tx.stamp(world.now()).await?;
                tx.authority_insert(&row, world.random()).await?;
                tx.commit().await?;
                row
            }
        };
        Self::new(&row).map_err(|error| unusable(&error))
    }

    fn new(row: &AuthorityRow) -> io::Result<Self> {
        let key = KeyPair::from_pem(&row.private_key).map_err(io::Error::other)?;
        let certificate =
            CertificateDer::from_pem_slice(row.certificate.as_bytes()).map_err(io::Error::other)?;
        let issuer = Issuer::new(authority_params(), key);
        Ok(Self { issuer, certificate, certificate_pem: row.certificate.clone() })
    }

    /// One that nobody keeps.
    #[cfg(test)]
    pub(crate) fn of_a_test() -> std::sync::Arc<Self> {
        std::sync::Arc::new(Self::new(&generate().unwrap()).unwrap())
    }

    /// Its certificate, for those who verify what it signed.
    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// What gateways know it by.
    pub(crate) fn pin(&self) -> String {
        Digest::of_bytes(&self.certificate).as_str().to_owned()
    }

    /// A certificate for a control plane, good from `now` on.
    pub(crate) fn sign_control_plane(&self, now: SystemTime) -> io::Result<CertifiedKey> {
        let names = vec![CONTROL_PLANE_NAME.to_owned()];
        let mut params = CertificateParams::new(names).map_err(io::Error::other)?;
        params.distinguished_name.push(DnType::CommonName, CONTROL_PLANE_NAME);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + CONTROL_PLANE_VALIDITY).into();
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(io::Error::other)?;
        let private_key = PrivateKeyDer::try_from(key.serialize_der()).map_err(io::Error::other)?;
        let signing_key =
            rustls::crypto::ring::sign::any_supported_type(&private_key).map_err(io::Error::other)?;
        // The authority is sent along: a gateway that joins with a token knows only its digest.
        let chain = vec![certificate.der().clone(), self.certificate.clone()];
        Ok(CertifiedKey::new(chain, signing_key))
    }

    /// A certificate for an instance of `group`, and its digest. What it says of the group is for people: the store
    /// knows whose it is.
    fn sign_instance(
        &self,
        id: &str,
        group: &GatewayGroupId,
        now: i64,
        validity: Duration,
    ) -> io::Result<(InstanceCertificate, Digest)> {
        let starts = SystemTime::UNIX_EPOCH + Duration::from_secs(now.unsigned_abs());
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, id);
        params.distinguished_name.push(DnType::OrganizationName, group.as_str());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = (starts - CLOCK_SKEW).into();
        params.not_after = (starts + validity).into();
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(io::Error::other)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(io::Error::other)?;
        let signed = InstanceCertificate {
            id: id.to_owned(),
            gateway_group_id: group.clone(),
            certificate: certificate.pem(),
            private_key: key.serialize_pem(),
            authority: self.certificate_pem.clone(),
            expires_at: now.saturating_add_unsigned(validity.as_secs()),
        };
        Ok((signed, Digest::of_bytes(certificate.der())))
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}

fn generate() -> Result<AuthorityRow, rcgen::Error> {
    let key = KeyPair::generate()?;
    let certificate = authority_params().self_signed(&key)?;
    Ok(AuthorityRow { certificate: certificate.pem(), private_key: key.serialize_pem() })
}

impl App {
    /// Signs a certificate with which instances of the group prove it, good for as many days.
    pub(crate) async fn instance_certificate_create(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        days: u32,
    ) -> Result<InstanceCertificate, Refusal> {
        caller.must(Action::CreateGatewayInstance, group.as_str())?;
        let validity = Duration::from_secs(u64::from(days) * 24 * 60 * 60);
        let mut tx = self.store().write().await?;
        let row = gateway_group(&mut tx, group).await?;
        let (id, now) = (self.world().id::<String>(), self.world().now());
        let failed = |error: io::Error| StoreError::Unavailable {
            reason: format!("a certificate could not be signed: {error}"),
        };
        let signed = self.authority().sign_instance(&id, group, now, validity);
        let (certificate, digest) = signed.map_err(failed)?;
        let stamp = tx.stamp(now).await?;
        tx.instance_certificate_insert(stamp, &id, group, digest.as_str(), certificate.expires_at).await?;
        Call::concerns(&id, &row.group.name);
        tx.commit().await?;
        Ok(certificate)
    }

    /// The certificates of a group that were not revoked, those that run out first in front.
    pub(crate) async fn instance_certificate_list(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
    ) -> Result<Vec<InstanceCertificateRow>, Refusal> {
        caller.must(Action::GetGatewayInstance, group.as_str())?;
        let mut tx = self.store().read().await?;
        gateway_group(&mut tx, group).await?;
        Ok(tx.instance_certificate_list(group).await?)
    }

    /// Revokes a certificate: who shows it gets no configuration any more.
    pub(crate) async fn instance_certificate_delete(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        id: &str,
    ) -> Result<(), Refusal> {
        caller.must(Action::DeleteGatewayInstance, group.as_str())?;
        let mut tx = self.store().write().await?;
        gateway_group(&mut tx, group).await?;
        if !tx.instance_certificate_delete(group, id).await? {
            return Err(Refusal::NotFound { noun: NOUN, id: id.to_owned() });
        }
        tx.commit().await?;
        self.hints().changed(group);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::app;
    use super::*;

    #[tokio::test]
    async fn the_authority_is_made_once_and_its_key_is_not_in_the_clear() {
        let (app, _dir) = app().await;
        let first = Authority::open(app.store(), app.world()).await.unwrap();
        let again = Authority::open(app.store(), app.world()).await.unwrap();
        assert_eq!(again.pin(), first.pin());
        let (other, _other_dir) = super::super::tests::app().await;
        assert_ne!(Authority::open(other.store(), other.world()).await.unwrap().pin(), first.pin());
        let row = app.store().read().await.unwrap().authority().await.unwrap().unwrap();
        assert!(row.private_key.contains("PRIVATE KEY"));
    }

    #[test]
    fn an_instance_certificate_says_whose_it_is_and_when_it_runs_out() {
        let authority = Authority::of_a_test();
        let validity = Duration::from_secs(1000);
        let (signed, digest) =
            authority.sign_instance("c1", &"g1".parse().unwrap(), 5_000_000, validity).unwrap();
        assert_eq!(signed.expires_at, 5_001_000);
        let der = CertificateDer::from_pem_slice(signed.certificate.as_bytes()).unwrap();
        assert_eq!(Digest::of_bytes(&der), digest);
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
        assert_eq!(parsed.validity().not_after.timestamp(), 5_001_000);
        let subject = parsed.subject().to_string();
        assert!(subject.contains("CN=c1") && subject.contains("O=g1"), "{subject}");
        assert!(signed.private_key.contains("PRIVATE KEY") && !signed.certificate.contains("PRIVATE"));
    }
}
