//! A client of the admin API that hands back whatever was answered.

use std::net::SocketAddr;

use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::Request;

use crate::wait;

/// Calls one control plane with one key.
#[derive(Clone)]
pub struct Admin {
    agent: Agent,
    address: SocketAddr,
    key: Option<String>,
}

/// What the admin API answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body; null if it is no JSON.
    pub body: Value,
}

impl Answer {
    /// Whether the call was accepted.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether the call was refused as the caller's mistake, with a reason.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        (400..500).contains(&self.status) && !self.error().is_empty()
    }

    /// The reason of a refusal.
    #[must_use]
    pub fn error(&self) -> &str {
        self.body["error_msg"].as_str().unwrap_or_default()
    }
}

impl Admin {
    /// A client of the admin API at `address`; without a key every call is anonymous.
    #[must_use]
    pub fn new(address: SocketAddr, key: Option<&str>) -> Self {
        let config = Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .timeout_global(Some(wait::DEADLINE))
            .build();
        Self { agent: config.into(), address, key: key.map(str::to_owned) }
    }

    /// Sends `body` as it is.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn try_send(&self, method: &str, path: &str, body: &str) -> Result<Answer, ureq::Error> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        if let Some(key) = &self.key {
            request = request.header("x-api-key", key);
        }
        let request = request.header("content-type", "application/json").body(body.to_owned())?;
        let mut response = self.agent.run(request)?;
        let text = response.body_mut().read_to_string()?;
        let body = serde_json::from_str(&text).unwrap_or_default();
        Ok(Answer { status: response.status().as_u16(), body })
    }

    /// Sends `body` as it is.
    ///
    /// # Panics
    /// When there is no answer.
    #[must_use]
    pub fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        self.try_send(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Reads something that must be there.
    ///
    /// # Panics
    /// If the call is refused.
    #[must_use]
    pub fn get(&self, path: &str) -> Value {
        let answer = self.send("GET", path, "");
        assert!(answer.is_accepted(), "GET {path}: {answer:?}");
        answer.body
    }

    /// Changes something, which must be accepted.
    ///
    /// # Panics
    /// If the call is refused.
    pub fn change(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.send(method, path, &body.to_string());
        assert!(answer.is_accepted(), "{method} {path} {body}: {answer:?}");
        answer.body
    }

    /// Creates or replaces a service template.
    pub fn put_service(&self, id: &str, template: &Value) {
        self.change("PUT", &format!("/api/services/template/{id}"), template);
    }

    /// Creates or replaces a route template.
    pub fn put_route(&self, id: &str, route: &Value) {
        self.change("PUT", &format!("/api/routes/template/{id}"), route);
    }

    /// Publishes a service to the group `default`.
    pub fn publish(&self, service_id: &str, version: &str) {
        self.change("POST", "/api/services/publish", &publish_wish(service_id, version));
    }

    /// The services published to the group `default`.
    ///
    /// # Panics
    /// If the answer is no list.
    #[must_use]
    pub fn published(&self) -> Vec<Value> {
        let answer = self.get("/api/gateway_groups/default/services");
        answer["list"].as_array().unwrap_or_else(|| panic!("no list: {answer}")).clone()
    }

    /// The published service of one template, if there is one.
    #[must_use]
    pub fn find_published(&self, service_id: &str) -> Option<Value> {
        self.published().into_iter().find(|service| service["service_id"] == service_id)
    }

    /// The active version of a service, if there is one.
    #[must_use]
    pub fn active_version(&self, service_id: &str) -> Option<String> {
        self.find_published(service_id)?["version"].as_str().map(str::to_owned)
    }
}

/// What asks for a new version in the group `default`.
#[must_use]
pub fn publish_wish(service_id: &str, version: &str) -> Value {
    json!({
        "create_new_version": true,
        "gateway_group_id": "default",
        "services": [{ "service_id": service_id, "version": version }],
    })
}
