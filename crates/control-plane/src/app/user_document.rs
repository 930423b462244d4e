//! Documents about users, sessions and tokens, parsed.

use std::sync::LazyLock;

use gatewright_model::validation::{Schema, Violations};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::caller::SUPER_ADMIN;
use super::document::{Warnings, parse};

/// A name and a password: who logs in, or who is invited.
#[derive(Deserialize, ToSchema)]
pub(crate) struct UserWish {
    /// The user's name; without `:` and control characters.
    #[schema(min_length = 1, max_length = 128)]
    pub(crate) username: String,
    /// The password; that of an invited user may be of any length, and is good for one login.
    #[schema(min_length = 1, max_length = 128)]
    pub(crate) password: String,
}

/// A new password for oneself.
#[derive(Deserialize, ToSchema)]
pub(crate) struct PasswordWish {
    /// The password until now.
    #[schema(min_length = 1, max_length = 128)]
    pub(crate) old_password: String,
    /// The password from now on.
    #[schema(min_length = 8, max_length = 128)]
    pub(crate) new_password: String,
}

/// A new password for somebody else, who has to choose another one at the next login.
#[derive(Deserialize, ToSchema)]
pub(crate) struct PasswordResetWish {
    /// The password that is good for one login.
    #[schema(min_length = 1, max_length = 128)]
    pub(crate) password: String,
}

/// What the caller is called.
#[derive(Deserialize, ToSchema)]
pub(crate) struct NamesWish {
    /// The first name.
    #[schema(min_length = 1, max_length = 150)]
    pub(crate) first_name: String,
    /// The last name.
    #[schema(min_length = 1, max_length = 150)]
    pub(crate) last_name: String,
}

/// The roles of a user.
#[derive(Deserialize, ToSchema)]
pub(crate) struct RolesWish {
    /// Ids of roles; the built-in role `super_admin_id` is the only one yet.
    #[schema(max_items = 32)]
    pub(crate) roles: Vec<String>,
}

/// An access token of the caller.
#[derive(Deserialize, ToSchema)]
pub(crate) struct AccessTokenWish {
    /// What the token is called, unique among the tokens of the user.
    #[schema(min_length = 1, max_length = 40)]
    pub(crate) name: String,
    /// When the token ends, in unix seconds; 0: never.
    #[schema(minimum = 0)]
    pub(crate) expires_at: i64,
}

/// What changes about an access token.
#[derive(Deserialize, ToSchema)]
pub(crate) struct AccessTokenChange {
    /// What the token is called, unique among the tokens of the user.
    #[schema(min_length = 1, max_length = 40)]
    pub(crate) name: String,
    /// When the token ends, in unix seconds; 0: never; absent: as before.
    #[serde(default)]
    #[schema(minimum = 0, nullable = false)]
    pub(crate) expires_at: Option<i64>,
}

/// Until when an access token is made anew.
#[derive(Default, Deserialize, ToSchema)]
pub(crate) struct AccessTokenEnd {
    /// When the token ends, in unix seconds; 0: never; absent: as before.
    #[serde(default)]
    #[schema(minimum = 0, nullable = false)]
    pub(crate) expires_at: Option<i64>,
}

pub(crate) fn login_parse(value: Value) -> Result<(UserWish, Warnings), Violations> {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<UserWish>);
    SCHEMA.violations(&value).into_result()?;
    parse(value)
}

pub(crate) fn invite_parse(value: Value) -> Result<(UserWish, Warnings), Violations> {
    let (wish, warnings) = login_parse(value)?;
    // HTTP Basic ends a name at the first colon.
    if wish.username.contains(|character: char| character == ':' || character.is_control()) {
        return Err(Violations::one("/username", "must not contain `:` or control characters"));
    }
    Ok((wish, warnings))
}

pub(crate) fn password_parse(value: Value) -> Result<PasswordWish, Violations> {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<PasswordWish>);
    SCHEMA.violations(&value).into_result()?;
    let (wish, _) = parse::<PasswordWish>(value)?;
    if wish.new_password == wish.old_password {
        return Err(Violations::one("/new_password", "must differ from the old password"));
    }
    Ok(wish)
}

pub(crate) fn password_reset_parse(value: Value) -> Result<PasswordResetWish, Violations> {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<PasswordResetWish>);
    SCHEMA.violations(&value).into_result()?;
    Ok(parse(value)?.0)
}

pub(crate) fn names_parse(value: Value) -> Result<(NamesWish, Warnings), Violations> {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<NamesWish>);
    SCHEMA.violations(&value).into_result()?;
    parse(value)
}

pub(crate) fn roles_parse(value: Value) -> Result<RolesWish, Violations> {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<RolesWish>);
    SCHEMA.violations(&value).into_result()?;
    let (mut wish, _) = parse::<RolesWish>(value)?;
    let mut violations = Violations::default();
    for (index, role) in wish.roles.iter().enumerate().filter(|(_, role)| *role != SUPER_ADMIN) {
        violations.add(
            format!("/roles/{index}"),
            format!("role `{role}` does not exist; there is `{SUPER_ADMIN}`"),
        );
    }
    violations.into_result()?;
    wish.roles.dedup();
    Ok(wish)
}

pub(crate) fn access_token_parse(value: Value) -> Result<(AccessTokenWish, Warnings), Violations> {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<AccessTokenWish>);
    SCHEMA.violations(&value).into_result()?;
    parse(value)
}

pub(crate) fn access_token_change_parse(value: Value) -> Result<(AccessTokenChange, Warnings), Violations> {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<AccessTokenChange>);
    SCHEMA.violations(&value).into_result()?;
    parse(value)
}

pub(crate) fn access_token_end_parse(value: Value) -> Result<(AccessTokenEnd, Warnings), Violations> {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<AccessTokenEnd>);
    SCHEMA.violations(&value).into_result()?;
    parse(value)
}
