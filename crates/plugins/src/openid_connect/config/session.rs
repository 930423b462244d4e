//! What sessions are configured with.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::TIME_MAX;
use crate::redis::{self, Redis};

#[derive(Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
#[schema(default)]
pub(crate) struct Session {
    /// What the key that encrypts sessions is derived from.
    #[schema(min_length = 16)]
    pub(crate) secret: String,
    /// Where sessions are kept.
    #[schema(value_type = String, default = "cookie")]
    pub(crate) storage: Storage,
    /// Name of the cookie.
    pub(crate) cookie_name: Option<String>,
    /// Its path.
    pub(crate) cookie_path: Option<String>,
    /// Its domain.
    pub(crate) cookie_domain: Option<String>,
    /// Whether it only travels encrypted; absent: where the request did.
    pub(crate) cookie_secure: Option<bool>,
    /// Whether scripts cannot read it.
    pub(crate) cookie_http_only: Option<bool>,
    /// Whether it goes along with requests from other sites.
    pub(crate) cookie_same_site: Option<SameSite>,
    /// Seconds after which a session ends.
    #[schema(value_type = Option<i64>)]
    pub(crate) absolute_timeout: Option<u64>,
    /// Seconds after which a session ends that nobody used.
    #[schema(value_type = Option<i64>)]
    pub(crate) idling_timeout: Option<u64>,
    /// Seconds for which a cookie is good.
    #[schema(value_type = Option<i64>)]
    pub(crate) rolling_timeout: Option<u64>,
    /// The former place of `absolute_timeout`.
    pub(crate) cookie: Option<FormerCookie>,
    /// The Redis server that keeps them, where one does.
    #[schema(value_type = Option<RedisStorage>)]
    pub(crate) redis: Option<RedisStorage>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Storage {
    #[default]
    Cookie,
    Redis,
}

#[derive(Clone, Deserialize, Serialize, ToSchema)]
#[serde(default)]
#[schema(default)]
pub(crate) struct RedisStorage {
    /// Its name or address.
    #[schema(min_length = 2)]
    pub(crate) host: String,
    /// Its port.
    #[schema(minimum = 1)]
    pub(crate) port: u16,
    /// Who logs in, if that is not the default user.
    #[schema(min_length = 1)]
    pub(crate) username: Option<String>,
    /// The password.
    #[schema(min_length = 0)]
    pub(crate) password: Option<String>,
    /// The number of the database.
    #[schema(minimum = 0)]
    pub(crate) database: i64,
    /// What the keys of sessions begin with.
    pub(crate) prefix: String,
    /// Whether it is talked to over TLS.
    pub(crate) ssl: bool,
    /// Whether its certificate has to verify.
    pub(crate) ssl_verify: bool,
    /// The name it is asked for over TLS, where that is not its host.
    pub(crate) server_name: Option<String>,
    /// Milliseconds that connecting may take; together with the next two, one call.
    #[schema(minimum = 1)]
    pub(crate) connect_timeout: u64,
    /// Milliseconds that sending may take.
    #[schema(minimum = 1)]
    pub(crate) send_timeout: u64,
    /// Milliseconds that its answer may take.
    #[schema(minimum = 1)]
    pub(crate) read_timeout: u64,
    /// Accepted and without effect: one connection is kept and shared.
    #[schema(minimum = 1000)]
    pub(crate) keepalive_timeout: u64,
}

impl Default for RedisStorage {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 6379,
            username: None,
            password: None,
            database: 0,
            prefix: "sessions".to_owned(),
            ssl: false,
            ssl_verify: true,
            server_name: None,
            connect_timeout: 1000,
            send_timeout: 1000,
            read_timeout: 1000,
            keepalive_timeout: 10_000,
        }
    }
}

impl RedisStorage {
    pub(crate) fn server(&self) -> Redis {
        let time = self.connect_timeout.saturating_add(self.send_timeout).saturating_add(self.read_timeout);
        Redis {
            addresses: vec![redis::address(&self.host, self.port)],
            cluster: false,
            database: self.database,
            username: self.username.clone(),
            password: self.password.clone().filter(|password| !password.is_empty()),
            tls: self.ssl.then_some(self.ssl_verify),
            server_name: self.server_name.clone().filter(|name| !name.is_empty()),
            timeout: Duration::from_millis(time).min(TIME_MAX),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) enum SameSite {
    Strict,
    Lax,
    None,
    Default,
}

#[derive(Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub(crate) struct FormerCookie {
    /// Seconds.
    #[schema(value_type = Option<i64>)]
    pub(crate) lifetime: Option<u64>,
}
