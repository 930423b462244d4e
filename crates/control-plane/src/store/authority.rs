//! The internal certificate authority, whose private key is encrypted, and what it signed for gateway instances.
//!
//! Control planes of one database are one authority, because they share its row and the secret key beside it.

use gatewright_model::id::GatewayGroupId;

use super::database::{Row, query};
use super::witness::Subject;
use super::{Reading, Stamp, StoreError, Writing};

/// What the private key is encrypted for.
const PLACE: &str = "authority";

/// The authority as PEM texts, in the clear.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct AuthorityRow {
    pub(crate) certificate: String,
    pub(crate) private_key: String,
}

/// A certificate with which instances prove their group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InstanceCertificateRow {
    pub(crate) id: String,
    pub(crate) gateway_group_id: GatewayGroupId,
    pub(crate) sha256: String,
    pub(crate) expires_at: i64,
    pub(crate) created_at: i64,
}

fn read(row: &Row) -> Result<InstanceCertificateRow, StoreError> {
    Ok(InstanceCertificateRow {
        id: row.text("id")?,
        gateway_group_id: row.parsed("gateway_group_id")?,
        sha256: row.text("certificate_sha256")?,
        expires_at: row.integer("expires_at")?,
        created_at: row.integer("created_at")?,
    })
}

const COLUMNS: &str = "id, gateway_group_id, certificate_sha256, expires_at, created_at";

impl Reading {
    /// The authority, once there is one.
    pub(crate) async fn authority(&mut self) -> Result<Option<AuthorityRow>, StoreError> {
        let one = query("SELECT certificate, sealed_key FROM authority WHERE id = 1");
        let Some(row) = self.tx.row(one).await? else { return Ok(None) };
        let private_key = self.secret_key()?.open(PLACE, &row.text("sealed_key")?)?;
        Ok(Some(AuthorityRow { certificate: row.text("certificate")?, private_key }))
    }

    /// The certificate with this SHA-256, unless it was revoked.
    pub(crate) async fn instance_certificate(
        &mut self,
        sha256: &str,
    ) -> Result<Option<InstanceCertificateRow>, StoreError> {
        let one = query(format!("SELECT {COLUMNS} FROM instance_certificate WHERE certificate_sha256 = $1"));
        self.tx.row(one.bind(sha256)).await?.as_ref().map(read).transpose()
    }

    /// The certificates of a group, those that run out first in front.
    pub(crate) async fn instance_certificate_list(
        &mut self,
        group: &GatewayGroupId,
    ) -> Result<Vec<InstanceCertificateRow>, StoreError> {
        let all = query(format!(
            "SELECT {COLUMNS} FROM instance_certificate WHERE gateway_group_id = $1 ORDER BY expires_at, id"
        ));
        self.tx.rows(all.bind(group.as_str())).await?.iter().map(read).collect()
    }
}

impl Writing {
    /// Keeps the authority of a first start.
    pub(crate) async fn authority_insert(
        &mut self,
        row: &AuthorityRow,
        random: [u8; 32],
    ) -> Result<(), StoreError> {
        let sealed = self.secret_key()?.seal(PLACE, &row.private_key, random)?;
        let insert = query("INSERT INTO authority (id, certificate, sealed_key) VALUES (1, $1, $2)");
        self.tx.execute_one(insert.bind(row.certificate.as_str()).bind(sealed)).await
    }

    pub(crate) async fn instance_certificate_insert(
        &mut self,
        stamp: Stamp,
        id: &str,
        group: &GatewayGroupId,
        sha256: &str,
        expires_at: i64,
    ) -> Result<(), StoreError> {
        self.witness(Subject::InstanceCertificate(id.to_owned())).await?;
        let insert = query(
            "INSERT INTO instance_certificate (id, gateway_group_id, certificate_sha256, expires_at, created_at) \
             VALUES ($1, $2, $3, $4, $5)",
        );
        let insert = insert.bind(id).bind(group.as_str()).bind(sha256).bind(expires_at).bind(stamp.at);
        self.tx.execute_one(insert).await
    }

    /// Revokes a certificate, and lets every control plane look whom that concerns; whether there was one.
    pub(crate) async fn instance_certificate_delete(
        &mut self,
        group: &GatewayGroupId,
        id: &str,
    ) -> Result<bool, StoreError> {
        self.witness(Subject::InstanceCertificate(id.to_owned())).await?;
        let delete = query("DELETE FROM instance_certificate WHERE id = $1 AND gateway_group_id = $2");
        let deleted = self.tx.execute(delete.bind(id).bind(group.as_str())).await? > 0;
        self.tx.announce(group.as_str()).await?;
        Ok(deleted)
    }
}
