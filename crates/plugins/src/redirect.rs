//! `redirect`: answers with another address instead of forwarding.
//!
//! To send everybody to HTTPS, `http_to_https` is enough: whoever came by HTTPS passes.

use std::sync::Arc;

use gatewright_model::expression::{Pattern, Value as Read, Variable, Variables};
use gatewright_model::message::Method;
use gatewright_model::target;
use gatewright_model::validation::Violations;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::exchange::{Answer, Exchange, Flow};
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::rewriting::{Rewritten, Substitution};
use crate::schema;
use crate::template::Template;

pub(crate) const KIND: Kind = Kind {
    name: "redirect",
    priority: 900,
    category: Category::Other,
    phases: Phases::of(&[Phase::Rewrite]),
    schema: || schema::with::<Config>(schema::one_of(&["uri", "regex_uri", "http_to_https"])),
    metadata: None,
    credential: None,
    build,
};

#[derive(Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Config {
    /// The new address; `$variables` are replaced.
    #[schema(
        min_length = 2,
        pattern = r"(\\\$[0-9a-zA-Z_]+)|\$\{([0-9a-zA-Z_]+)\}|\$([0-9a-zA-Z_]+)|(\$|[^$\\]+)"
    )]
    uri: Option<String>,
    /// A regular expression, and what its match in the path becomes.
    #[schema(min_items = 2, max_items = 2)]
    regex_uri: Option<Vec<String>>,
    /// Whether requests by HTTP are sent to HTTPS.
    http_to_https: Option<bool>,
    /// The status of the answer.
    #[schema(minimum = 200)]
    ret_code: u16,
    /// Whether the new address is escaped.
    encode_uri: bool,
    /// Whether the query of the request is kept.
    append_query_string: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            uri: None,
            regex_uri: None,
            http_to_https: None,
            ret_code: 302,
            encode_uri: false,
            append_query_string: false,
        }
    }
}

struct Redirect {
    to: To,
    status: u16,
    encode: bool,
    keep_query: bool,
}

enum To {
    Address(Template),
    Substituted(Substitution),
    Https,
    Nowhere,
}

fn build(config: Value, _: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let mut violations = Violations::default();
    if config.ret_code > 599 {
        violations.add("/ret_code", "number must be at most 599");
    }
    let to = match (config.uri, config.regex_uri.as_deref()) {
        (Some(uri), _) => To::Address(Template::parse(&uri)),
        (None, Some([pattern, replacement])) => match Pattern::compile(pattern, false) {
            Ok(pattern) => {
                To::Substituted(Substitution { pattern, replacement: Rewritten::parse(replacement) })
            }
            Err(message) => {
                violations.add("/regex_uri/0", message);
                To::Nowhere
            }
        },
        _ if config.http_to_https == Some(true) => {
            if config.append_query_string {
                let message = "the whole address is kept with `http_to_https`; leave it out";
                violations.add("/append_query_string", message);
            }
            To::Https
        }
        _ => To::Nowhere,
    };
    violations.into_result()?;
    let (status, encode) = (config.ret_code, config.encode_uri);
    Ok(Arc::new(Redirect { to, status, encode, keep_query: config.append_query_string }))
}

impl Plugin for Redirect {
    fn rewrite(&self, exchange: &mut Exchange<'_>) -> Flow {
        let (status, location) = match &self.to {
            To::Nowhere => return Flow::Continue,
            To::Https => match https_address(exchange) {
                Some(found) => found,
                None => return Flow::Continue,
            },
            To::Address(template) => (self.status, self.finish(template.render(exchange), exchange)),
            To::Substituted(substitution) => {
                let path = exchange.request.bytes(exchange.request.path);
                let Some(groups) = substitution.pattern.captures_at(path, 0) else { return Flow::Continue };
                let (mut address, query) = substitution.apply(path, &groups, exchange);
                // A replacement that is a whole address does not start with a slash.
                if address.starts_with(b"/http://") || address.starts_with(b"/https://") {
                    address.remove(0);
                }
                if let Some(query) = query {
                    address.push(b'?');
                    address.extend(query);
                }
                (self.status, self.finish(address, exchange))
            }
        };
        Flow::respond(Answer::new(status).field("Location", location))
    }
}

impl Redirect {
    fn finish(&self, address: Vec<u8>, exchange: &Exchange<'_>) -> Vec<u8> {
        let mut location = Vec::with_capacity(address.len());
        if self.encode {
            target::encode_path(&address, &mut location);
        } else {
            // Whatever a variable held, a location is one line.
            crate::rewriting::encode_query(&address, &mut location);
        }
        if self.keep_query
            && let Some(query) = exchange.request.query
        {
            location.push(if location.contains(&b'?') { b'&' } else { b'?' });
            location.extend_from_slice(exchange.request.bytes(query));
        }
        location
    }
}

/// Where a request that came by HTTP goes, and with which status: those that may have a body are repeated as they are.
fn https_address(exchange: &Exchange<'_>) -> Option<(u16, Vec<u8>)> {
    let forwarded = exchange.field("X-Forwarded-Proto");
    let is_http = match forwarded {
        Some(scheme) => scheme == b"http",
        None => !exchange.client.tls,
    };
    if !is_http {
        return None;
    }
    let status = match exchange.request.method {
        Method::Get | Method::Head => 301,
        _ => 308,
    };
    let mut location = b"https://".to_vec();
    location.extend_from_slice(exchange.request.bytes(exchange.request.host));
    if let Some(Read::Text(uri)) = exchange.get(&Variable::RequestUri) {
        location.extend_from_slice(&uri);
    }
    Some((status, location))
}

#[cfg(test)]
mod tests {
    use crate::testing::{Trial, refused};
    use serde_json::json;

    /// Status and location.
    fn redirected(trial: &Trial, request: &str) -> String {
        let run = trial.run(request);
        let status = run.answer.as_ref().map_or(0, |answer| answer.status);
        format!("{status} {}", run.answer_field("Location"))
    }

    #[test]
    fn requests_are_sent_elsewhere() {
        for (config, request, expected) in [
            (json!({"uri": "/new"}), "GET /old?a=1", "302 /new"),
            (json!({"uri": "https://$host/x$uri", "ret_code": 301}), "GET /a", "301 https://api.example/x/a"),
            (json!({"uri": "/new", "append_query_string": true}), "GET /?a=1", "302 /new?a=1"),
            (json!({"uri": "/new?b=2", "append_query_string": true}), "GET /?a=1", "302 /new?b=2&a=1"),
            (json!({"uri": "/n/$arg_v"}), "GET /?v=a%0d%0ab", "302 /n/a%0D%0Ab"),
            (json!({"uri": "/a b%", "encode_uri": true}), "GET /", "302 /a%20b%25"),
            (json!({"regex_uri": ["^/t/(.*)", "/u/$1"]}), "GET /t/a/b", "302 /u/a/b"),
            (json!({"regex_uri": ["^/t/(.*)", "http://e.org/$1?x=1"]}), "GET /t/a", "302 http://e.org/a?x=1"),
            (json!({"regex_uri": ["^/t/(.*)", "/u/$1"]}), "GET /other", "0 "),
        ] {
            let trial = Trial::of("redirect", config.clone());
            assert_eq!(redirected(&trial, request), expected, "{config} {request}");
        }
    }

    #[test]
    fn http_is_sent_to_https() {
        let plain = Trial::of("redirect", json!({"http_to_https": true}));
        for (request, expected) in [
            ("GET /a%20b?c=1", "301 https://api.example/a%20b?c=1"),
            ("HEAD /", "301 https://api.example/"),
            ("POST /\nHost: h.example:9080", "308 https://h.example/"),
            ("GET /\nX-Forwarded-Proto: https", "0 "),
        ] {
            assert_eq!(redirected(&plain, request), expected, "{request}");
        }
        let tls = Trial::of("redirect", json!({"http_to_https": true})).over_tls();
        assert_eq!(redirected(&tls, "GET /"), "0 ");
        assert_eq!(redirected(&tls, "GET /\nX-Forwarded-Proto: http"), "301 https://api.example/");
        assert_eq!(redirected(&Trial::of("redirect", json!({"http_to_https": false})), "GET /"), "0 ");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (config, expected) in [
            (json!({}), vec![""]),
            (json!({"uri": "/a", "http_to_https": true}), vec![""]),
            (json!({"regex_uri": ["^/a"]}), vec!["/regex_uri"]),
            (json!({"regex_uri": ["(", "/b"]}), vec!["/regex_uri/0"]),
            (json!({"uri": "/a", "ret_code": 100}), vec!["/ret_code"]),
            (json!({"http_to_https": true, "append_query_string": true}), vec!["/append_query_string"]),
        ] {
            assert_eq!(refused("redirect", &config), expected, "{config}");
        }
    }
}
