//! `proxy-rewrite`: changes method, path, `Host` and header fields of a request on its way to the upstream.
//!
//! What is written here is the decoded path; it is escaped again when it is forwarded. The query of the request is
//! kept and follows what the new path brings along.

use std::sync::Arc;

use gatewright_model::expression::Pattern;
use gatewright_model::validation::Violations;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::edits::{self, Edits};
use crate::exchange::{Exchange, Flow};
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::rewriting::{Rewritten, Substitution, append_query};
use crate::schema;
use crate::template::Template;

pub(crate) const KIND: Kind = Kind {
    name: "proxy-rewrite",
    priority: 1008,
    category: Category::Other,
    phases: Phases::of(&[Phase::Rewrite]),
    schema: || {
        let schema = schema::with::<Config>(json!({ "minProperties": 1 }));
        schema::field(schema, "headers", edits::headers_schema())
    },
    metadata: None,
    credential: None,
    build,
};

#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Config {
    /// The new path, perhaps with a query; `$variables` are replaced.
    #[schema(min_length = 1, max_length = 4096, pattern = r"^\/.*")]
    uri: Option<String>,
    /// Pairs of a regular expression and what its match in the path becomes; the first that matches counts.
    #[schema(min_items = 2)]
    regex_uri: Option<Vec<String>>,
    /// The new method.
    method: Option<Method>,
    /// The `Host` the upstream gets.
    #[schema(pattern = r"^[0-9a-zA-Z-.]+(:\d{1,5})?$")]
    host: Option<String>,
    /// Header fields: `{"add": …, "set": …, "remove": …}`, or a map of fields to set.
    #[schema(value_type = Object)]
    headers: Option<Value>,
    /// Forward the path exactly as the client wrote it. Unsafe: it is not what was matched.
    use_real_request_uri_unsafe: bool,
}

#[derive(Clone, Copy, Debug, serde::Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
enum Method {
    Post,
    Put,
    Delete,
    Mkcol,
    Copy,
    Move,
    Options,
    Propfind,
    Lock,
    Unlock,
    Patch,
    Trace,
    Get,
    Head,
}

impl Method {
    fn text(self) -> String {
        format!("{self:?}").to_ascii_uppercase()
    }
}

struct ProxyRewrite {
    uri: Option<Rewritten>,
    substitutions: Vec<Substitution>,
    method: Option<String>,
    host: Option<Template>,
    headers: Edits,
    raw: bool,
}

fn build(config: Value, _: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let mut violations = Violations::default();
    let pairs = config.regex_uri.unwrap_or_default();
    if pairs.len() % 2 == 1 {
        violations.add("/regex_uri", "expected pairs of a regular expression and its replacement");
    }
    let mut substitutions = Vec::with_capacity(pairs.len() / 2);
    for (index, pair) in pairs.chunks_exact(2).enumerate() {
        match Pattern::compile(&pair[0], false) {
            Ok(pattern) => {
                substitutions.push(Substitution { pattern, replacement: Rewritten::parse(&pair[1]) })
            }
            Err(message) => violations.add(format!("/regex_uri/{}", index * 2), message),
        }
    }
    let mut headers =
        config.headers.map(|headers| Edits::parse(&headers, "/headers", &mut violations)).unwrap_or_default();
    violations.into_result()?;
    // A `Host` among the fields is the host: a request has one.
    let named = headers.take_set("host");
    Ok(Arc::new(ProxyRewrite {
        uri: config.uri.as_deref().map(Rewritten::parse),
        substitutions,
        method: config.method.map(Method::text),
        host: config.host.as_deref().map(Template::parse).or(named),
        headers,
        raw: config.use_real_request_uri_unsafe,
    }))
}

impl Plugin for ProxyRewrite {
    fn rewrite(&self, exchange: &mut Exchange<'_>) -> Flow {
        let path = exchange.request.bytes(exchange.request.path).to_vec();
        let matching = self.substitutions.iter().find_map(|it| Some((it, it.pattern.captures_at(&path, 0)?)));
        let captures = matching.as_ref().map(|(_, groups)| groups.as_slice()).unwrap_or_default();
        let captured = |group: usize| path.get(captures.get(group)?.clone()?);
        let written = match (&self.uri, &matching) {
            _ if self.raw => None,
            (Some(uri), _) => Some(uri.render(exchange, &captured)),
            (None, Some((substitution, groups))) => Some(substitution.apply(&path, groups, exchange)),
            (None, None) => None,
        };
        let headers = self.headers.render(exchange, &captured);
        let host = self.host.as_ref().map(|host| host.render_captured(exchange, &captured));
        exchange.state.raw_path |= self.raw;
        if let Some((path, query)) = written {
            exchange.set_path(&path);
            append_query(exchange, query);
        }
        if let Some(host) = host.filter(|host| gatewright_model::target::is_authority(host)) {
            exchange.state.upstream_host = Some(host.into());
        }
        if let Some(method) = &self.method {
            exchange.set_method(method);
        }
        self.headers.apply(headers, &mut exchange.request.fields);
        Flow::Continue
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Trial, refused};
    use serde_json::json;

    #[test]
    fn paths_are_rewritten_and_queries_kept() {
        for (config, request, expected) in [
            (json!({"uri": "/new"}), "GET /old?a=1", "GET /new?a=1"),
            (json!({"uri": "/new?b=2"}), "GET /old?a=1", "GET /new?b=2&a=1"),
            (json!({"uri": "/new?b=$arg_a"}), "GET /old", "GET /new?b="),
            (json!({"uri": "/x$uri"}), "GET /a%20b%3Fc", "GET /x/a%20b%3Fc"),
            (json!({"uri": "/n/$arg_name"}), "GET /?name=a%3Fb%20c", "GET /n/a%3Fb%20c?name=a%3Fb%20c"),
            (json!({"uri": "/n?v=$arg_v"}), "GET /?v=a%0d%0ab", "GET /n?v=a%0D%0Ab&v=a%0d%0ab"),
            (json!({"regex_uri": ["^/u/(.*)/(.*)", "/$2/${1}x"]}), "GET /u/a/b?q", "GET /b/ax?q"),
            (json!({"regex_uri": ["^/none", "/1", "^/u", "/v", "^/", "/w"]}), "GET /u/a", "GET /v/a"),
            (json!({"regex_uri": ["^/none", "/1"]}), "GET /a%2520?q=1", "GET /a%2520?q=1"),
            (json!({"regex_uri": ["^/u/(.*)", "/v?id=$1"]}), "GET /u/7?q=1", "GET /v?id=7&q=1"),
            (json!({"uri": "/wins", "regex_uri": ["^/", "/loses"]}), "GET /a", "GET /wins"),
            (json!({"method": "POST"}), "GET /a", "POST /a"),
        ] {
            let trial = Trial::of("proxy-rewrite", config.clone());
            assert_eq!(trial.run(request).forwarded(), expected, "{config} {request}");
        }
    }

    #[test]
    fn header_fields_are_added_set_and_removed() {
        let trial = Trial::of(
            "proxy-rewrite",
            json!({"regex_uri": ["^/u/(.*)", "/v"], "headers": {
                "add": {"X-Many": "2", "X-List": ["a", "b"]},
                "set": {"X-One": "$http_x_in", "X-Id": "id-$1", "X-Number": 5},
                "remove": ["X-Gone"],
            }}),
        );
        let run = trial.run("GET /u/7\nX-Many: 1\nX-One: old\nX-In: in\nX-Gone: 1");
        for (name, expected) in [
            ("X-Many", "1, 2"),
            ("X-List", "a, b"),
            ("X-One", "in"),
            ("X-Id", "id-7"),
            ("X-Number", "5"),
            ("X-Gone", ""),
        ] {
            assert_eq!(run.sent(name), expected, "{name}");
        }
        let flat = Trial::of("proxy-rewrite", json!({"headers": {"X-One": "1", "X-Two": 2}}));
        let run = flat.run("GET /\nX-One: old");
        assert_eq!((run.sent("X-One"), run.sent("X-Two")), ("1".to_owned(), "2".to_owned()));
    }

    #[test]
    fn no_value_breaks_into_another_line() {
        let trial = Trial::of("proxy-rewrite", json!({"headers": {"set": {"X-Name": "$arg_name"}}}));
        assert_eq!(trial.run("GET /?name=a%0D%0AHost:%20evil").sent("X-Name"), "aHost: evil");
    }

    #[test]
    fn the_host_is_one_whoever_names_it() {
        for config in
            [json!({"host": "other.example:81"}), json!({"headers": {"set": {"Host": "other.example:81"}}})]
        {
            let trial = Trial::of("proxy-rewrite", config);
            let run = trial.run("GET /");
            assert_eq!(run.state.upstream_host.as_deref(), Some(&b"other.example:81"[..]));
            assert_eq!(run.sent("Host"), "");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (config, expected) in [
            (json!({}), vec![""]),
            (json!({"uri": "no-slash"}), vec!["/uri"]),
            (json!({"regex_uri": ["^/a", "/b", "^/c"]}), vec!["/regex_uri"]),
            (json!({"regex_uri": ["(", "/b"]}), vec!["/regex_uri/0"]),
            (json!({"method": "get"}), vec!["/method"]),
            (json!({"host": "a b"}), vec!["/host"]),
            (json!({"headers": {"set": {"Content-Length": "5"}}}), vec!["/headers/set/Content-Length"]),
            (json!({"headers": {"a b": "5"}}), vec!["/headers/a b"]),
        ] {
            assert_eq!(refused("proxy-rewrite", &config), expected, "{config}");
        }
    }
}
