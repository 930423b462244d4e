//! What a service of one type must not say, because only the other type means something by it.

use crate::lifecycle::RuntimeConfiguration;
use crate::resource::service::ServiceKind;
use crate::resource::stream_route::{StreamRoute, StreamTls};
use crate::resource::upstream::{HashOn, Scheme, Upstream};
use crate::snapshot::PublishedService;
use crate::stream::claim::Carrier;
use crate::validation::Violations;

/// The variables that consistent hashing can read of a stream.
const HASHED: [&str; 5] = ["remote_addr", "remote_port", "server_addr", "server_port", "server_name"];

/// Refuses what does not apply to a published service, its stream routes included.
pub fn check_published(service: &PublishedService, violations: &mut Violations) {
    check(service.kind, &service.runtime, "", violations);
    if service.kind != ServiceKind::Stream {
        return;
    }
    let carrier = Carrier::of(service.runtime.upstream.scheme);
    for (id, upstream) in &service.upstreams {
        let at = format!("/upstreams/{id}");
        check_upstream(upstream, &at, violations);
        check_carrier(upstream, carrier, &at, violations);
    }
    for (index, route) in service.stream_routes.iter().enumerate() {
        check_route(&route.route, carrier, &format!("/stream_routes/{index}"), violations);
    }
}

/// Refuses what a stream route must not say of streams that come by `carrier`.
pub fn check_route(route: &StreamRoute, carrier: Option<Carrier>, at: &str, violations: &mut Violations) {
    if carrier != Some(Carrier::Udp) {
        return;
    }
    if route.tls != StreamTls::Off {
        violations.add(format!("{at}/tls"), "there is no TLS over udp; remove it or take another scheme");
    }
    if route.proxy_protocol.is_some() {
        let message = "is about connections, which udp has none of; remove it";
        violations.add(format!("{at}/proxy_protocol"), message);
    }
}

/// Refuses what does not apply to a service of this type: `at` is the JSON path of `runtime`.
pub fn check(kind: ServiceKind, runtime: &RuntimeConfiguration, at: &str, violations: &mut Violations) {
    match kind {
        ServiceKind::Http => check_http(&runtime.upstream, at, violations),
        ServiceKind::Stream => {
            let mut refuse = |field: &str| {
                let message =
                    format!("a service of type stream has no {field}; its stream routes say what it takes");
                violations.add(format!("{at}/{field}"), message);
            };
            if !runtime.hosts.is_empty() {
                refuse("hosts");
            }
            if runtime.path_prefix.is_some() {
                refuse("path_prefix");
            }
            if runtime.forward_raw_path {
                refuse("forward_raw_path");
            }
            check_upstream(&runtime.upstream, &format!("{at}/upstream"), violations);
        }
    }
}

fn check_http(upstream: &Upstream, at: &str, violations: &mut Violations) {
    if upstream.scheme.is_stream() {
        let message = "works at layer 4; a service of type http takes http, https, grpc or grpcs, and one of type \
            stream this one";
        violations.add(format!("{at}/upstream/scheme"), message);
    }
}

/// Refuses what does not apply to the upstream of a stream.
pub fn check_upstream(upstream: &Upstream, at: &str, violations: &mut Violations) {
    if Carrier::of(upstream.scheme).is_none() {
        let message = "works at layer 7; a service of type stream takes tcp, tls or udp";
        violations.add(format!("{at}/scheme"), message);
    }
    for (field, is_empty) in [
        ("retry_statuses", upstream.retry_statuses.is_empty()),
        ("retry_methods", upstream.retry_methods.is_empty()),
    ] {
        if !is_empty {
            violations
                .add(format!("{at}/{field}"), "is about requests, which a stream has none of; remove it");
        }
    }
    let key = upstream.key.as_deref();
    match upstream.hash_on {
        HashOn::Vars => {
            if let Some(key) = key.filter(|key| !HASHED.contains(key)) {
                let message = format!("`{key}` is not known of a stream; take one of {}", HASHED.join(", "));
                violations.add(format!("{at}/key"), message);
            }
        }
        HashOn::VarsCombinations => {}
        HashOn::Header | HashOn::Cookie | HashOn::Consumer => {
            violations.add(format!("{at}/hash_on"), "a stream has no header, cookie or consumer; take vars");
        }
    }
    if upstream.scheme == Scheme::Udp && upstream.tls.is_some() {
        violations.add(format!("{at}/tls"), "there is no TLS over udp; remove it or take the scheme tls");
    }
}

/// Refuses an upstream beside the service's own whose nodes are reached another way than by `carrier`, by which the streams
/// of the service come; none: that is not known.
pub fn check_carrier(upstream: &Upstream, carrier: Option<Carrier>, at: &str, violations: &mut Violations) {
    let (Some(carrier), Some(other)) = (carrier, Carrier::of(upstream.scheme)) else { return };
    if carrier != other {
        let message = format!(
            "nodes are reached by {}, and the streams of the service come by {}, as its own upstream says; take a scheme \
             of the same kind",
            other.name(),
            carrier.name()
        );
        violations.add(format!("{at}/scheme"), message);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn refused(kind: ServiceKind, runtime: Value) -> Vec<String> {
        let mut document = json!({"strip_path_prefix": true, "upstream": {}, "status": 1});
        document.as_object_mut().unwrap().extend(runtime.as_object().unwrap().clone());
        let mut violations = Violations::default();
        check(kind, &serde_json::from_value(document).unwrap(), "", &mut violations);
        violations.iter().map(|violation| violation.path.clone()).collect()
    }

    #[test]
    fn what_means_nothing_at_layer_4_is_refused_by_name() {
        for (runtime, paths) in [
            (json!({}), vec![]),
            (json!({"upstream": {"scheme": "tls", "tls": {}}}), vec![]),
            (json!({"upstream": {"type": "chash", "key": "remote_addr"}}), vec![]),
            (
                json!({"hosts": ["a"], "path_prefix": "/p", "forward_raw_path": true}),
                vec!["/hosts", "/path_prefix", "/forward_raw_path"],
            ),
            (json!({"upstream": {"scheme": "grpc"}}), vec!["/upstream/scheme"]),
            (
                json!({"upstream": {"retry_statuses": [503], "retry_methods": ["GET"]}}),
                vec!["/upstream/retry_statuses", "/upstream/retry_methods"],
            ),
            (json!({"upstream": {"type": "chash", "key": "uri"}}), vec!["/upstream/key"]),
            (
                json!({"upstream": {"type": "chash", "hash_on": "header", "key": "a"}}),
                vec!["/upstream/hash_on"],
            ),
            (json!({"upstream": {"scheme": "udp", "tls": {}}}), vec!["/upstream/tls"]),
        ] {
            assert_eq!(refused(ServiceKind::Stream, runtime.clone()), paths, "{runtime}");
        }
    }

    #[test]
    fn further_upstreams_of_a_stream_are_reached_the_way_it_comes() {
        let refused = |own: &str, further: Value| {
            let document = json!({"service_id": "s", "name": "s", "type": "stream", "routes": [],
                "strip_path_prefix": true, "status": 1, "upstream": {"scheme": own}, "upstreams": {"b": further}});
            let mut violations = Violations::default();
            check_published(&serde_json::from_value(document).unwrap(), &mut violations);
            violations.iter().map(|violation| violation.path.clone()).collect::<Vec<_>>()
        };
        for (own, further, paths) in [
            ("tcp", json!({}), vec![]),
            ("tls", json!({"scheme": "tcp"}), vec![]),
            ("udp", json!({"scheme": "udp"}), vec![]),
            ("udp", json!({}), vec!["/upstreams/b/scheme"]),
            ("tcp", json!({"scheme": "udp"}), vec!["/upstreams/b/scheme"]),
            ("tcp", json!({"scheme": "grpc"}), vec!["/upstreams/b/scheme"]),
            ("tcp", json!({"type": "chash", "key": "uri"}), vec!["/upstreams/b/key"]),
        ] {
            assert_eq!(refused(own, further.clone()), paths, "{own} {further}");
        }
    }

    #[test]
    fn an_http_service_reaches_no_nodes_at_layer_4() {
        assert_eq!(refused(ServiceKind::Http, json!({"upstream": {"scheme": "tcp"}})), ["/upstream/scheme"]);
        assert!(refused(ServiceKind::Http, json!({"hosts": ["a"], "path_prefix": "/p"})).is_empty());
    }
}
