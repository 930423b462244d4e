//! Plugins on streams: which kinds work on a connection that carries no request, and what of their configurations means
//! nothing there.
//!
//! A plugin that works on streams looks at addresses, counts, chooses an upstream, or tells of what is over. Whatever it
//! could only do with a request is refused when it is written, by name: nothing is skipped silently.

use gatewright_model::resource::Plugins;
use gatewright_model::resource::service::ServiceKind;
use gatewright_model::resource::upstream::Upstream;
use gatewright_model::snapshot::PublishedService;
use gatewright_model::stream::check::check_upstream;
use gatewright_model::stream::claim::Carrier;
use gatewright_model::validation::Violations;
use serde_json::{Value, json};

use crate::{ALL, is_known};

/// The kinds that work on streams.
const WORKING: &[&str] = &[
    "ip-restriction",
    "limit-conn",
    "traffic-split",
    "prometheus",
    "http-logger",
    "tcp-logger",
    "kafka-logger",
    "syslog",
    "udp-logger",
    "file-logger",
];

/// Members of loggers that ask for something of a request, and the value that asks for it.
const OF_REQUESTS: &[(&str, Value)] =
    &[("include_req_body", Value::Bool(true)), ("include_resp_body", Value::Bool(true))];

/// Whether the plugin called `name` works on streams.
#[must_use]
pub fn works(name: &str) -> bool {
    WORKING.contains(&name)
}

/// Everything about `config`, of the plugin called `name`, that does not apply to a stream which comes by `carrier`, as far
/// as that is known; each with its JSON path in `config`. That this release has the plugin, and that it accepts the
/// configuration, is not asked here.
#[must_use]
pub fn check(name: &str, config: &Value, carrier: Option<Carrier>) -> Violations {
    let mut violations = Violations::default();
    if !works(name) {
        if is_known(name) {
            let working: Vec<_> = ALL.iter().map(|kind| kind.name).filter(|name| works(name)).collect();
            let message = format!(
                "plugin `{name}` works on requests, which a stream has none of; remove it, or take one that works on \
                 streams: {}",
                working.join(", ")
            );
            violations.add("", message);
        }
        return violations;
    }
    for (member, asking) in OF_REQUESTS {
        if config.get(member) == Some(asking) {
            let message = format!("plugin `{name}`: a stream has no bodies; remove it");
            violations.add(format!("/{member}"), message);
        }
    }
    if config.get("meta_format") == Some(&json!("origin")) {
        let message =
            format!("plugin `{name}`: a stream is no request that could be written as it came; remove it");
        violations.add("/meta_format", message);
    }
    if name == "traffic-split" {
        check_split(config, carrier, &mut violations);
    }
    violations
}

/// The same for all plugins of a published service, if it is one of streams, each with its JSON path in the service.
pub fn check_published(service: &PublishedService, violations: &mut Violations) {
    if service.kind != ServiceKind::Stream {
        return;
    }
    let carrier = Carrier::of(service.runtime.upstream.scheme);
    let mut check_all = |plugins: &Plugins, at: &str| {
        for (name, config) in plugins {
            violations.absorb(&format!("{at}/plugins/{name}"), check(name, config, carrier));
        }
    };
    check_all(&service.plugins, "");
    for (index, route) in service.stream_routes.iter().enumerate() {
        check_all(&route.route.plugins, &format!("/stream_routes/{index}"));
    }
}

/// Refuses upstreams written out in `traffic-split` that no stream can go to.
fn check_split(config: &Value, carrier: Option<Carrier>, violations: &mut Violations) {
    let items = |value: &Value, member: &str| {
        value.get(member).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    for (rule, config) in items(config, "rules").iter().enumerate() {
        for (entry, config) in items(config, "weighted_upstreams").iter().enumerate() {
            let written = config.get("upstream").cloned().map(serde_json::from_value::<Upstream>);
            let Some(Ok(upstream)) = written else { continue };
            let at = format!("/rules/{rule}/weighted_upstreams/{entry}/upstream");
            check_upstream(&upstream, &at, violations);
            gatewright_model::stream::check::check_carrier(&upstream, carrier, &at, violations);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str, config: Value) -> Vec<(String, String)> {
        let found = check(name, &config, Some(Carrier::Tcp));
        found.iter().map(|wrong| (wrong.path.clone(), wrong.message.clone())).collect()
    }

    #[test]
    fn what_works_on_requests_alone_is_refused_with_what_works_on_streams() {
        let all = refused("key-auth", json!({}));
        let [(path, message)] = &*all else { panic!("{all:?}") };
        assert_eq!(path, "");
        assert!(message.starts_with("plugin `key-auth` works on requests"), "{message}");
        assert!(message.contains("ip-restriction, limit-conn, traffic-split, prometheus, "), "{message}");
        assert_eq!(message.contains("kafka-logger"), cfg!(feature = "kafka"));
        assert!(refused("no-such-plugin", json!({})).is_empty(), "others say that it is unknown");
    }

    #[test]
    fn every_kind_that_works_on_streams_is_there() {
        for name in WORKING.iter().filter(|name| cfg!(feature = "kafka") || **name != "kafka-logger") {
            assert!(is_known(name), "{name}");
        }
    }

    #[test]
    fn what_only_a_request_has_is_refused_by_name() {
        let split = |upstream: Value| json!({"rules": [{"weighted_upstreams": [{"weight": 1}, {"upstream": upstream}]}]});
        let nodes = json!({"127.0.0.1:1": 1});
        let at = "/rules/0/weighted_upstreams/1/upstream";
        for (name, config, paths) in [
            ("ip-restriction", json!({"whitelist": ["::1"]}), vec![]),
            ("tcp-logger", json!({"include_req_body": false}), vec![]),
            ("tcp-logger", json!({"include_req_body": true}), vec!["/include_req_body".to_owned()]),
            ("file-logger", json!({"include_resp_body": true}), vec!["/include_resp_body".to_owned()]),
            ("kafka-logger", json!({"meta_format": "origin"}), vec!["/meta_format".to_owned()]),
            ("kafka-logger", json!({"meta_format": "default"}), vec![]),
            ("traffic-split", split(json!({"nodes": nodes})), vec![]),
            ("traffic-split", split(json!({"scheme": "tls", "nodes": nodes})), vec![]),
            ("traffic-split", split(json!({"scheme": "udp", "nodes": nodes})), vec![format!("{at}/scheme")]),
            ("traffic-split", split(json!({"scheme": "grpc", "nodes": nodes})), vec![format!("{at}/scheme")]),
            (
                "traffic-split",
                split(json!({"retry_statuses": [503], "nodes": nodes})),
                vec![format!("{at}/retry_statuses")],
            ),
        ] {
            let found: Vec<_> = refused(name, config.clone()).into_iter().map(|(path, _)| path).collect();
            assert_eq!(found, paths, "{name} {config}");
        }
    }
}
