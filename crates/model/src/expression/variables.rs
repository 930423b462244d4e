//! Variables: what expressions, plugins and log formats can read of a request.
//!
//! A name is classified once, when the configuration is parsed, so that a request only reads the place it names.
//! A new variable is a line in [`NAMES`] (or a family in [`FAMILIES`]) and its value in the gateway.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

use crate::limits;

/// A variable, by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "`NAMES` documents each")]
pub enum Variable {
    Uri,
    RequestUri,
    RealRequestUri,
    Host,
    Scheme,
    RequestMethod,
    RemoteAddr,
    RemotePort,
    ServerAddr,
    ServerPort,
    ServerProtocol,
    QueryString,
    IsArgs,
    RequestLength,
    RequestId,
    Hostname,
    SslServerName,
    SslProtocol,
    SslCipher,
    SslClientVerify,
    SslClientSubject,
    SslClientIssuer,
    SslClientSerial,
    Msec,
    TimeIso8601,
    TimeLocal,
    ConsumerName,
    ConsumerGroupId,
    RouteId,
    RouteName,
    ServiceId,
    ServiceName,
    BalancerIp,
    BalancerPort,
    GraphqlName,
    GraphqlOperation,
    GraphqlRootFields,
    /// A request header: its name in lower case, with `-`.
    Http(Box<str>),
    /// A parameter of the query.
    Arg(Box<str>),
    /// A cookie.
    Cookie(Box<str>),
    /// What the path of the matched route captured.
    UriParam(Box<str>),
    /// A field of a form in the body.
    PostArg(Box<str>),
    /// A place in a JSON, form or multipart body: a dotted path or JSONPath.
    PostArgPath(Box<str>),
    /// Any other name; plugins may set it.
    Other(Box<str>),
}

/// A variable with a fixed name.
#[derive(Clone, Debug, Serialize)]
pub struct VariableName {
    /// The name.
    pub name: &'static str,
    /// What it holds.
    pub description: &'static str,
    /// The variable.
    #[serde(skip)]
    pub variable: Variable,
}

/// Variables that share the start of their names.
#[derive(Clone, Debug, Serialize)]
pub struct VariableFamily {
    /// The names, with `*` for the part that varies.
    pub name: &'static str,
    /// What they hold.
    pub description: &'static str,
}

const fn named(name: &'static str, variable: Variable, description: &'static str) -> VariableName {
    VariableName { name, description, variable }
}

/// Every variable with a fixed name.
pub const NAMES: &[VariableName] = &[
    named("uri", Variable::Uri, "path of the request, normalised and decoded, without the query"),
    named("request_uri", Variable::RequestUri, "normalised path and query"),
    named("real_request_uri", Variable::RealRequestUri, "request target exactly as the client sent it"),
    named("host", Variable::Host, "host the request is for, in lower case, without port"),
    named("scheme", Variable::Scheme, "`http` or `https`, as the client connected"),
    named("request_method", Variable::RequestMethod, "request method"),
    named("remote_addr", Variable::RemoteAddr, "IP address of the client"),
    named("remote_port", Variable::RemotePort, "port of the client"),
    named("server_addr", Variable::ServerAddr, "IP address the client connected to"),
    named("server_port", Variable::ServerPort, "port the client connected to"),
    named("server_protocol", Variable::ServerProtocol, "protocol of the request, such as `HTTP/1.1`"),
    named("query_string", Variable::QueryString, "query without `?`, as sent"),
    named("args", Variable::QueryString, "the same as `query_string`"),
    named("is_args", Variable::IsArgs, "`?` if the request has a query, otherwise empty"),
    named("request_length", Variable::RequestLength, "bytes of the request, head and body"),
    named("request_id", Variable::RequestId, "id the gateway gave the request"),
    named("hostname", Variable::Hostname, "host name of the gateway instance"),
    named(
        "ssl_server_name",
        Variable::SslServerName,
        "server name the client asked for in its TLS handshake",
    ),
    named("ssl_protocol", Variable::SslProtocol, "TLS version of the client's connection"),
    named("ssl_cipher", Variable::SslCipher, "cipher suite of the client's connection"),
    named(
        "ssl_client_verify",
        Variable::SslClientVerify,
        "`SUCCESS`, `NONE` without a client certificate, or `FAILED:` and the reason",
    ),
    named("ssl_client_s_dn", Variable::SslClientSubject, "whom the client's certificate is about (RFC 4514)"),
    named("ssl_client_i_dn", Variable::SslClientIssuer, "who issued the client's certificate (RFC 4514)"),
    named(
        "ssl_client_serial",
        Variable::SslClientSerial,
        "serial number of the client's certificate, in hex",
    ),
    named("msec", Variable::Msec, "current time in seconds since 1970, with milliseconds"),
    named("time_iso8601", Variable::TimeIso8601, "current time in the ISO 8601 format"),
    named("time_local", Variable::TimeLocal, "current time in the common log format"),
    named("consumer_name", Variable::ConsumerName, "name of the consumer, once one is authenticated"),
    named("consumer_group_id", Variable::ConsumerGroupId, "id of the consumer's group"),
    named("route_id", Variable::RouteId, "id of the matched route"),
    named("route_name", Variable::RouteName, "name of the matched route"),
    named("service_id", Variable::ServiceId, "id of the service of the matched route"),
    named("service_name", Variable::ServiceName, "name of the service of the matched route"),
    named("balancer_ip", Variable::BalancerIp, "address of the chosen node"),
    named("balancer_port", Variable::BalancerPort, "port of the chosen node"),
    named("graphql_name", Variable::GraphqlName, "name of the first operation of a GraphQL request"),
    named("graphql_operation", Variable::GraphqlOperation, "its kind: `query`, `mutation` or `subscription`"),
    named("graphql_root_fields", Variable::GraphqlRootFields, "its top-level fields, as a list"),
];

/// Every family of variables.
pub const FAMILIES: &[VariableFamily] = &[
    VariableFamily {
        name: "http_*",
        description: "request header of that name, `_` for `-`; repeated ones are joined with `, `",
    },
    VariableFamily {
        name: "arg_*",
        description: "first query parameter of that name, decoded; `true` if it is written without `=`",
    },
    VariableFamily { name: "cookie_*", description: "cookie of that name, case-sensitive" },
    VariableFamily {
        name: "uri_param_*",
        description: "what the matched path captured under that name; `:ext` for a star without a name; missing while routes are being matched",
    },
    VariableFamily { name: "post_arg_*", description: "first form field of that name in the body" },
    VariableFamily {
        name: "post_arg.*",
        description: "value in a JSON, form or multipart body, by dotted path or JSONPath (then a list)",
    },
];

/// Makes the variable of a family out of the part of the name that varies.
type FamilyMember = fn(Box<str>) -> Variable;

impl Variable {
    /// The variable called `name`; every name is one.
    #[must_use]
    pub fn of(name: &str) -> Self {
        if let Some(found) = NAMES.iter().find(|candidate| candidate.name == name) {
            return found.variable.clone();
        }
        match name {
            "content_type" | "content_length" => return Self::Http(name.replace('_', "-").into()),
            _ => {}
        }
        if let Some(header) = name.strip_prefix("http_") {
            return Self::Http(header.to_ascii_lowercase().replace('_', "-").into());
        }
        let families: [(&str, FamilyMember); 5] = [
            ("arg_", Self::Arg),
            ("cookie_", Self::Cookie),
            ("uri_param_", Self::UriParam),
            ("post_arg_", Self::PostArg),
            ("post_arg.", Self::PostArgPath),
        ];
        let member =
            families.iter().find_map(|(start, family)| Some(family(name.strip_prefix(start)?.into())));
        member.unwrap_or_else(|| Self::Other(name.into()))
    }

    /// Whether `name` is short enough to be one.
    #[must_use]
    pub fn is_name(name: &str) -> bool {
        !name.is_empty() && name.len() <= limits::VARIABLE_NAME_LENGTH_MAX
    }

    /// Whether reading it needs the body of the request.
    #[must_use]
    pub fn needs_body(&self) -> bool {
        matches!(
            self,
            Self::PostArg(_)
                | Self::PostArgPath(_)
                | Self::GraphqlName
                | Self::GraphqlOperation
                | Self::GraphqlRootFields
        )
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(name) => write!(f, "http_{}", name.replace('-', "_")),
            Self::Arg(name) => write!(f, "arg_{name}"),
            Self::Cookie(name) => write!(f, "cookie_{name}"),
            Self::UriParam(name) => write!(f, "uri_param_{name}"),
            Self::PostArg(name) => write!(f, "post_arg_{name}"),
            Self::PostArgPath(name) => write!(f, "post_arg.{name}"),
            Self::Other(name) => f.write_str(name),
            fixed => {
                let found = NAMES.iter().find(|candidate| candidate.variable == *fixed);
                f.write_str(found.map_or("", |candidate| candidate.name))
            }
        }
    }
}

/// The value of a variable.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Value<'a> {
    /// Bytes of any encoding.
    Text(Cow<'a, [u8]>),
    Number(f64),
    Bool(bool),
    List(Vec<Value<'a>>),
    /// A JSON object: present, and equal to nothing.
    Object,
}

impl<'a> Value<'a> {
    /// Text, without a copy.
    #[must_use]
    pub fn text(bytes: &'a [u8]) -> Self {
        Self::Text(Cow::Borrowed(bytes))
    }

    /// The value, independent of what it was read from.
    #[must_use]
    pub fn into_owned<'o>(self) -> Value<'o> {
        match self {
            Self::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Self::Number(number) => Value::Number(number),
            Self::Bool(truth) => Value::Bool(truth),
            Self::List(items) => Value::List(items.into_iter().map(Value::into_owned).collect()),
            Self::Object => Value::Object,
        }
    }

    /// The value a JSON document stands for; `null` is no value.
    #[must_use]
    pub fn from_json(json: &'a serde_json::Value) -> Option<Self> {
        Some(match json {
            serde_json::Value::Null => return None,
            serde_json::Value::Bool(truth) => Self::Bool(*truth),
            serde_json::Value::Number(number) => Self::Number(number.as_f64()?),
            serde_json::Value::String(text) => Self::text(text.as_bytes()),
            serde_json::Value::Array(items) => Self::List(items.iter().filter_map(Self::from_json).collect()),
            serde_json::Value::Object(_) => Self::Object,
        })
    }
}

/// Where the values of variables come from.
pub trait Variables {
    /// The value of `variable`; `None`: it is missing.
    fn get<'a>(&'a self, variable: &Variable) -> Option<Value<'a>>;
}

/// Variables given by name, as test cases and `explain` give them.
#[derive(Clone, Debug, Default)]
pub struct NamedVariables(std::collections::HashMap<Variable, serde_json::Value>);

impl NamedVariables {
    /// The variables in `object`.
    #[must_use]
    pub fn new(object: &serde_json::Map<String, serde_json::Value>) -> Self {
        Self(object.iter().map(|(name, value)| (Variable::of(name), value.clone())).collect())
    }

    /// Whether `variable` is among them, if only as missing (`null`).
    #[must_use]
    pub fn says(&self, variable: &Variable) -> bool {
        self.0.contains_key(variable)
    }
}

impl Variables for NamedVariables {
    fn get<'a>(&'a self, variable: &Variable) -> Option<Value<'a>> {
        self.0.get(variable).and_then(Value::from_json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_name_is_classified_and_written_back() {
        for name in NAMES {
            let variable = Variable::of(name.name);
            assert!(!matches!(variable, Variable::Other(_)), "{}", name.name);
            assert_eq!(Variable::of(&variable.to_string()), variable);
        }
        for family in FAMILIES {
            let variable = Variable::of(&family.name.replace('*', "x_y"));
            assert!(!matches!(variable, Variable::Other(_)), "{}", family.name);
            assert_eq!(Variable::of(&variable.to_string()), variable);
        }
    }

    #[test]
    fn header_names_are_folded_and_other_names_kept() {
        assert_eq!(Variable::of("http_X_Real_Ip"), Variable::Http("x-real-ip".into()));
        assert_eq!(Variable::of("content_type"), Variable::Http("content-type".into()));
        assert_eq!(Variable::of("arg_Foo"), Variable::Arg("Foo".into()));
        assert_eq!(Variable::of("post_arg.a.b[*]"), Variable::PostArgPath("a.b[*]".into()));
        assert_eq!(Variable::of("anything"), Variable::Other("anything".into()));
    }
}
