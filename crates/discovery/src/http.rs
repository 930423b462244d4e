//! The one client of all registries that speak HTTP: several servers in turn, limits on time and size, no redirects.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response, StatusCode, Url};
use rustls::ClientConfig;
use serde::de::DeserializeOwned;

use crate::Trouble;
use crate::outside::{self, Allow, Names, Outside};

/// Bytes of one answer: ten thousand nodes with their metadata fit several times over.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Characters of a refusal that are shown.
const SHOWN_LENGTH_MAX: usize = 200;

/// Idle connections kept to one server.
const IDLE_MAX: usize = 8;

/// The servers of one registry.
pub(crate) struct Http {
    client: Client,
    servers: Vec<Url>,
    /// The one that answered last.
    turn: AtomicUsize,
    allow: Allow,
}

/// A question.
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    /// The path, below that of the server.
    pub(crate) path: Vec<&'a str>,
    pub(crate) query: Vec<(&'a str, String)>,
    pub(crate) fields: Vec<(&'static str, String)>,
    /// Sent as a form.
    pub(crate) form: Vec<(&'a str, &'a str)>,
    /// How long the whole answer may take; `None`: as long as it comes.
    pub(crate) within: Option<Duration>,
}

impl<'a> Ask<'a> {
    pub(crate) fn get(path: impl IntoIterator<Item = &'a str>, within: Duration) -> Self {
        Self {
            method: Method::GET,
            path: path.into_iter().collect(),
            query: Vec::new(),
            fields: Vec::new(),
            form: Vec::new(),
            within: Some(within),
        }
    }

    pub(crate) fn with(mut self, name: &'a str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    pub(crate) fn field(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }
}

/// An answer, read as a whole.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) fields: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// What it says, if it went well.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Trouble> {
        if !self.status.is_success() {
            return Err(self.refused());
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| Trouble::new(format!("the answer is not what was asked for: {error}")))
    }

    /// An answer that is a refusal.
    pub(crate) fn refused(&self) -> Trouble {
        let said = String::from_utf8_lossy(&self.body);
        let said: String = said.trim().chars().take(SHOWN_LENGTH_MAX).collect();
        Trouble::new(format!("it answered {}: {said}", self.status))
    }
}

impl Http {
    /// For servers such as `http://host:8500`, each with `prefix` in front of every path.
    pub(crate) fn new(
        servers: &[String],
        prefix: &str,
        connect_timeout: Duration,
        tls: ClientConfig,
        outside: &Outside,
    ) -> Result<Self, Trouble> {
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            // What is asked is what was configured: no redirects, and no proxy that only the environment knows of.
            .redirect(Policy::none())
            .dns_resolver(Arc::new(Names(Arc::clone(&outside.allow))))
            .no_proxy()
            .http1_only()
            .connect_timeout(connect_timeout)
            .tcp_keepalive(Duration::from_secs(30))
            .pool_max_idle_per_host(IDLE_MAX)
            .build()
            .map_err(trouble)?;
        let base = |server: &String| {
            let wrong =
                |error: &dyn std::fmt::Display| Trouble::new(format!("server `{}`: {error}", hidden(server)));
            let mut url = Url::parse(server).map_err(|error| wrong(&error))?;
            let mut segments = url.path_segments_mut().map_err(|()| wrong(&"it has no path"))?;
            segments.pop_if_empty().extend(prefix.split('/').filter(|segment| !segment.is_empty()));
            drop(segments);
            Ok(url)
        };
        let servers = servers.iter().map(base).collect::<Result<Vec<_>, Trouble>>()?;
        if servers.is_empty() {
            return Err(Trouble::new("it has no servers"));
        }
        Ok(Self { client, servers, turn: AtomicUsize::new(0), allow: Arc::clone(&outside.allow) })
    }

    /// Asks one server after the other until one answers, and reads its answer.
    pub(crate) async fn ask(&self, ask: &Ask<'_>) -> Result<Answer, Trouble> {
        let first = self.turn.load(Ordering::Relaxed);
        let mut last = Trouble::new("it has no servers");
        for number in 0..self.servers.len() {
            let turn = (first + number) % self.servers.len();
            let answering = async { read(self.open(turn, ask).await?).await };
            let answer = match ask.within {
                Some(within) => tokio::time::timeout(within, answering).await.unwrap_or_else(|_| {
                    Err(Trouble::new(format!("no answer within {} seconds", within.as_secs_f64())))
                }),
                None => answering.await,
            };
            match answer {
                Ok(answer) if answer.status.is_server_error() => last = answer.refused(),
                Ok(answer) => {
                    self.turn.store(turn, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(trouble) => last = trouble,
            }
        }
        Err(last)
    }

    /// Asks, and leaves the lines of the answer to be read as they come. A refusal other than that what is asked for is
    /// gone is trouble; how long the lines may take is up to their reader.
    pub(crate) async fn lines(&self, ask: &Ask<'_>) -> Result<(StatusCode, Lines), Trouble> {
        let turn = self.turn.load(Ordering::Relaxed) % self.servers.len();
        let within = ask.within.unwrap_or(Duration::MAX);
        let opening = tokio::time::timeout(within, self.open(turn, ask)).await;
        let response = opening.unwrap_or_else(|_| Err(Trouble::new("no answer in time")))?;
        let status = response.status();
        if !status.is_success() && status != StatusCode::GONE {
            self.turn.store(turn + 1, Ordering::Relaxed);
            let reading = tokio::time::timeout(within, read(response)).await;
            return Err(reading.unwrap_or_else(|_| Err(Trouble::new("no answer in time")))?.refused());
        }
        Ok((status, Lines { response, read: BytesMut::new() }))
    }

    /// Asks the server whose turn it is; the body of the answer is left to be read.
    async fn open(&self, turn: usize, ask: &Ask<'_>) -> Result<Response, Trouble> {
        let mut url = self.servers[turn].clone();
        outside::must_be_allowed(&url, &self.allow).map_err(Trouble::new)?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(&ask.path);
        }
        if !ask.query.is_empty() {
            url.query_pairs_mut().extend_pairs(ask.query.iter().map(|(name, value)| (*name, value.as_str())));
        }
        let mut fields = HeaderMap::new();
        for (name, value) in &ask.fields {
            let value = HeaderValue::from_str(value);
            let mut value =
                value.map_err(|_| Trouble::new(format!("{name} holds what no field can hold")))?;
            value.set_sensitive(true);
            fields.append(HeaderName::from_static(name), value);
        }
        let mut request = self.client.request(ask.method.clone(), url).headers(fields);
        if !ask.form.is_empty() {
            let mut form = Url::parse("http://form/").map_err(Trouble::new)?;
            form.query_pairs_mut().extend_pairs(&ask.form);
            let content_type = "application/x-www-form-urlencoded";
            request = request
                .header("content-type", content_type)
                .body(form.query().unwrap_or_default().to_owned());
        }
        request.send().await.map_err(trouble)
    }
}

/// An answer without an end, line by line.
pub(crate) struct Lines {
    response: Response,
    read: BytesMut,
}

impl Lines {
    /// The next line; `None`: there are no more. What was read of a line stays when this is dropped.
    pub(crate) async fn next(&mut self, silence_max: Duration) -> Result<Option<Bytes>, Trouble> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.read) {
                let line = self.read.split_to(end + 1).freeze().slice(..end);
                if !line.trim_ascii().is_empty() {
                    return Ok(Some(line));
                }
                continue;
            }
            let piece = tokio::time::timeout(silence_max, self.response.chunk()).await;
            let silent = |_| Trouble::new(format!("it said nothing for {} seconds", silence_max.as_secs()));
            match piece.map_err(silent)?.map_err(trouble)? {
                Some(piece) if self.read.len() + piece.len() <= ANSWER_BYTES_MAX => {
                    self.read.extend_from_slice(&piece);
                }
                Some(_) => {
                    return Err(Trouble::new(format!("a line has more than {ANSWER_BYTES_MAX} bytes")));
                }
                // What is left was cut off.
                None => return Ok(None),
            }
        }
    }

    /// Whether another line is there already.
    pub(crate) fn has_more(&self) -> bool {
        memchr::memchr(b'\n', &self.read).is_some()
    }
}

async fn read(mut response: Response) -> Result<Answer, Trouble> {
    let too_large = || Trouble::new(format!("the answer has more than {ANSWER_BYTES_MAX} bytes"));
    let mut body = BytesMut::new();
    while let Some(piece) = response.chunk().await.map_err(trouble)? {
        if body.len() + piece.len() > ANSWER_BYTES_MAX {
            return Err(too_large());
        }
        body.extend_from_slice(&piece);
    }
    let (status, fields) = (response.status(), std::mem::take(response.headers_mut()));
    Ok(Answer { status, fields, body: body.freeze() })
}

/// The address of a server without its password.
fn hidden(server: &str) -> String {
    match (server.split_once("://"), server.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => server.to_owned(),
    }
}

fn trouble(error: reqwest::Error) -> Trouble {
    Trouble::new(outside::reason(error))
}
