//! A blocking client of the admin API, as the operator's commands need it.
//!
//! It knows paths and envelopes; what to design and publish is the business of its callers.
//! An answer other than 2xx is an error that quotes the `error_msg` of the control plane.

use std::time::Duration;

use gatewright_model::diff::ServiceDiff;
use gatewright_model::rehearsal::{Explanation, RehearsedRequest};
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::{Request, StatusCode, Uri};

/// How long one call may take; publishing a large service is a matter of seconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the admin API waits for gateways at most.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// Bytes of an answer that are read: the list of all services of a large group fits.
const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Why a call of the admin API failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminError {
    /// The URL cannot be used.
    #[error("`{url}` is no URL of an admin API (--admin-url): write it as http://host:port{hint}")]
    Url { url: String, hint: &'static str },
    /// Nobody answered.
    #[error(
        "cannot reach the admin API at {url}: {source}; is `gatewright up` running, and does --admin-url name its address?"
    )]
    Unreachable { url: String, source: Box<ureq::Error> },
    /// The control plane refused.
    #[error("{method} {url} was refused ({status}): {message}")]
    Refused { method: &'static str, url: String, status: u16, message: String },
    /// The answer has another form than the admin API's.
    #[error("{method} {url} was answered with something that is no admin API's answer: {reason}")]
    Answer { method: &'static str, url: String, reason: String },
}

/// What of the life of a gateway group is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// What stands.
    Now,
    /// What stood in this revision.
    Revision(u64),
    /// What stood then, in seconds since 1970.
    Time(u64),
}

/// A certificate with which gateways join, in PEM.
pub(crate) struct IssuedCertificate {
    pub(crate) certificate: String,
    pub(crate) private_key: String,
    /// Of the authority that signed it.
    pub(crate) authority: String,
}

/// Talks to one control plane with one key.
#[derive(Clone)]
pub(crate) struct AdminClient {
    agent: Agent,
    base: String,
    key: String,
}

impl AdminClient {
    /// A client of the admin API at `url`, such as `http://127.0.0.1:7080`.
    pub(crate) fn new(url: &str, key: impl Into<String>) -> Result<Self, AdminError> {
        let unusable = |hint| AdminError::Url { url: url.to_owned(), hint };
        let uri: Uri = url.parse().map_err(|_| unusable(""))?;
        match uri.scheme_str() {
            Some("http") if uri.authority().is_some() && uri.query().is_none() => {}
            Some("https") => return Err(unusable("; the admin API is not served over TLS in this release")),
            _ => return Err(unusable("")),
        }
        let agent = Agent::config_builder()
            // The key goes to the admin API and nowhere else: not through a proxy, not to where a redirect points.
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .build()
            .into();
        Ok(Self { agent, base: url.trim_end_matches('/').to_owned(), key: key.into() })
    }

    /// The ids of all gateway groups.
    pub(crate) fn gateway_group_list(&self) -> Result<Vec<String>, AdminError> {
        let groups = self.list("/api/gateway_groups")?;
        Ok(groups.iter().filter_map(|group| group["id"].as_str()).map(str::to_owned).collect())
    }

    /// The published services of a gateway group.
    pub(crate) fn published_service_list(&self, gateway_group_id: &str) -> Result<Vec<Value>, AdminError> {
        self.list(&format!("/api/gateway_groups/{gateway_group_id}/services"))
    }

    /// The service `service_id` as published in a gateway group.
    pub(crate) fn published_service_find(
        &self,
        gateway_group_id: &str,
        service_id: &str,
    ) -> Result<Option<Value>, AdminError> {
        let services = self.published_service_list(gateway_group_id)?;
        Ok(services.into_iter().find(|service| service["service_id"] == service_id))
    }

    /// The service template `id`, if there is one.
    pub(crate) fn service_template_find(&self, id: &str) -> Result<Option<Value>, AdminError> {
        match self.call("GET", &format!("/api/services/template/{id}"), None) {
            Ok(answer) => Ok(Some(answer["value"].clone())),
            Err(AdminError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates or replaces the service template `id`.
    pub(crate) fn service_template_put(&self, id: &str, template: &Value) -> Result<(), AdminError> {
        self.call("PUT", &format!("/api/services/template/{id}"), Some(template)).map(drop)
    }

    /// Creates or replaces the route template `id`.
    pub(crate) fn route_template_put(&self, id: &str, route: &Value) -> Result<(), AdminError> {
        self.call("PUT", &format!("/api/routes/template/{id}"), Some(route)).map(drop)
    }

    /// Publishes the template of `service_id` as a new version.
    pub(crate) fn service_publish(
        &self,
        gateway_group_id: &str,
        service_id: &str,
        version: &str,
    ) -> Result<(), AdminError> {
        let wish = publish_wish(gateway_group_id, service_id, version);
        self.call("POST", "/api/services/publish", Some(&wish)).map(drop)
    }

    /// The same, and the answer, which says how far instances have come if they are waited for.
    pub(crate) fn service_publish_await(
        &self,
        gateway_group_id: &str,
        (service_id, version): (&str, &str),
        wait: Option<&str>,
    ) -> Result<Value, AdminError> {
        let wish = publish_wish(gateway_group_id, service_id, version);
        let query = wait.map(|wait| format!("?wait={wait}")).unwrap_or_default();
        let path = format!("/api/services/publish{query}");
        self.call_within(CALL_TIMEOUT + WAIT_MAX, "POST", &path, Some(&wish))
    }

    /// A new token with which gateways join a gateway group.
    pub(crate) fn instance_token_create(&self, gateway_group_id: &str) -> Result<String, AdminError> {
        let path = format!("/api/gateway_groups/{gateway_group_id}/instance_token");
        let answer = self.call("POST", &path, None)?;
        Ok(answer["value"]["token_plain_text"].as_str().unwrap_or_default().to_owned())
    }

    /// A new certificate with which gateways join a gateway group, good for `days`.
    pub(crate) fn instance_certificate_create(
        &self,
        gateway_group_id: &str,
        days: u32,
    ) -> Result<IssuedCertificate, AdminError> {
        let path = format!("/api/gateway_groups/{gateway_group_id}/dp_client_certificates?days={days}");
        let answer = self.call("POST", &path, None)?;
        let text = |field: &str| answer["value"][field].as_str().unwrap_or_default().to_owned();
        Ok(IssuedCertificate {
            certificate: text("certificate"),
            private_key: text("private_key"),
            authority: text("ca_certificate"),
        })
    }

    /// Merges `changes` into the runtime configuration of a published service.
    pub(crate) fn runtime_configuration_patch(
        &self,
        gateway_group_id: &str,
        service_id: &str,
        changes: &Value,
    ) -> Result<(), AdminError> {
        let path =
            format!("/api/gateway_groups/{gateway_group_id}/services/{service_id}/runtime_configuration");
        self.call("PATCH", &path, Some(changes)).map(drop)
    }

    /// What would serve `request` in a gateway group at that moment, with the named versions (`service@version`) in
    /// place; and in which revision.
    pub(crate) fn explain(
        &self,
        gateway_group_id: &str,
        request: &RehearsedRequest,
        versions: &[(String, String)],
        at: Moment,
    ) -> Result<(Explanation, u64), AdminError> {
        let path = format!("/api/gateway_groups/{gateway_group_id}/explain");
        let services =
            versions.iter().map(|(service, version)| json!({ "service_id": service, "version": version }));
        let mut wish = json!(request);
        wish["services"] = services.collect();
        match at {
            Moment::Now => {}
            Moment::Revision(revision) => wish["revision"] = revision.into(),
            Moment::Time(seconds) => wish["time"] = seconds.into(),
        }
        let answer = self.call("POST", &path, Some(&wish))?;
        let explanation = serde_json::from_value(answer["value"].clone());
        let explanation = explanation.map_err(|error| AdminError::Answer {
            method: "POST",
            url: format!("{}{path}", self.base),
            reason: error.to_string(),
        })?;
        Ok((explanation, answer["value"]["revision"].as_u64().unwrap_or_default()))
    }

    /// The id of the service template with this id or, if there is none, with this name; else what was given, for a
    /// service whose template is gone.
    pub(crate) fn service_template_id(&self, id_or_name: &str) -> Result<String, AdminError> {
        let is_id = id_or_name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if is_id && self.service_template_find(id_or_name)?.is_some() {
            return Ok(id_or_name.to_owned());
        }
        Ok(self.service_template_named(id_or_name)?.unwrap_or_else(|| id_or_name.to_owned()))
    }

    /// Publishes services to gateway groups, all or nothing.
    pub(crate) fn release_set_create(&self, wish: &Value, wait: Option<&str>) -> Result<Value, AdminError> {
        let query = wait.map(|wait| format!("?wait={wait}")).unwrap_or_default();
        let path = format!("/api/release_sets{query}");
        Ok(self.call_within(CALL_TIMEOUT + WAIT_MAX, "POST", &path, Some(wish))?["value"].take())
    }

    /// Undoes a release set.
    pub(crate) fn release_set_roll_back(&self, id: &str) -> Result<Value, AdminError> {
        let id: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
        Ok(self.call("POST", &format!("/api/release_sets/{id}/roll_back"), None)?["value"].take())
    }

    /// What publishing would change in a gateway group.
    pub(crate) fn service_preview(&self, gateway_group_id: &str, wish: &Value) -> Result<Value, AdminError> {
        let path = format!("/api/gateway_groups/{gateway_group_id}/preview");
        Ok(self.call("POST", &path, Some(wish))?["value"].take())
    }

    /// The id of the service template with this name, if there is one.
    pub(crate) fn service_template_named(&self, name: &str) -> Result<Option<String>, AdminError> {
        let name: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
        let named = self.list(&format!("/api/services/template?name={name}"))?;
        Ok(named.first().and_then(|template| template["id"].as_str()).map(str::to_owned))
    }

    /// The service that an OpenAPI document describes; nothing is stored.
    pub(crate) fn openapi_convert(&self, wish: &Value) -> Result<Value, AdminError> {
        Ok(self.call("PUT", "/api/openapi/convert", Some(wish))?["value"].take())
    }

    /// Imports an OpenAPI document into the service template `id`.
    pub(crate) fn openapi_import(
        &self,
        id: &str,
        wish: &Value,
        is_dry_run: bool,
    ) -> Result<Value, AdminError> {
        let query = if is_dry_run { "?dry-run=all" } else { "" };
        self.call("PUT", &format!("/api/services/template/{id}/openapi{query}"), Some(wish))
    }

    /// A service as an OpenAPI document.
    pub(crate) fn service_export(&self, wish: &Value) -> Result<Value, AdminError> {
        self.call("POST", "/api/export/services", Some(wish))
    }

    /// What differs between two states of services.
    pub(crate) fn service_diff(&self, wish: &Value) -> Result<ServiceDiff, AdminError> {
        let path = "/api/services/diff";
        let answer = self.call("POST", path, Some(wish))?;
        serde_json::from_value(answer["value"].clone()).map_err(|error| AdminError::Answer {
            method: "POST",
            url: format!("{}{path}", self.base),
            reason: error.to_string(),
        })
    }

    /// Whether the chain of the audit log holds, with a link of it that was noted before as `POSITION:HASH`.
    pub(crate) fn audit_log_verify(&self, known: Option<&str>) -> Result<Value, AdminError> {
        let known = known.map(|known| format!("?known={known}")).unwrap_or_default();
        let path = format!("/api/audit_logs/verify{known}");
        Ok(self.call_within(WAIT_MAX, "GET", &path, None)?["value"].take())
    }

    /// The rollout of a service that is under way, or the last one that was.
    pub(crate) fn rollout_get(&self, gateway_group_id: &str, service_id: &str) -> Result<Value, AdminError> {
        let path = format!("/api/gateway_groups/{gateway_group_id}/services/{service_id}/rollout");
        match self.call("GET", &path, None) {
            Ok(mut answer) => Ok(answer["value"].take()),
            Err(AdminError::Refused { status: 404, method, url, message }) => {
                let last = self.list(&format!("{path}s"))?.into_iter().next();
                last.ok_or(AdminError::Refused { status: 404, method, url, message })
            }
            Err(error) => Err(error),
        }
    }

    /// Does something to the rollout of a service: `action` is a path below it, or empty to begin one.
    pub(crate) fn rollout_post(
        &self,
        gateway_group_id: &str,
        service_id: &str,
        action: &str,
        body: Option<&Value>,
    ) -> Result<Value, AdminError> {
        let path = format!("/api/gateway_groups/{gateway_group_id}/services/{service_id}/rollout{action}");
        Ok(self.call("POST", &path, body)?["value"].take())
    }

    fn list(&self, path: &str) -> Result<Vec<Value>, AdminError> {
        let answer = self.call("GET", path, None)?;
        let Value::Array(list) = answer["list"].clone() else {
            let reason = "it has no `list`".to_owned();
            return Err(AdminError::Answer { method: "GET", url: format!("{}{path}", self.base), reason });
        };
        Ok(list)
    }

    fn call(&self, method: &'static str, path: &str, body: Option<&Value>) -> Result<Value, AdminError> {
        self.call_within(CALL_TIMEOUT, method, path, body)
    }

    fn call_within(
        &self,
        timeout: Duration,
        method: &'static str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, AdminError> {
        let url = format!("{}{path}", self.base);
        let unreachable =
            |source| AdminError::Unreachable { url: self.base.clone(), source: Box::new(source) };
        let malformed = |reason: String| AdminError::Answer { method, url: url.clone(), reason };
        let request = Request::builder()
            .method(method)
            .uri(&url)
            .header("x-api-key", &self.key)
            .header("content-type", "application/json")
            .body(body.map(Value::to_string).unwrap_or_default())
            .map_err(|error| unreachable(error.into()))?;
        let request = self.agent.configure_request(request).timeout_global(Some(timeout)).build();
        let mut response = self.agent.run(request).map_err(unreachable)?;
        let status = response.status();
        let text = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        let text = text.map_err(|error| malformed(error.to_string()))?;
        if !status.is_success() {
            let message = refusal_message(status, &text);
            return Err(AdminError::Refused { method, url, status: status.as_u16(), message });
        }
        serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))
    }
}

/// What asks for the template of `service_id` to be published as a new version.
pub(crate) fn publish_wish(gateway_group_id: &str, service_id: &str, version: &str) -> Value {
    json!({
        "create_new_version": true,
        "gateway_group_id": gateway_group_id,
        "services": [{ "service_id": service_id, "version": version }],
    })
}

fn refusal_message(status: StatusCode, body: &str) -> String {
    let answer: Value = serde_json::from_str(body).unwrap_or_default();
    let reason = answer["error_msg"].as_str().map(str::to_owned);
    let reason = reason.unwrap_or_else(|| status.canonical_reason().unwrap_or("no reason given").to_owned());
    if status == StatusCode::UNAUTHORIZED { format!("{reason}; check the admin key") } else { reason }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// Answers one call with `status` and `body`, and hands back the call.
    fn answer_once(status: &str, body: &str) -> (String, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let serving = std::thread::spawn(move || {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            let mut call = String::new();
            while !call.ends_with("\r\n\r\n") {
                stream.read_line(&mut call).unwrap();
            }
            let length = call
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            stream.read_exact(&mut body).unwrap();
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
            call + &String::from_utf8(body).unwrap()
        });
        (url, serving)
    }

    #[test]
    fn a_publish_is_sent_as_the_api_documents_it() {
        let (url, serving) = answer_once("200 OK", r#"{"value":{}}"#);
        AdminClient::new(&url, "k-1").unwrap().service_publish("default", "orders", "1.0.0").unwrap();
        let call = serving.join().unwrap();
        assert!(call.starts_with("POST /api/services/publish HTTP/1.1\r\n"), "{call}");
        assert!(call.to_lowercase().contains("\r\nx-api-key: k-1\r\n"), "{call}");
        let body: Value = serde_json::from_str(call.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        let services = json!([{"service_id": "orders", "version": "1.0.0"}]);
        assert_eq!(
            body,
            json!({"create_new_version": true, "gateway_group_id": "default", "services": services})
        );
    }

    #[test]
    fn a_refusal_quotes_the_control_plane() {
        for (status, body, expected) in [
            ("400 Bad Request", r#"{"error_msg":"version `1.0.0` exists"}"#, "(400): version `1.0.0` exists"),
            ("401 Unauthorized", r#"{"error_msg":"no"}"#, "(401): no; check the admin key"),
            ("502 Bad Gateway", "<html>", "(502): Bad Gateway"),
        ] {
            let (url, serving) = answer_once(status, body);
            let error =
                AdminClient::new(&url, "k").unwrap().service_template_put("a", &json!({})).unwrap_err();
            let message = error.to_string();
            assert!(message.ends_with(expected), "{message}");
            assert!(message.contains("PUT http://127.0.0.1:"), "{message}");
            serving.join().unwrap();
        }
    }

    #[test]
    fn an_absent_template_is_no_error() {
        let (url, serving) = answer_once("404 Not Found", r#"{"error_msg":"none"}"#);
        assert_eq!(AdminClient::new(&url, "k").unwrap().service_template_find("a").unwrap(), None);
        serving.join().unwrap();
    }

    #[test]
    fn a_control_plane_that_is_down_is_named_with_the_remedy() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error =
            AdminClient::new(&format!("http://{address}"), "k").unwrap().gateway_group_list().unwrap_err();
        let message = error.to_string();
        assert!(message.contains(&address.to_string()) && message.contains("--admin-url"), "{message}");
    }

    #[test]
    fn only_plain_http_urls_are_accepted() {
        for wrong in ["https://cp:7080", "127.0.0.1:7080", "ftp://cp", "", "http://cp?x=1"] {
            assert!(AdminClient::new(wrong, "k").is_err(), "{wrong}");
        }
        assert_eq!(AdminClient::new("http://cp:7080/", "k").unwrap().base, "http://cp:7080");
    }
}
