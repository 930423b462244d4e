//! Typed identifiers: an id of a service is never mistaken for an id of a route.
//!
//! The form is the documented one (`^[a-zA-Z0-9-_.]+$`, at most [`limits::ID_LENGTH_MAX`] bytes), so an id can
//! stand in a path, a file name and a metric label without escaping.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::limits;

/// The pattern every id follows, as it stands in the published API.
pub const PATTERN: &str = "^[a-zA-Z0-9-_.]+$";

/// Why a text is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id: 1 to {max} characters out of letters, digits, `-`, `_` and `.`", max = limits::ID_LENGTH_MAX)]
pub struct InvalidId {
    text: String,
}

fn check(text: &str) -> Result<(), InvalidId> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.is_empty() || text.len() > limits::ID_LENGTH_MAX || !text.bytes().all(allowed) {
        let text = text.chars().take(80).collect();
        return Err(InvalidId { text });
    }
    Ok(())
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String, pattern = "^[a-zA-Z0-9-_.]+$", min_length = 1, max_length = 256)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                check(&text)?;
                Ok(Self(text.into()))
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id_type! {
    /// Names a service in all its states: template, versions and published service share it.
    ServiceId
}
id_type! {
    /// Names a route within the template it was designed in; the copies in versions keep it.
    RouteId
}
id_type! {
    /// Names one immutable version of one service.
    ServiceVersionId
}
id_type! {
    /// Names a gateway group.
    GatewayGroupId
}
id_type! {
    /// Names one record "this version became active in this group".
    PublicationId
}
id_type! {
    /// Names an object of a gateway group that is no service: a consumer, a certificate, a global rule.
    ObjectId
}

id_type! {
    /// Names one running gateway, the same over its restarts.
    InstanceId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_made_of_letters_digits_and_three_marks() {
        for good in ["default", "a", "5f2c-_.Z", &"x".repeat(limits::ID_LENGTH_MAX)] {
            assert!(good.parse::<ServiceId>().is_ok(), "{good}");
        }
        for bad in ["", "a b", "a/b", "ä", "a\0", &"x".repeat(limits::ID_LENGTH_MAX + 1)] {
            assert!(bad.parse::<ServiceId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn json_with_a_bad_id_is_refused() {
        assert!(serde_json::from_str::<RouteId>("\"ok-1\"").is_ok());
        assert!(serde_json::from_str::<RouteId>("\"not ok\"").is_err());
    }
}
