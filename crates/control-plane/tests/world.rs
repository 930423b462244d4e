//! A control plane in a temporary directory, on port 0, and a client that knows its key.
//!
//! Its database is SQLite in that directory, unless the test runs inside [`on_postgres`].

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use gatewright_control_plane::{
    API_VERSION_DEFAULT, AUDIT_RETENTION_DEFAULT, ControlPlane, DatabaseUrl, Settings, start,
};
use gatewright_test_postgres::Server;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;

pub(crate) const KEY: &str = "key-of-the-test";
pub(crate) const PASSWORD: &str = "password of the test";

thread_local! {
    static ON_POSTGRES: Cell<bool> = const { Cell::new(false) };
}

/// Runs a test whose worlds each have a PostgreSQL database of their own. Tests run their world on their own thread.
pub(crate) fn on_postgres(test: fn()) {
    ON_POSTGRES.set(true);
    test();
    ON_POSTGRES.set(false);
}

/// A control plane and its client.
pub(crate) struct World {
    pub(crate) control_plane: ControlPlane,
    pub(crate) dir: TempDir,
    /// None: SQLite in the directory.
    pub(crate) database: Option<DatabaseUrl>,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

pub(crate) fn settings(dir: &Path) -> Settings {
    Settings {
        data_dir: dir.to_owned(),
        database: None,
        admin: ([127, 0, 0, 1], 0).into(),
        sync: None,
        admin_password: Some(PASSWORD.to_owned()),
        admin_key: Some(KEY.to_owned()),
        rehearsal: None,
        admin_tls: None,
        api_version: API_VERSION_DEFAULT.to_owned(),
        audit_retention: AUDIT_RETENTION_DEFAULT,
        secret_key: None,
        secret_key_file: None,
    }
}

/// Gives a data directory the secret key of all tests, as control planes of one database must share one.
pub(crate) fn share_secret_key(dir: &Path) {
    std::fs::write(dir.join("secret-key"), "07".repeat(32)).unwrap();
}

impl World {
    pub(crate) async fn start() -> Self {
        let database = ON_POSTGRES.get().then(|| Server::shared().database().parse().unwrap());
        Self::start_with(database).await
    }

    /// A control plane on SQLite whose store another data directory can take over.
    pub(crate) async fn start_sharing() -> Self {
        let dir = TempDir::new().unwrap();
        share_secret_key(dir.path());
        Self { control_plane: start(settings(dir.path())).await.unwrap(), dir, database: None }
    }

    /// A control plane that knows somebody who explains.
    pub(crate) async fn start_rehearsing(
        rehearsal: std::sync::Arc<dyn gatewright_model::rehearsal::Rehearse>,
    ) -> Self {
        let dir = TempDir::new().unwrap();
        let settings = Settings { rehearsal: Some(rehearsal), ..settings(dir.path()) };
        Self { control_plane: start(settings).await.unwrap(), dir, database: None }
    }

    /// A control plane with a directory of its own and this database.
    pub(crate) async fn start_with(database: Option<DatabaseUrl>) -> Self {
        let dir = TempDir::new().unwrap();
        if database.is_some() {
            share_secret_key(dir.path());
        }
        let settings = Settings { database: database.clone(), ..settings(dir.path()) };
        Self { control_plane: start(settings).await.unwrap(), dir, database }
    }

    /// The same database and data directory under a new control plane.
    pub(crate) async fn restart(self) -> Self {
        self.control_plane.stop(Duration::from_secs(10)).await;
        let settings = Settings { database: self.database.clone(), ..settings(self.dir.path()) };
        Self { control_plane: start(settings).await.unwrap(), ..self }
    }

    /// Sends a request whose headers and body are written out.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let answer = self.send_any(method, path, headers, body).await;
        assert_eq!(answer.headers[CONTENT_TYPE], "application/json", "{path}");
        answer
    }

    /// Sends a request that may be answered with something other than JSON: then that is one text.
    pub(crate) async fn send_any(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let (head, body) = self.exchange(method, path, headers, body).await;
        let body = match head.headers[CONTENT_TYPE] == "application/json" {
            true => serde_json::from_slice(&body).unwrap(),
            false => Value::String(String::from_utf8(body.to_vec()).unwrap()),
        };
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    }

    /// Sends a request that is answered 200 with something other than JSON.
    pub(crate) async fn send_raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (HeaderMap, String) {
        let (head, body) = self.exchange(method, path, headers, "").await;
        assert_eq!(head.status, 200, "{path}");
        (head.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn exchange(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (hyper::http::response::Parts, Bytes) {
        let stream = TcpStream::connect(self.control_plane.admin_address()).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let method: Method = method.parse().unwrap();
        let mut request = Request::builder().method(method).uri(path).header("host", "control-plane");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
        let (head, body) = sender.send_request(request.body(body).unwrap()).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        connection.abort();
        (head, body)
    }

    /// Sends a JSON body as the administrator.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let body = body.map_or_else(String::new, |body| body.to_string());
        self.send(method, path, &[("x-api-key", KEY), ("content-type", "application/json")], &body).await
    }

    /// The `value` of a call that must succeed.
    pub(crate) async fn value(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let answer = self.call(method, path, body).await;
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.body);
        answer.body["value"].clone()
    }

    /// The answer to a call that must be refused with `status`.
    pub(crate) async fn refused(&self, status: u16, method: &str, path: &str, body: Option<Value>) -> String {
        let answer = self.call(method, path, body).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        answer.body["error_msg"].as_str().expect("an error message").to_owned()
    }

    /// One field of every object of a list, in the list's order.
    pub(crate) async fn list(&self, path: &str, field: &str) -> Vec<String> {
        let answer = self.call("GET", path, None).await;
        assert_eq!(answer.status, 200, "GET {path}: {}", answer.body);
        let items = answer.body["list"].as_array().expect("a list");
        items.iter().map(|item| item[field].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// A service template called like its id, with one route and one node.
    pub(crate) async fn design(&self, id: &str) {
        let upstream = json!({"nodes": [{"host": "127.0.0.1", "port": 8080, "weight": 1}]});
        let template = json!({"name": id, "hosts": [format!("{id}.example")], "path_prefix": "/v1", "upstream": upstream});
        self.value("PUT", &format!("/api/services/template/{id}"), Some(template)).await;
        self.design_route(id, &format!("{id}-r1"), "/a").await;
    }

    pub(crate) async fn design_route(&self, service: &str, route: &str, path: &str) {
        let body = json!({"service_id": service, "name": route, "paths": [path]});
        self.value("PUT", &format!("/api/routes/template/{route}"), Some(body)).await;
    }

    pub(crate) async fn publish(&self, group: &str, service: &str, version: &str) -> Value {
        self.value("POST", "/api/services/publish", Some(publish(group, &[(service, version)]))).await
    }

    pub(crate) async fn published(&self, group: &str, service: &str) -> Value {
        self.value("GET", &format!("/api/gateway_groups/{group}/services/{service}"), None).await
    }

    pub(crate) async fn group_create(&self, name: &str) -> String {
        let group = self.value("POST", "/api/gateway_groups", Some(json!({"name": name}))).await;
        group["id"].as_str().unwrap().to_owned()
    }
}

/// The body that publishes new versions.
pub(crate) fn publish(group: &str, services: &[(&str, &str)]) -> Value {
    let services: Vec<_> =
        services.iter().map(|(id, version)| json!({"service_id": id, "version": version})).collect();
    json!({"create_new_version": true, "gateway_group_id": group, "services": services})
}

/// The body that publishes an existing version.
pub(crate) fn publish_again(group: &str, service: &str, service_version_id: &Value) -> Value {
    let service = json!({"service_id": service, "service_version_id": service_version_id});
    json!({"create_new_version": false, "gateway_group_id": group, "services": [service]})
}
