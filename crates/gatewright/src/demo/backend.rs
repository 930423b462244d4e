//! A backend of the demo: a tiny HTTP server on loopback that answers JSON and says which node answered.
//!
//! Answers are made once; a request costs a lookup. It is not there to be impressive but to be out of the way.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

/// Where the backends listen.
pub(super) const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The pets: id, name, kind.
const PETS: [(u32, &str, &str); 3] = [(1, "Rex", "dog"), (2, "Mimi", "cat"), (3, "Hoover", "tapir")];

/// A backend that has its port but does not answer yet.
pub(super) struct Backend {
    listener: TcpListener,
}

impl Backend {
    /// Takes `port`; 0 is any free one.
    pub(super) fn bind(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((ADDRESS, port))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener })
    }

    /// Answers from now on, as long as the surrounding runtime lives; hands back where.
    pub(super) fn serve(self) -> io::Result<SocketAddr> {
        let address = self.listener.local_addr()?;
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        tokio::spawn(accept(listener, Arc::new(Answers::of(address))));
        Ok(address)
    }
}

async fn accept(listener: tokio::net::TcpListener, answers: Arc<Answers>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: trying again at once would only burn the processor.
                tracing::warn!(%error, "a demo backend cannot accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let answers = answers.clone();
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let service =
                service_fn(|request| std::future::ready(Ok::<_, Infallible>(answers.answer(&request))));
            // A connection that breaks is the gateway's news, not ours.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Everything a backend can say, as bytes.
struct Answers {
    node: String,
    list: Bytes,
    pets: Vec<(String, Bytes)>,
}

impl Answers {
    fn of(address: SocketAddr) -> Self {
        let node = address.to_string();
        let pet = |(id, name, kind): (u32, &str, &str)| json!({ "id": id, "name": name, "kind": kind });
        let bytes = |value: Value| Bytes::from(format!("{value}\n"));
        let pets = PETS.map(|(id, name, kind)| {
            let body = json!({ "pet": pet((id, name, kind)), "node": node });
            (format!("/pets/{id}"), bytes(body))
        });
        let list = bytes(json!({ "pets": PETS.map(pet), "node": node }));
        Self { node, list, pets: pets.into() }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let (status, body) = self.find(request.uri().path());
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }

    fn find(&self, path: &str) -> (StatusCode, Bytes) {
        if path == "/pets" {
            return (StatusCode::OK, self.list.clone());
        }
        if let Some((_, pet)) = self.pets.iter().find(|(known, _)| known == path) {
            return (StatusCode::OK, pet.clone());
        }
        if path.starts_with("/pets/") {
            let body = json!({ "error": "no such pet", "node": self.node });
            return (StatusCode::NOT_FOUND, Bytes::from(format!("{body}\n")));
        }
        // Whatever else is published later reaches a backend too, and is seen to.
        let body = json!({ "path": path, "node": self.node });
        (StatusCode::OK, Bytes::from(format!("{body}\n")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_names_the_node() {
        let answers = Answers::of("127.0.0.1:4001".parse().unwrap());
        for (path, status, part) in [
            ("/pets", 200, r#""name":"Mimi""#),
            ("/pets/1", 200, r#""name":"Rex""#),
            ("/pets/99", 404, "no such pet"),
            ("/new-in-1.1.0", 200, r#""path":"/new-in-1.1.0""#),
        ] {
            let (found, body) = answers.find(path);
            let body = String::from_utf8(body.to_vec()).unwrap();
            assert_eq!(found.as_u16(), status, "{path}");
            assert!(body.contains(part) && body.contains(r#""node":"127.0.0.1:4001""#), "{path}: {body}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_backend_answers_on_the_port_it_took() {
        let backend = Backend::bind(0).unwrap();
        let address = backend.serve().unwrap();
        assert!(Backend::bind(address.port()).is_err(), "the port is taken");
        let url = format!("http://{address}/pets/2");
        let fetch =
            move || ureq::get(&url).config().proxy(None).build().call().unwrap().body_mut().read_to_string();
        let body = tokio::task::spawn_blocking(fetch).await.unwrap().unwrap();
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["pet"]["name"], "Mimi");
    }
}
