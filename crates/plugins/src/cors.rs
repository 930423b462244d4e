//! `cors`: tells browsers which origins may use an API (Cross-Origin Resource Sharing).
//!
//! It answers every OPTIONS request itself, before anybody is authenticated. It protects nothing from clients that are
//! no browsers: combine it with an authentication.

use std::sync::Arc;

use gatewright_model::expression::Pattern;
use gatewright_model::message::Method;
use gatewright_model::validation::Violations;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::exchange::{Answer, Exchange, Flow};
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::response::Response;
use crate::schema;

pub(crate) const KIND: Kind = Kind {
    name: "cors",
    priority: 4000,
    category: Category::Other,
    phases: Phases::of(&[Phase::Rewrite, Phase::Response]),
    schema: || {
        let list = json!({ "type": "array", "minItems": 1, "uniqueItems": true, "items":
            { "type": "string", "minLength": 1, "maxLength": 4096 } });
        ["allow_origins_by_regex", "allow_origins_by_metadata", "timing_allow_origins_by_regex"]
            .iter()
            .fold(schema::of::<Config>(), |schema, name| schema::field(schema, name, list.clone()))
    },
    metadata: Some(|| {
        let lists =
            json!({ "type": "object", "additionalProperties": { "type": "string", "pattern": ORIGINS } });
        schema::field(schema::of::<Metadata>(), "allow_origins", lists)
    }),
    credential: None,
    build,
};

/// `*`, `**`, `null`, or a list of origins.
const ORIGINS: &str = r"^(\*|\*\*|null|\w+://[^,]+(,\w+://[^,]+)*)$";

const EVERY_METHOD: &str = "GET,POST,PUT,DELETE,PATCH,HEAD,OPTIONS,CONNECT,TRACE";

#[derive(Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Config {
    /// Origins that may use the API, separated by commas; `*`: any; `**`: any, even with credentials.
    #[schema(pattern = "^(\\*|\\*\\*|null|\\w+://[^,]+(,\\w+://[^,]+)*)$")]
    allow_origins: String,
    /// Methods they may use, separated by commas; `*`: any; `**`: any, even with credentials.
    allow_methods: String,
    /// Header fields they may send, separated by commas; `*`: any; `**`: any, even with credentials.
    allow_headers: String,
    /// Header fields they may read, separated by commas.
    expose_headers: Option<String>,
    /// Seconds a browser may remember the answer; -1: not at all.
    max_age: i64,
    /// Whether credentials may be sent along.
    allow_credential: bool,
    /// Origins that may use the API, as regular expressions; replaces `allow_origins`.
    allow_origins_by_regex: Option<Vec<String>>,
    /// Origins that may use the API beside `allow_origins`, by their names in the plugin metadata.
    allow_origins_by_metadata: Option<Vec<String>>,
    /// Origins that may see timings, as in `allow_origins`.
    #[schema(pattern = "^(\\*|\\*\\*|null|\\w+://[^,]+(,\\w+://[^,]+)*)$")]
    timing_allow_origins: Option<String>,
    /// Origins that may see timings, as regular expressions.
    timing_allow_origins_by_regex: Option<Vec<String>>,
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
struct Metadata {
    /// Lists of origins by name.
    #[schema(value_type = Object)]
    allow_origins: serde_json::Map<String, Value>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            allow_origins: "*".to_owned(),
            allow_methods: "*".to_owned(),
            allow_headers: "*".to_owned(),
            expose_headers: None,
            max_age: 5,
            allow_credential: false,
            allow_origins_by_regex: None,
            allow_origins_by_metadata: None,
            timing_allow_origins: None,
            timing_allow_origins_by_regex: None,
        }
    }
}

struct Cors {
    origins: Origins,
    /// `None`: timings are nobody's business.
    timing_origins: Option<Origins>,
    methods: String,
    headers: String,
    expose_headers: Option<String>,
    max_age: String,
    allow_credential: bool,
}

/// Origins that are let in.
struct Origins {
    /// Whether the answer is `*`, whoever asks.
    any: bool,
    /// Whether every origin is answered with itself.
    forced: bool,
    listed: Vec<String>,
    patterns: Vec<Pattern>,
}

/// What the request said that its response depends on.
struct Asked {
    origin: Option<Vec<u8>>,
    headers: Option<Vec<u8>>,
}

fn build(config: Value, site: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let metadata: Metadata = site.metadata();
    let mut violations = Violations::default();
    let mut origins = Origins::of(&config.allow_origins);
    if let Some(patterns) = &config.allow_origins_by_regex {
        origins = Origins::matching(patterns, "/allow_origins_by_regex", &mut violations);
    }
    for name in config.allow_origins_by_metadata.iter().flatten() {
        let list = metadata.allow_origins.get(name).and_then(Value::as_str).unwrap_or_default();
        origins.add(list);
    }
    let mut timing_origins = config.timing_allow_origins.as_deref().map(Origins::of);
    if let Some(patterns) = &config.timing_allow_origins_by_regex {
        timing_origins = Some(Origins::matching(patterns, "/timing_allow_origins_by_regex", &mut violations));
    }
    if config.allow_credential {
        let lists = [
            ("allow_origins", Some(&config.allow_origins)),
            ("allow_methods", Some(&config.allow_methods)),
            ("allow_headers", Some(&config.allow_headers)),
            ("expose_headers", config.expose_headers.as_ref()),
            ("timing_allow_origins", config.timing_allow_origins.as_ref()),
        ];
        for (name, _) in lists.into_iter().filter(|(_, list)| list.is_some_and(|list| list == "*")) {
            let message = "`*` does not go with `allow_credential`; list what is allowed, or write `**`";
            violations.add(format!("/{name}"), message);
        }
    }
    violations.into_result()?;
    Ok(Arc::new(Cors {
        origins,
        timing_origins,
        methods: if config.allow_methods == "**" { EVERY_METHOD.to_owned() } else { config.allow_methods },
        headers: config.allow_headers,
        expose_headers: config.expose_headers.filter(|list| !list.is_empty()),
        max_age: config.max_age.to_string(),
        allow_credential: config.allow_credential,
    }))
}

impl Origins {
    fn of(list: &str) -> Self {
        let mut origins = Self { any: false, forced: false, listed: Vec::new(), patterns: Vec::new() };
        origins.add(list);
        origins
    }

    fn matching(patterns: &[String], at: &str, violations: &mut Violations) -> Self {
        let mut origins = Self { any: false, forced: false, listed: Vec::new(), patterns: Vec::new() };
        for (index, pattern) in patterns.iter().enumerate() {
            match Pattern::compile(pattern, false) {
                Ok(pattern) => origins.patterns.push(pattern),
                Err(message) => violations.add(format!("{at}/{index}"), message),
            }
        }
        origins
    }

    fn add(&mut self, list: &str) {
        match list {
            "*" => self.any = true,
            "**" => self.forced = true,
            list => self.listed.extend(list.split(',').filter(|it| !it.is_empty()).map(str::to_owned)),
        }
    }

    /// What an origin is answered; `None`: it is not let in.
    fn answer<'a>(&self, origin: Option<&'a [u8]>) -> Option<&'a [u8]> {
        if self.any {
            return Some(b"*");
        }
        if self.forced {
            return Some(origin.unwrap_or(b"*"));
        }
        let known = |origin: &&[u8]| {
            self.listed.iter().any(|listed| listed.as_bytes() == *origin)
                || self.patterns.iter().any(|pattern| pattern.is_match(origin))
        };
        origin.filter(known)
    }
}

impl Plugin for Cors {
    fn rewrite(&self, exchange: &mut Exchange<'_>) -> Flow {
        let text = |name: &str| exchange.field(name).map(<[u8]>::to_vec);
        let asked = Asked { origin: text("Origin"), headers: text("Access-Control-Request-Headers") };
        exchange.set_note(asked);
        match exchange.request.method {
            Method::Options => Flow::respond(Answer::new(200)),
            _ => Flow::Continue,
        }
    }

    fn response(&self, exchange: &mut Exchange<'_>, response: &mut Response<'_>) {
        exchange.state.origins_decided = true;
        let asked = exchange.note::<Asked>();
        let origin = asked.and_then(|asked| asked.origin.as_deref());
        if !self.origins.any {
            response.head.fields.append("Vary", b"Origin");
        }
        let timing = self.timing_origins.as_ref().and_then(|origins| origins.answer(origin));
        if let Some(timing) = timing {
            response.set_field("Timing-Allow-Origin", timing);
        }
        let Some(allowed) = self.origins.answer(origin) else { return };
        response.set_field("Access-Control-Allow-Origin", allowed);
        response.set_field("Access-Control-Allow-Methods", self.methods.as_bytes());
        response.set_field("Access-Control-Max-Age", self.max_age.as_bytes());
        if self.headers == "**" {
            if let Some(headers) = asked.and_then(|asked| asked.headers.as_deref()) {
                response.set_field("Access-Control-Allow-Headers", headers);
            }
        } else {
            response.set_field("Access-Control-Allow-Headers", self.headers.as_bytes());
        }
        if let Some(expose) = &self.expose_headers {
            response.set_field("Access-Control-Expose-Headers", expose.as_bytes());
        }
        if self.allow_credential {
            response.set_field("Access-Control-Allow-Credentials", b"true");
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Trial, refused};
    use serde_json::json;

    const FIELDS: [&str; 8] = [
        "Access-Control-Allow-Origin",
        "Access-Control-Allow-Methods",
        "Access-Control-Max-Age",
        "Access-Control-Allow-Headers",
        "Access-Control-Expose-Headers",
        "Access-Control-Allow-Credentials",
        "Timing-Allow-Origin",
        "Vary",
    ];

    /// The values of [`FIELDS`] on the response, separated by bars.
    fn said(config: serde_json::Value, request: &str) -> String {
        let responded = Trial::of("cors", config).run(request).respond("200");
        FIELDS.map(|name| responded.field(name)).join("|")
    }

    #[test]
    fn allowed_origins_are_told_so_and_others_nothing() {
        let listed = json!({"allow_origins": "http://a.example,http://b.example:81"});
        let by_regex = json!({"allow_origins_by_regex": [".*\\.test\\.com$"]});
        let everything = json!({"allow_origins": "**", "allow_methods": "**", "allow_headers": "**",
            "allow_credential": true, "expose_headers": "X-A,X-B", "max_age": 7, "timing_allow_origins": "**"});
        for (config, origin, expected) in [
            (json!({}), "http://x", "*|*|5|*||||"),
            (listed.clone(), "http://b.example:81", "http://b.example:81|*|5|*||||Origin"),
            (listed.clone(), "http://c.example", "|||||||Origin"),
            (by_regex.clone(), "http://a.test.com", "http://a.test.com|*|5|*||||Origin"),
            (by_regex, "http://a.test.org", "|||||||Origin"),
            (
                everything,
                "http://x",
                "http://x|GET,POST,PUT,DELETE,PATCH,HEAD,OPTIONS,CONNECT,TRACE|7||X-A,X-B|true|http://x|Origin",
            ),
        ] {
            assert_eq!(
                said(config.clone(), &format!("GET /\nOrigin: {origin}")),
                expected,
                "{config} {origin}"
            );
        }
        assert_eq!(said(json!({"allow_origins": "**"}), "GET /"), "*|*|5|*||||Origin");
        assert_eq!(said(listed, "GET /"), "|||||||Origin");
    }

    #[test]
    fn options_are_answered_at_once() {
        let trial = Trial::of("cors", json!({"allow_headers": "**"}));
        let run = trial.run("OPTIONS /\nOrigin: http://x\nAccess-Control-Request-Headers: X-One");
        assert_eq!(run.answered(), "200 ");
        let responded = run.respond("200");
        assert_eq!(responded.field("Access-Control-Allow-Headers"), "X-One");
    }

    #[test]
    fn metadata_names_further_origins() {
        let trial = Trial::with_metadata(
            &json!({"cors": {"allow_origins": "http://a", "allow_origins_by_metadata": ["ours", "none"]}}),
            &json!({"cors": {"allow_origins": {"ours": "http://b,http://c"}}}),
        );
        for (origin, expected) in [("http://a", "http://a"), ("http://c", "http://c"), ("http://d", "")] {
            let responded = trial.run(&format!("GET /\nOrigin: {origin}")).respond("200");
            assert_eq!(responded.field("Access-Control-Allow-Origin"), expected);
        }
    }

    #[test]
    fn credentials_need_lists() {
        assert_eq!(
            refused("cors", &json!({"allow_credential": true, "allow_methods": "GET"})),
            ["/allow_headers", "/allow_origins"]
        );
        assert_eq!(refused("cors", &json!({"allow_origins": "a.example"})), ["/allow_origins"]);
        assert_eq!(refused("cors", &json!({"allow_origins_by_regex": ["("]})), ["/allow_origins_by_regex/0"]);
        assert_eq!(refused("cors", &json!({"allow_origins_by_regex": []})), ["/allow_origins_by_regex"]);
    }
}
