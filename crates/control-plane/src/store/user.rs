//! Users of the control plane and their roles.

use super::database::{Parameter, Query, Row, query};
use super::list::escape_like;
use super::witness::Subject;
use super::{ListFilter, Listed, Reading, Stamp, StoreError, Writing};

/// A user as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UserRow {
    pub(crate) id: String,
    pub(crate) username: String,
    /// Argon2 in PHC form.
    pub(crate) password_hash: String,
    pub(crate) password_state: PasswordState,
}

/// Where a password comes from, and so what it is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PasswordState {
    /// From its user, or from the operator of the process.
    Chosen,
    /// From a first start, at random.
    Generated,
    /// From another user, who therefore knows it.
    Given,
    /// The same, after the one login it is good for.
    GivenUsed,
}

impl PasswordState {
    const ALL: [Self; 4] = [Self::Chosen, Self::Generated, Self::Given, Self::GivenUsed];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Chosen => "chosen",
            Self::Generated => "generated",
            Self::Given => "given",
            Self::GivenUsed => "given_used",
        }
    }
}

impl TryFrom<String> for PasswordState {
    type Error = ();

    fn try_from(text: String) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or(())
    }
}

/// A user as far as it matters to what the user may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownUser {
    pub(crate) id: String,
    pub(crate) username: String,
    pub(crate) password_state: PasswordState,
    pub(crate) roles: Vec<String>,
}

/// A user as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UserSummary {
    pub(crate) known: KnownUser,
    pub(crate) first_name: String,
    pub(crate) last_name: String,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
}

/// The columns of a [`KnownUser`], of table alias `u`; other tables' columns may follow.
pub(super) const KNOWN_COLUMNS: &str = "u.id AS user_id, u.username, u.password_state, COALESCE((SELECT MAX(r.role_id) FROM user_role r WHERE r.user_id = u.id), '') AS role_id";

pub(super) fn read_known(row: &Row) -> Result<KnownUser, StoreError> {
    let role = row.text("role_id")?;
    Ok(KnownUser {
        id: row.text("user_id")?,
        username: row.text("username")?,
        password_state: row.parsed("password_state")?,
        // There is one role yet; a second one makes this a list of its own.
        roles: if role.is_empty() { Vec::new() } else { vec![role] },
    })
}

/// The columns of a [`UserSummary`] beside [`KNOWN_COLUMNS`].
const SUMMARY_COLUMNS: &str = "u.first_name, u.last_name, u.created_at, u.updated_at";

fn read_summary(row: &Row) -> Result<UserSummary, StoreError> {
    Ok(UserSummary {
        known: read_known(row)?,
        first_name: row.text("first_name")?,
        last_name: row.text("last_name")?,
        created_at: row.integer("created_at")?,
        updated_at: row.integer("updated_at")?,
    })
}

impl Reading {
    pub(crate) async fn user_named(&mut self, username: &str) -> Result<Option<UserRow>, StoreError> {
        let one =
            query("SELECT id, username, password_hash, password_state FROM \"user\" WHERE username = $1");
        let Some(row) = self.tx.row(one.bind(username)).await? else { return Ok(None) };
        Ok(Some(UserRow {
            id: row.text("id")?,
            username: row.text("username")?,
            password_hash: row.text("password_hash")?,
            password_state: row.parsed("password_state")?,
        }))
    }

    pub(crate) async fn user_get(&mut self, id: &str) -> Result<Option<UserSummary>, StoreError> {
        let one = query(format!("SELECT {KNOWN_COLUMNS}, {SUMMARY_COLUMNS} FROM \"user\" u WHERE u.id = $1"));
        self.tx.row(one.bind(id)).await?.as_ref().map(read_summary).transpose()
    }

    /// Users by name; of the filter, `search`, `name` and `page` count.
    pub(crate) async fn user_list(&mut self, filter: &ListFilter) -> Result<Listed<UserSummary>, StoreError> {
        let mut parameters: Vec<Parameter> = Vec::new();
        let mut condition = "1 = 1".to_owned();
        if let Some(name) = &filter.name {
            parameters.push(name.as_str().into());
            condition.push_str(&format!(" AND u.username = ${}", parameters.len()));
        }
        if let Some(search) = &filter.search {
            parameters.push(format!("%{}%", escape_like(search)).into());
            condition
                .push_str(&format!(" AND lower(u.username) LIKE lower(${}) ESCAPE '\\'", parameters.len()));
        }
        let bind = |sql: String| parameters.iter().cloned().fold(query(sql), Query::bind);
        let page = filter
            .page
            .map_or_else(String::new, |page| format!(" LIMIT {} OFFSET {}", page.limit, page.offset));
        let select = bind(format!(
            "SELECT {KNOWN_COLUMNS}, {SUMMARY_COLUMNS} FROM \"user\" u WHERE {condition} \
             ORDER BY u.username{page}"
        ));
        let rows = self.tx.rows(select).await?.iter().map(read_summary).collect::<Result<_, _>>()?;
        let count = bind(format!("SELECT COUNT(*) AS total FROM \"user\" u WHERE {condition}"));
        let total = self.tx.row(count).await?.ok_or(StoreError::NotFound)?.integer("total")?;
        Ok(Listed { rows, total })
    }
}

impl Writing {
    pub(crate) async fn user_insert(&mut self, stamp: Stamp, user: &UserRow) -> Result<(), StoreError> {
        self.witness(Subject::User(user.id.clone())).await?;
        let insert = query(
            "INSERT INTO \"user\" (id, username, password_hash, password_state, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $5)",
        );
        let insert = insert.bind(user.id.as_str()).bind(user.username.as_str());
        let insert = insert.bind(user.password_hash.as_str()).bind(user.password_state.as_str());
        self.tx.execute_one(insert.bind(stamp.at)).await
    }

    pub(crate) async fn user_password_update(
        &mut self,
        stamp: Stamp,
        id: &str,
        hash: &str,
        state: PasswordState,
    ) -> Result<(), StoreError> {
        self.witness(Subject::User(id.to_owned())).await?;
        let update = query(
            "UPDATE \"user\" SET password_hash = $2, password_state = $3, updated_at = $4 WHERE id = $1",
        );
        self.tx.execute_one(update.bind(id).bind(hash).bind(state.as_str()).bind(stamp.at)).await
    }

    pub(crate) async fn user_names_update(
        &mut self,
        stamp: Stamp,
        id: &str,
        (first_name, last_name): (&str, &str),
    ) -> Result<(), StoreError> {
        self.witness(Subject::User(id.to_owned())).await?;
        let update =
            query("UPDATE \"user\" SET first_name = $2, last_name = $3, updated_at = $4 WHERE id = $1");
        self.tx.execute_one(update.bind(id).bind(first_name).bind(last_name).bind(stamp.at)).await
    }

    /// Gives the user these roles and no others.
    pub(crate) async fn user_roles_put(
        &mut self,
        stamp: Stamp,
        id: &str,
        roles: &[String],
    ) -> Result<(), StoreError> {
        self.witness(Subject::User(id.to_owned())).await?;
        let update = query("UPDATE \"user\" SET updated_at = $2 WHERE id = $1");
        self.tx.execute_one(update.bind(id).bind(stamp.at)).await?;
        self.tx.execute(query("DELETE FROM user_role WHERE user_id = $1").bind(id)).await?;
        for role in roles {
            let insert = query("INSERT INTO user_role (user_id, role_id) VALUES ($1, $2)");
            self.tx.execute_one(insert.bind(id).bind(role.as_str())).await?;
        }
        Ok(())
    }

    /// Deletes the user and, with it, the user's roles, session and tokens.
    pub(crate) async fn user_delete(&mut self, id: &str) -> Result<(), StoreError> {
        self.witness(Subject::User(id.to_owned())).await?;
        self.tx.execute_one(query("DELETE FROM \"user\" WHERE id = $1").bind(id)).await
    }
}
