//! Access tokens of users; only their SHA-256 is stored.

use super::database::{Row, query};
use super::witness::Subject;
use super::{KnownUser, Reading, Stamp, StoreError, Writing, user};

/// An access token as its user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccessTokenRow {
    pub(crate) id: String,
    pub(crate) name: String,
    /// Unix seconds; 0: never.
    pub(crate) expires_at: i64,
    /// Unix seconds, to the minute; 0: never.
    pub(crate) last_used_at: i64,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
    pub(crate) user_id: String,
    pub(crate) username: String,
}

const COLUMNS: &str = "t.id, t.name, t.expires_at, t.last_used_at, t.created_at, t.updated_at, t.user_id, u.username \
     FROM access_token t JOIN \"user\" u ON u.id = t.user_id";

fn read(row: &Row) -> Result<AccessTokenRow, StoreError> {
    Ok(AccessTokenRow {
        id: row.text("id")?,
        name: row.text("name")?,
        expires_at: row.integer("expires_at")?,
        last_used_at: row.integer("last_used_at")?,
        created_at: row.integer("created_at")?,
        updated_at: row.integer("updated_at")?.max(row.integer("created_at")?),
        user_id: row.text("user_id")?,
        username: row.text("username")?,
    })
}

impl Reading {
    /// The token with this SHA-256 that has not ended at `now`, and whose it is.
    pub(crate) async fn access_token_user(
        &mut self,
        sha256: &str,
        now: i64,
    ) -> Result<Option<(AccessTokenRow, KnownUser)>, StoreError> {
        let one = query(format!(
            "SELECT {}, t.id, t.name, t.expires_at, t.last_used_at, t.created_at, t.updated_at \
             FROM access_token t JOIN \"user\" u ON u.id = t.user_id \
             WHERE t.token_sha256 = $1 AND (t.expires_at = 0 OR t.expires_at > $2)",
            user::KNOWN_COLUMNS
        ));
        let row = self.tx.row(one.bind(sha256).bind(now)).await?;
        row.map(|row| Ok((read(&row)?, user::read_known(&row)?))).transpose()
    }

    /// A token of this user; others' tokens are not there.
    pub(crate) async fn access_token_get(
        &mut self,
        user_id: &str,
        id: &str,
    ) -> Result<Option<AccessTokenRow>, StoreError> {
        let one = query(format!("SELECT {COLUMNS} WHERE t.user_id = $1 AND t.id = $2"));
        self.tx.row(one.bind(user_id).bind(id)).await?.as_ref().map(read).transpose()
    }

    /// The id of the user's token of this name.
    pub(crate) async fn access_token_named(
        &mut self,
        user_id: &str,
        name: &str,
    ) -> Result<Option<String>, StoreError> {
        let one = query("SELECT id FROM access_token WHERE user_id = $1 AND name = $2");
        self.tx.row(one.bind(user_id).bind(name)).await?.map(|row| row.text("id")).transpose()
    }

    /// The user's tokens, the newest first.
    pub(crate) async fn access_token_list(
        &mut self,
        user_id: &str,
    ) -> Result<Vec<AccessTokenRow>, StoreError> {
        let all = query(format!("SELECT {COLUMNS} WHERE t.user_id = $1 ORDER BY t.created_at DESC, t.name"));
        self.tx.rows(all.bind(user_id)).await?.iter().map(read).collect()
    }
}

/// An access token that is made.
pub(crate) struct NewAccessToken<'a> {
    pub(crate) id: &'a str,
    pub(crate) user_id: &'a str,
    pub(crate) name: &'a str,
    pub(crate) sha256: &'a str,
    /// Unix seconds; 0: never.
    pub(crate) expires_at: i64,
}

impl Writing {
    pub(crate) async fn access_token_insert(
        &mut self,
        stamp: Stamp,
        token: &NewAccessToken<'_>,
    ) -> Result<(), StoreError> {
        self.witness(Subject::AccessToken(token.id.to_owned())).await?;
        let insert = query(
            "INSERT INTO access_token (id, user_id, name, token_sha256, expires_at, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $6)",
        );
        let insert = insert.bind(token.id).bind(token.user_id).bind(token.name).bind(token.sha256);
        self.tx.execute_one(insert.bind(token.expires_at).bind(stamp.at)).await
    }

    pub(crate) async fn access_token_update(
        &mut self,
        stamp: Stamp,
        id: &str,
        name: &str,
        expires_at: i64,
    ) -> Result<(), StoreError> {
        self.witness(Subject::AccessToken(id.to_owned())).await?;
        let update =
            query("UPDATE access_token SET name = $2, expires_at = $3, updated_at = $4 WHERE id = $1");
        self.tx.execute_one(update.bind(id).bind(name).bind(expires_at).bind(stamp.at)).await
    }

    /// Makes the token another text; the one it was is worth nothing from then on.
    pub(crate) async fn access_token_regenerate(
        &mut self,
        stamp: Stamp,
        id: &str,
        sha256: &str,
    ) -> Result<(), StoreError> {
        self.witness(Subject::AccessToken(id.to_owned())).await?;
        let update = query(
            "UPDATE access_token SET token_sha256 = $2, last_used_at = 0, updated_at = $3 WHERE id = $1",
        );
        self.tx.execute_one(update.bind(id).bind(sha256).bind(stamp.at)).await
    }

    pub(crate) async fn access_token_used(&mut self, id: &str, now: i64) -> Result<(), StoreError> {
        let update = query("UPDATE access_token SET last_used_at = $2 WHERE id = $1");
        self.tx.execute_one(update.bind(id).bind(now)).await
    }

    pub(crate) async fn access_token_delete(&mut self, id: &str) -> Result<(), StoreError> {
        self.witness(Subject::AccessToken(id.to_owned())).await?;
        self.tx.execute_one(query("DELETE FROM access_token WHERE id = $1").bind(id)).await
    }
}
