//! Access tokens of users; only their SHA-256 is stored.

use super::database::query;
use super::{Reading, Stamp, StoreError, Writing};

impl Reading {
    /// The name of the user whose token has this SHA-256.
    pub(crate) async fn access_token_username(&mut self, sha256: &str) -> Result<Option<String>, StoreError> {
        let one = query(
            "SELECT u.username FROM access_token t JOIN \"user\" u ON u.id = t.user_id WHERE t.token_sha256 = $1",
        );
        self.tx.row(one.bind(sha256)).await?.map(|row| row.text("username")).transpose()
    }
}

impl Writing {
    pub(crate) async fn access_token_insert(
        &mut self,
        stamp: Stamp,
        id: &str,
        user_id: &str,
        name: &str,
        sha256: &str,
    ) -> Result<(), StoreError> {
        let insert = query(
            "INSERT INTO access_token (id, user_id, name, token_sha256, created_at) VALUES ($1, $2, $3, $4, $5)",
        );
        self.tx.execute_one(insert.bind(id).bind(user_id).bind(name).bind(sha256).bind(stamp.at)).await
    }
}
