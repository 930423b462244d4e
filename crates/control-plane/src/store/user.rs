//! Users of the control plane.

use super::database::query;
use super::{Reading, Stamp, StoreError, Writing};

/// A user as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UserRow {
    pub(crate) id: String,
    pub(crate) username: String,
    /// Argon2 in PHC form.
    pub(crate) password_hash: String,
}

impl Reading {
    pub(crate) async fn user_named(&mut self, username: &str) -> Result<Option<UserRow>, StoreError> {
        let one =
            query("SELECT id, username, password_hash FROM \"user\" WHERE username = $1").bind(username);
        let Some(row) = self.tx.row(one).await? else { return Ok(None) };
        Ok(Some(UserRow {
            id: row.text("id")?,
            username: row.text("username")?,
            password_hash: row.text("password_hash")?,
        }))
    }
}

impl Writing {
    pub(crate) async fn user_insert(&mut self, stamp: Stamp, user: &UserRow) -> Result<(), StoreError> {
        let insert = query(
            "INSERT INTO \"user\" (id, username, password_hash, created_at, updated_at) VALUES ($1, $2, $3, $4, $4)",
        );
        let insert = insert.bind(user.id.as_str()).bind(user.username.as_str());
        self.tx.execute_one(insert.bind(user.password_hash.as_str()).bind(stamp.at)).await
    }
}
