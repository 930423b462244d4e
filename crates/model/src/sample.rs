//! Sampled request heads: what gateways keep of a few requests, so that a preview can ask what would become of them.
//!
//! Never kept: bodies, and whatever may be a secret. Of header fields and of the query only what the group names is
//! kept, and names that secrets travel under cannot be named.
//! A gateway sends what it has sampled to [`SAMPLES_PATH`] as [`Samples`] and is answered [`Sampled`]: how it is to
//! sample, and which head is wanted next. A control plane that has forgotten them is so sent all that are still kept.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::id::{InstanceId, RouteId, ServiceId};
use crate::rehearsal::RehearsedRequest;
use crate::validation::Violations;

/// Where a control plane takes sampled heads.
pub const SAMPLES_PATH: &str = "/sync/v1/samples";

/// Bytes of one sending that a control plane accepts.
pub const SAMPLES_BYTES_MAX: usize = 1 << 20;

/// Heads in one sending; the rest follows at once.
pub const HEADS_PER_SENDING_MAX: usize = 200;

/// Heads that one instance keeps at most.
pub const HEADS_KEPT_MAX: u32 = 10_000;

/// Bytes of a method, a host, the name of a header field or a parameter.
const NAME_BYTES_MAX: usize = 255;

/// Bytes of a path that is sampled; longer ones are attacks more often than not.
const PATH_BYTES_MAX: usize = 2048;

/// Bytes of a value that is sampled; a longer one is left out.
const VALUE_BYTES_MAX: usize = 256;

/// Header fields, and parameters of the query, that a group may have sampled.
const CHOSEN_MAX: usize = 16;

/// How the gateways of a group sample requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingSettings {
    /// Heads that each instance samples in a second at most; 0: none.
    #[schema(maximum = 100, default = 10)]
    pub heads_per_second: u16,
    /// Heads that each instance keeps; newer ones take the place of older ones.
    #[schema(minimum = 1, maximum = 10000, default = 1000)]
    pub kept: u32,
    /// Seconds after which a head is forgotten.
    #[schema(minimum = 60, maximum = 604800, default = 3600)]
    pub retention: u32,
    /// Header fields whose values are sampled, in lower case; conditions of routes may read them.
    #[schema(max_items = 16)]
    pub headers: Vec<String>,
    /// Parameters of the query whose values are sampled.
    #[schema(max_items = 16)]
    pub arguments: Vec<String>,
}

impl Default for SamplingSettings {
    fn default() -> Self {
        Self { heads_per_second: 10, kept: 1000, retention: 3600, headers: Vec::new(), arguments: Vec::new() }
    }
}

/// What names are made of that secrets travel under.
const SECRET_PARTS: [&str; 13] = [
    "auth",
    "token",
    "secret",
    "passw",
    "cookie",
    "session",
    "credential",
    "signature",
    "jwt",
    "apikey",
    "api-key",
    "api_key",
    "key",
];

impl SamplingSettings {
    /// Rules that a schema cannot say: `at` is the JSON path of these settings.
    pub fn check(&self, at: &str, violations: &mut Violations) {
        for (field, names) in [("headers", &self.headers), ("arguments", &self.arguments)] {
            for (index, name) in names.iter().enumerate() {
                let is_header = field == "headers";
                if let Some(message) = wrong(name, is_header) {
                    violations.add(format!("{at}/{field}/{index}"), message);
                }
            }
            if names.len() > CHOSEN_MAX {
                violations.add(format!("{at}/{field}"), format!("maximum number of items is {CHOSEN_MAX}"));
            }
        }
    }
}

fn wrong(name: &str, is_header: bool) -> Option<String> {
    let is_token = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    let is_plain = |byte: u8| is_token(byte) || byte.is_ascii_uppercase() || b".~".contains(&byte);
    let fits = |byte| if is_header { is_token(byte) } else { is_plain(byte) };
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(fits) {
        let form = if is_header { "lower-case letters" } else { "letters" };
        return Some(format!("a name has 1 to {NAME_BYTES_MAX} {form}, digits, `-` and `_`"));
    }
    may_be_secret(name).then(|| format!("`{name}` may carry a secret, and secrets are never sampled"))
}

fn may_be_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_PARTS.iter().any(|part| name.contains(part))
}

/// The head of a request that came, as far as it is sampled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SampledHead {
    /// The method.
    pub method: String,
    /// The host, perhaps with a port.
    pub host: String,
    /// The request target as the client wrote it, with what is sampled of the query.
    pub path: String,
    /// The header fields that are sampled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub headers: Vec<(String, String)>,
    /// The service it matched; none: it matched no route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub service_id: Option<ServiceId>,
    /// The route it matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub route_id: Option<RouteId>,
    /// What it was answered.
    pub status: u16,
}

impl SampledHead {
    /// What `settings` let be kept of a request; none: nothing.
    ///
    /// `target` is the request target as written, `field` gives the values of a header field.
    pub fn of<'v, F: Iterator<Item = &'v [u8]>>(
        settings: &'v SamplingSettings,
        (method, authority, target): (&'v [u8], &'v [u8], &'v [u8]),
        field: impl Fn(&'v str) -> F,
    ) -> Option<Self> {
        let text =
            |bytes: &'v [u8], max: usize| std::str::from_utf8(bytes).ok().filter(|text| text.len() <= max);
        let target = text(target, PATH_BYTES_MAX + NAME_BYTES_MAX)?;
        // What follows `#` says nothing to anybody but the client.
        let target = target.split_once('#').map_or(target, |(target, _)| target);
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let mut path = text(path.as_bytes(), PATH_BYTES_MAX)?.to_owned();
        // An absolute target may name a user.
        if path.contains('@') && !path.starts_with('/') {
            return None;
        }
        if let Some(query) =
            query.map(|query| chosen(query, &settings.arguments)).filter(|query| !query.is_empty())
        {
            path.push('?');
            path.push_str(&query);
        }
        let mut headers = Vec::new();
        for name in settings.headers.iter().filter(|name| !may_be_secret(name)) {
            let values = field(name).filter_map(|value| text(value, VALUE_BYTES_MAX));
            headers.extend(values.map(|value| (name.clone(), value.to_owned())));
        }
        headers.truncate(CHOSEN_MAX);
        Some(Self {
            method: text(method, NAME_BYTES_MAX)?.to_owned(),
            host: text(authority, NAME_BYTES_MAX)?.to_owned(),
            path,
            headers,
            ..Self::default()
        })
    }

    /// The request to rehearse.
    #[must_use]
    pub fn request(&self) -> RehearsedRequest {
        let mut headers = Map::new();
        for (name, value) in &self.headers {
            let values = headers.entry(name.clone()).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(values) = values {
                values.push(Value::from(value.as_str()));
            }
        }
        RehearsedRequest {
            method: Some(self.method.clone()),
            host: Some(self.host.clone()).filter(|host| !host.is_empty()),
            uri: self.path.clone(),
            headers,
            ..RehearsedRequest::default()
        }
    }

    fn is_too_large(&self) -> bool {
        let is_long = |text: &str, max: usize| text.len() > max;
        is_long(&self.method, NAME_BYTES_MAX)
            || is_long(&self.host, NAME_BYTES_MAX)
            || is_long(&self.path, PATH_BYTES_MAX + NAME_BYTES_MAX)
            || self.headers.len() > CHOSEN_MAX
            || self
                .headers
                .iter()
                .any(|(name, value)| is_long(name, NAME_BYTES_MAX) || is_long(value, VALUE_BYTES_MAX))
    }
}

/// The parameters of `query` that are called like one of `names`, as they are written.
fn chosen(query: &str, names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let is_chosen = |pair: &&str| {
        let name = pair.split_once('=').map_or(*pair, |(name, _)| name);
        names.iter().any(|chosen| chosen == name) && !may_be_secret(name)
    };
    let pairs: Vec<&str> = query.split('&').filter(is_chosen).take(CHOSEN_MAX).collect();
    let pairs = pairs.join("&");
    if pairs.len() > VALUE_BYTES_MAX { String::new() } else { pairs }
}

/// Heads that an instance has sampled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Samples {
    /// The instance.
    pub instance_id: InstanceId,
    /// The life of the process, in which heads are numbered from 0.
    pub life: u64,
    /// The number of the first of `heads`.
    pub first: u64,
    /// The heads, oldest first.
    pub heads: Vec<AgedHead>,
}

/// A head that was sampled some time ago.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgedHead {
    /// Seconds since the request came: clocks of two machines seldom agree.
    pub age: u32,
    /// The head.
    #[serde(flatten)]
    pub head: SampledHead,
}

impl Samples {
    /// What is wrong with it, if anything: a gateway must not be able to fill a control plane with garbage.
    #[must_use]
    pub fn complaint(&self) -> Option<&'static str> {
        if self.heads.len() > HEADS_PER_SENDING_MAX {
            return Some("there are more than 200 heads");
        }
        let is_too_large = self.heads.iter().any(|aged| aged.head.is_too_large());
        is_too_large.then_some("a head is larger than what is sampled")
    }
}

/// The answer to [`Samples`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sampled {
    /// How to sample from now on.
    pub settings: SamplingSettings,
    /// The number of the head that is wanted next.
    pub next: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(headers: &[&str], arguments: &[&str]) -> SamplingSettings {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        SamplingSettings {
            headers: owned(headers),
            arguments: owned(arguments),
            ..SamplingSettings::default()
        }
    }

    fn sampled(settings: &SamplingSettings, target: &str, fields: &[(&str, &str)]) -> Option<SampledHead> {
        SampledHead::of(settings, (b"GET", b"a.example:80", target.as_bytes()), |name| {
            fields.iter().filter(move |(field, _)| *field == name).map(|(_, value)| value.as_bytes())
        })
    }

    #[test]
    fn of_the_query_and_the_fields_only_what_is_named_is_kept() {
        let settings = settings(&["x-team", "x-version"], &["v"]);
        let fields = [("x-team", "a"), ("x-team", "b"), ("cookie", "c"), ("authorization", "d")];
        for (target, kept) in [
            ("/a%2Fb", Some("/a%2Fb")),
            ("/a?code=1", Some("/a")),
            ("/a?v=1&code=2&v=3#f", Some("/a?v=1&v=3")),
            ("http://b.example/x?v", Some("http://b.example/x?v")),
            ("http://user:word@b.example/x", None),
            ("/@x", Some("/@x")),
            (&format!("/{}", "x".repeat(PATH_BYTES_MAX)), None),
        ] {
            assert_eq!(
                sampled(&settings, target, &fields).map(|head| head.path).as_deref(),
                kept,
                "{target}"
            );
        }
        let head = sampled(&settings, "/", &fields).unwrap();
        let team = |value: &str| ("x-team".to_owned(), value.to_owned());
        assert_eq!(head.headers, [team("a"), team("b")]);
        let request = head.request();
        assert_eq!(request.headers["x-team"], serde_json::json!(["a", "b"]));
        assert_eq!(request.host.as_deref(), Some("a.example:80"));
    }

    #[test]
    fn what_may_be_a_secret_cannot_be_named_and_is_not_kept_if_it_is() {
        for name in
            ["authorization", "cookie", "x-api-key", "proxy-authorization", "x-session-id", "x-csrf-token"]
        {
            let settings = settings(&[name], &[name]);
            let mut violations = Violations::default();
            settings.check("/sampling", &mut violations);
            let paths: Vec<_> = violations.iter().map(|violation| violation.path.as_str()).collect();
            assert_eq!(paths, ["/sampling/headers/0", "/sampling/arguments/0"], "{name}");
            let head = sampled(&settings, &format!("/?{name}=s"), &[(name, "s")]).unwrap();
            assert_eq!((head.path.as_str(), head.headers.len()), ("/", 0), "{name}");
        }
        for (header, is_right) in [("x-team", true), ("X-Team", false), ("", false), ("a b", false)] {
            let mut violations = Violations::default();
            settings(&[header], &[]).check("", &mut violations);
            assert_eq!(violations.is_empty(), is_right, "{header}");
        }
    }

    #[test]
    fn what_is_larger_than_a_sample_is_not_taken() {
        let samples = |count: usize, path: usize| Samples {
            instance_id: "i".parse().unwrap(),
            life: 1,
            first: 0,
            heads: vec![
                AgedHead {
                    age: 0,
                    head: SampledHead { path: "x".repeat(path), ..SampledHead::default() }
                };
                count
            ],
        };
        assert_eq!(samples(HEADS_PER_SENDING_MAX, 100).complaint(), None);
        assert!(samples(HEADS_PER_SENDING_MAX + 1, 1).complaint().is_some());
        assert!(samples(1, PATH_BYTES_MAX + NAME_BYTES_MAX + 1).complaint().is_some());
    }
}
