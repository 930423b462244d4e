//! Sessions of users, one for each at most; only their SHA-256 is stored.

use super::database::query;
use super::{KnownUser, Reading, Stamp, StoreError, Writing, user};

impl Reading {
    /// The user whose session has this SHA-256 and has not ended at `now`.
    pub(crate) async fn session_user(
        &mut self,
        sha256: &str,
        now: i64,
    ) -> Result<Option<KnownUser>, StoreError> {
        let one = query(format!(
            "SELECT {} FROM session s JOIN \"user\" u ON u.id = s.user_id \
             WHERE s.session_sha256 = $1 AND s.expires_at > $2",
            user::KNOWN_COLUMNS
        ));
        self.tx.row(one.bind(sha256).bind(now)).await?.as_ref().map(user::read_known).transpose()
    }
}

impl Writing {
    /// Starts a session; the one the user had before ends.
    pub(crate) async fn session_put(
        &mut self,
        stamp: Stamp,
        user_id: &str,
        sha256: &str,
        expires_at: i64,
    ) -> Result<(), StoreError> {
        self.session_delete(user_id).await?;
        let insert = query(
            "INSERT INTO session (user_id, session_sha256, created_at, expires_at) VALUES ($1, $2, $3, $4)",
        );
        self.tx.execute_one(insert.bind(user_id).bind(sha256).bind(stamp.at).bind(expires_at)).await
    }

    /// Ends the user's session, if there is one.
    pub(crate) async fn session_delete(&mut self, user_id: &str) -> Result<(), StoreError> {
        self.tx.execute(query("DELETE FROM session WHERE user_id = $1").bind(user_id)).await?;
        Ok(())
    }
}
