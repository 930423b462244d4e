//! `forward-auth`: asks an authorisation service whether a request may go on.
//!
//! Every request costs a request to that service, which is as available as the service is; where credentials can be
//! checked by the gateway itself, check them there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gatewright_model::expression::Variable;
use gatewright_model::validation::Violations;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::edits;
use crate::exchange::{Answer, Body, Exchange, Flow, Next};
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::outbound::{Connection, Failure, Outbound, Request, Response};
use crate::schema;
use crate::template::Template;

pub(crate) const KIND: Kind = Kind {
    name: "forward-auth",
    priority: 2002,
    category: Category::Authentication,
    phases: Phases::of(&[Phase::Access]),
    schema: || {
        let headers = json!({ "type": "object", "minProperties": 1,
            "patternProperties": { "^[^:]+$": { "type": "string" } } });
        schema::required(schema::field(schema::of::<Config>(), "extra_headers", headers), &["uri"])
    },
    metadata: None,
    credential: None,
    build,
};

#[derive(Clone, Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Config {
    /// Address of the authorisation service.
    uri: String,
    /// Whether requests go on where the service does not answer.
    allow_degradation: bool,
    /// Status of the answer where the service does not answer.
    #[schema(minimum = 200, maximum = 599)]
    status_on_error: u16,
    /// Whether the service has to show a certificate that verifies.
    ssl_verify: bool,
    /// How the service is asked; with `POST` it gets the body as well.
    request_method: Method,
    /// Header fields of the client that the service gets.
    request_headers: Vec<String>,
    /// Header fields that the service gets besides; `$variables` are replaced.
    #[schema(value_type = Object)]
    extra_headers: Option<BTreeMap<String, String>>,
    /// Header fields of the service's answer that the upstream gets instead of the client's.
    upstream_headers: Vec<String>,
    /// Header fields of the service's answer that the client gets where it is refused.
    client_headers: Vec<String>,
    /// Bytes of the longest body that the service gets.
    #[schema(minimum = 1)]
    max_req_body_size: u64,
    /// Milliseconds until the service counts as not answering.
    #[schema(minimum = 1, maximum = 60000)]
    timeout: u64,
    /// Whether connections are kept.
    keepalive: bool,
    /// Milliseconds that an idle connection is kept.
    #[schema(minimum = 1000)]
    keepalive_timeout: u64,
    /// Idle connections kept.
    #[schema(minimum = 1)]
    keepalive_pool: u32,
}

#[derive(Clone, Copy, Default, PartialEq, Deserialize, serde::Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
enum Method {
    #[default]
    Get,
    Post,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            uri: String::new(),
            allow_degradation: false,
            status_on_error: 403,
            ssl_verify: true,
            request_method: Method::Get,
            request_headers: Vec::new(),
            extra_headers: None,
            upstream_headers: Vec::new(),
            client_headers: Vec::new(),
            max_req_body_size: 64 * 1024 * 1024,
            timeout: 3000,
            keepalive: true,
            keepalive_timeout: 60_000,
            keepalive_pool: 5,
        }
    }
}

/// Fields that the body brings along.
const BODY_FIELDS: [&str; 2] = ["Content-Type", "Content-Encoding"];

struct ForwardAuth {
    outbound: Arc<dyn Outbound>,
    extra: Vec<(String, Template)>,
    connection: Connection,
    config: Arc<Config>,
}

fn build(config: Value, site: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let mut violations = Violations::default();
    if !config.uri.starts_with("http://") && !config.uri.starts_with("https://") {
        violations.add("/uri", "must begin with http:// or https://");
    }
    let lists = [
        ("request_headers", &config.request_headers),
        ("upstream_headers", &config.upstream_headers),
        ("client_headers", &config.client_headers),
    ];
    for (list, names) in lists {
        for (index, name) in names.iter().enumerate() {
            edits::check_name(name, &format!("/{list}/{index}"), &mut violations);
        }
    }
    let extra = config.extra_headers.iter().flatten();
    let extra = extra.map(|(name, value)| {
        edits::check_name(name, &format!("/extra_headers/{name}"), &mut violations);
        (name.clone(), Template::parse(value))
    });
    let extra = extra.collect();
    violations.into_result()?;
    let connection = Connection {
        verify: config.ssl_verify,
        idle_max: if config.keepalive { config.keepalive_pool as usize } else { 0 },
        idle_timeout: Duration::from_millis(config.keepalive_timeout),
        proxy: None,
    };
    let outbound = Arc::clone(site.outbound);
    Ok(Arc::new(ForwardAuth { outbound, extra, connection, config: Arc::new(config) }))
}

impl Plugin for ForwardAuth {
    fn access(&self, exchange: &mut Exchange<'_>) -> Flow {
        let body = match (&exchange.state.body, self.config.request_method) {
            (_, Method::Get) => Bytes::new(),
            (Body::Unread, Method::Post) => {
                return Flow::ReadBody(usize::try_from(self.config.max_req_body_size).unwrap_or(usize::MAX));
            }
            (Body::Read(body), Method::Post) => body.clone(),
            (Body::TooLarge, Method::Post) => return Flow::respond(Answer::new(413)),
        };
        let asking = self.outbound.send(self.request(exchange, body));
        let config = Arc::clone(&self.config);
        Flow::Wait(Box::pin(async move {
            let answer = asking.await;
            Box::new(move |exchange: &mut Exchange<'_>| decide(&config, answer, exchange)) as Next
        }))
    }
}

impl ForwardAuth {
    fn request(&self, exchange: &Exchange<'_>, body: Bytes) -> Request {
        let method = match self.config.request_method {
            Method::Get => "GET",
            Method::Post => "POST",
        };
        let mut request = Request::new(method, self.config.uri.as_str())
            .within(Duration::from_millis(self.config.timeout))
            .over(self.connection.clone());
        request.body = body;
        for (name, variable) in [
            ("X-Forwarded-Proto", Variable::Scheme),
            ("X-Forwarded-Method", Variable::RequestMethod),
            ("X-Forwarded-Host", Variable::Host),
            ("X-Forwarded-Uri", Variable::RequestUri),
            ("X-Forwarded-For", Variable::RemoteAddr),
        ] {
            request = request.field(name, exchange.text(&variable).unwrap_or_default());
        }
        for (name, template) in &self.extra {
            request = request.field(name.as_str(), edits::one_line(template.render(exchange)));
        }
        let of_body = BODY_FIELDS.iter().copied().filter(|_| self.config.request_method == Method::Post);
        let copied = self.config.request_headers.iter().map(String::as_str).chain(of_body);
        let mut fields = Vec::new();
        for name in copied {
            // What the gateway says itself is not replaced by what the client says.
            let is_said = |(known, _): &(String, Vec<u8>)| known.eq_ignore_ascii_case(name);
            if request.fields.iter().chain(&fields).any(is_said) {
                continue;
            }
            let values = exchange.request.fields.named(name.as_bytes());
            fields.extend(values.map(|value| (name.to_owned(), value.to_vec())).collect::<Vec<_>>());
        }
        request.fields.extend(fields);
        request
    }
}

/// What becomes of the request after the service said `answer`.
fn decide(config: &Config, answer: Result<Response, Failure>, exchange: &mut Exchange<'_>) -> Flow {
    let answer = match answer {
        Ok(answer) => answer,
        Err(_) if config.allow_degradation => return Flow::Continue,
        Err(_) => return Flow::respond(Answer::new(config.status_on_error)),
    };
    if answer.status >= 300 {
        let mut refusal = Answer::new(answer.status);
        for name in &config.client_headers {
            for value in values(&answer, name) {
                refusal = refusal.field(name.clone(), value.to_vec());
            }
        }
        let is_typed = config.client_headers.iter().any(|name| name.eq_ignore_ascii_case("content-type"));
        if !answer.body.is_empty() && !is_typed {
            refusal = refusal.field("Content-Type", "text/plain; charset=utf-8");
        }
        return Flow::respond(refusal.body(answer.body));
    }
    exchange.state.is_vouched_for = true;
    for name in &config.upstream_headers {
        exchange.request.fields.remove(name.as_bytes());
        for value in values(&answer, name) {
            exchange.request.fields.append(name, value);
        }
    }
    Flow::Continue
}

fn values<'a>(answer: &'a Response, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let named = answer.fields.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trial, refused};

    fn trial(more: Value, answer: Result<Response, Failure>) -> Trial {
        let mut config = json!({"uri": "http://auth.example/check"});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Trial::of("forward-auth", config).answering(move |_| answer.clone())
    }

    fn answer(status: u16, fields: &[(&str, &str)], body: &'static str) -> Result<Response, Failure> {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
        Ok(Response { status, fields: fields.collect(), body: body.into() })
    }

    fn said(request: &Request) -> Vec<String> {
        let fields = request.fields.iter();
        fields.map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value))).collect()
    }

    #[test]
    fn the_service_learns_what_is_asked_for_and_what_is_configured() {
        let more = json!({"request_headers": ["Authorization", "X-Forwarded-Host", "Absent"],
            "extra_headers": {"X-Route": "$route_id at $remote_addr"}});
        let trial = trial(more, answer(200, &[], "")).over_tls();
        let request = "PUT /a?b=1\nHost: shop.example:8080\nAuthorization: one\nX-Forwarded-Host: forged";
        assert_eq!(trial.run(request).answered(), "");
        let [asked] = &trial.asked()[..] else { panic!("one request") };
        assert_eq!((asked.method, asked.url.as_str()), ("GET", "http://auth.example/check"));
        assert_eq!(asked.timeout, Duration::from_secs(3));
        assert_eq!(
            said(asked),
            [
                "X-Forwarded-Proto: https",
                "X-Forwarded-Method: PUT",
                "X-Forwarded-Host: shop.example",
                "X-Forwarded-Uri: /a?b=1",
                "X-Forwarded-For: 10.0.0.9",
                "X-Route: r1 at 10.0.0.9",
                "Authorization: one",
            ]
        );
    }

    #[test]
    fn the_service_decides() {
        let refused = trial(
            json!({"client_headers": ["Location", "X-Why"]}),
            answer(302, &[("location", "/login"), ("x-secret", "s")], "go"),
        );
        let run = refused.run("GET /");
        assert_eq!((run.answered().as_str(), run.answer_field("Location").as_str()), ("302 go", "/login"));
        assert_eq!(run.answer_field("X-Secret") + &run.answer_field("X-Why"), "");
        let admitted = trial(
            json!({"upstream_headers": ["X-User", "X-Role"]}),
            answer(204, &[("x-user", "jack"), ("x-other", "o")], ""),
        );
        let run = admitted.run("GET /\nX-User: forged\nX-Role: forged\nX-Other: kept");
        let sent = ["X-User", "X-Role", "X-Other"].map(|name| run.sent(name));
        assert_eq!(sent, ["jack", "", "kept"], "what the service does not say is removed");
    }

    #[test]
    fn c9_where_nobody_answers_nobody_gets_in_unless_the_configuration_says_so() {
        let nobody = || Err(Failure::TimedOut);
        assert_eq!(trial(json!({}), nobody()).run("GET /").answered(), "403 ");
        assert_eq!(trial(json!({"status_on_error": 503}), nobody()).run("GET /").answered(), "503 ");
        assert_eq!(trial(json!({"allow_degradation": true}), nobody()).run("GET /").answered(), "");
    }

    #[test]
    fn the_body_goes_along_with_post() {
        let trial = trial(json!({"request_method": "POST", "max_req_body_size": 4}), answer(200, &[], ""));
        assert_eq!(trial.run("PUT /\nContent-Type: a/b\n\nfour").answered(), "");
        let [asked] = &trial.asked()[..] else { panic!("one request") };
        assert_eq!((asked.method, &asked.body[..]), ("POST", &b"four"[..]));
        assert_eq!(said(asked).last().unwrap(), "Content-Type: a/b");
        assert_eq!(trial.run("PUT /\n\nfives").answered(), "413 ");
        assert!(trial.asked().is_empty(), "what is too long is not sent");
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        assert_eq!(refused("forward-auth", &json!({})), ["/uri"]);
        assert_eq!(refused("forward-auth", &json!({"uri": "auth.example"})), ["/uri"]);
        let names = json!({"uri": "http://a", "request_headers": ["a b"], "extra_headers": {"c d": "x"}});
        assert_eq!(refused("forward-auth", &names), ["/extra_headers/c d", "/request_headers/0"]);
    }
}
