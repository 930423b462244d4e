//! Which conflicts are found among services, and that looking at few of them finds the same.

use serde_json::json;

use super::*;

/// Service, host, path, methods, priority.
type Entry<'a> = (&'a str, Option<&'a str>, &'a str, &'a [&'a str], i64);

/// One service per entry: id, host (or none), path, methods, priority.
fn services(entries: &[Entry<'_>]) -> Vec<PublishedService> {
    let of = |(id, host, path, methods, priority): &(&str, Option<&str>, &str, &[&str], i64)| {
        let hosts: Vec<_> = host.iter().collect();
        serde_json::from_value(json!({
            "service_id": id, "service_version_id": "v", "version": "1", "name": id, "type": "http", "hosts": hosts,
            "strip_path_prefix": true, "upstream": {}, "status": 1,
            "routes": [{"route_id": "r", "name": "r", "paths": [path], "methods": methods, "priority": priority}]
        }))
        .expect("a published service")
    };
    entries.iter().map(of).collect()
}

/// `kind winner > loser` of everything found, sorted.
fn check(settings: MatchSettings, entries: &[Entry<'_>]) -> Vec<String> {
    let found = analyse(&services(entries), settings);
    assert!(!found.truncated);
    let name = |place: &RoutePlace| place.service_id.clone();
    let line = |conflict: &Conflict| {
        let winner = conflict.winner.as_ref().map_or("-".to_owned(), name);
        format!("{:?} {winner} > {}", conflict.kind, name(&conflict.loser))
    };
    let mut lines: Vec<_> = found.conflicts.iter().map(line).collect();
    lines.sort();
    lines
}

const HOST_FIRST: MatchSettings = MatchSettings { order: MatchOrder::HostFirst, path_parameters: true };
const PATH_FIRST: MatchSettings = MatchSettings { order: MatchOrder::PathFirst, path_parameters: true };

#[test]
fn equal_routes_are_duplicates_and_the_lower_id_wins() {
    let found = check(HOST_FIRST, &[("b", None, "/x", &[], 0), ("a", None, "/x", &[], 0)]);
    assert_eq!(found, ["Duplicate a > b", "Unreachable a > b"]);
    let found = check(HOST_FIRST, &[("b", None, "/:x", &["GET"], 1), ("a", None, "/:y", &["GET"], 0)]);
    assert_eq!(found, ["Duplicate b > a", "Unreachable b > a"]);
}

#[test]
fn what_concerns_a_service_is_found_without_looking_at_those_far_away() {
    let hosts = [None, Some("a.com"), Some("*.com"), Some("b.org"), Some("*b.org")];
    let paths = ["/*", "/x", "/x/*", "/x/y", "/z"];
    let prefixes = [None, Some("/x"), Some("/x/y"), Some("/w")];
    // Every service differs from its neighbours in several ways, and all ways meet.
    let mut entries: Vec<PublishedService> = Vec::new();
    for number in 0..60_usize {
        let (id, host) = (format!("s{number}"), hosts[number % hosts.len()]);
        let path = paths[number / 3 % paths.len()];
        let mut service = services(&[(&id, host, path, &[], (number % 2).try_into().expect("small"))]);
        service[0].runtime.path_prefix = prefixes[number / 7 % prefixes.len()].map(str::to_owned);
        entries.append(&mut service);
    }
    let reaches: Vec<_> = entries.iter().map(Reach::of).collect();
    let all = analyse(&entries, HOST_FIRST);
    let mut seen = 0;
    for service in &entries {
        let touched = BTreeSet::from([service.service_id.clone()]);
        let mut expected = all.conflicts.clone();
        expected.retain(|conflict| conflict.concerns(&service.service_id));
        let found = analyse_about(entries.iter().zip(&reaches), HOST_FIRST, &touched);
        assert_eq!(found.conflicts, expected, "{}", service.service_id);
        seen += expected.len();
    }
    assert!(seen > 60, "{seen}");
}

#[test]
fn of_many_services_behind_their_own_prefixes_or_hosts_only_one_is_looked_at() {
    let behind = |prefix: fn(usize) -> Option<String>, host: fn(usize) -> Option<String>| {
        let services = (0..200_usize).flat_map(|number| {
            let (id, host) = (format!("s{number}"), host(number));
            let mut service = services(&[(&id, host.as_deref(), "/items/:id", &[], 0)]);
            service[0].runtime.path_prefix = prefix(number);
            service
        });
        services.collect::<Vec<_>>()
    };
    let one_host = behind(|number| Some(format!("/team-{number}")), |_| Some("api.example".to_owned()));
    let own_hosts = behind(|_| None, |number| Some(format!("team-{number}.example")));
    let alike = behind(|_| None, |_| None);
    for (services, expected) in [(one_host, 1), (own_hosts, 1), (alike, 200)] {
        let reaches: Vec<_> = services.iter().map(Reach::of).collect();
        let reached: Vec<_> = services.iter().zip(&reaches).collect();
        let touched = BTreeSet::from(["s1".parse().unwrap()]);
        assert_eq!(reach::around(&reached, &touched).len(), expected);
    }
}

#[test]
fn routes_that_share_no_request_are_no_conflict() {
    let other_methods = [("a", None, "/x", &["GET"][..], 0), ("b", None, "/x", &["POST"], 0)];
    assert_eq!(check(HOST_FIRST, &other_methods), [""; 0]);
    let other_hosts = [("a", Some("a.com"), "/x", &[][..], 0), ("b", Some("b.com"), "/x", &[], 0)];
    assert_eq!(check(HOST_FIRST, &other_hosts), [""; 0]);
}

#[test]
fn a_wider_path_overlaps_and_the_more_specific_one_wins() {
    let paths = [("a", None, "/x/*", &[][..], 9), ("b", None, "/x/y", &[], 0)];
    assert_eq!(check(HOST_FIRST, &paths), ["Overlapping b > a"]);
    let hosts = [("a", Some("*.com"), "/x", &[][..], 9), ("b", Some("b.com"), "/x", &[], 0)];
    assert_eq!(check(HOST_FIRST, &hosts), ["Overlapping b > a"]);
}

#[test]
fn a_wider_route_that_comes_first_shadows_the_narrower_one() {
    let longer = [("a", None, "/u/*rest", &[][..], 0), ("b", None, "/u/:id", &["GET"], 0)];
    assert_eq!(check(HOST_FIRST, &longer), ["Shadowed a > b", "Unreachable a > b"]);
    let hosts = [("a", None, "/x", &[][..], 9), ("b", Some("b.com"), "/x", &[], 0)];
    assert_eq!(check(PATH_FIRST, &hosts), ["Shadowed a > b", "Unreachable a > b"]);
}

#[test]
fn a_path_that_no_request_can_have_is_unreachable() {
    let found = check(HOST_FIRST, &[("a", None, "/x//y", &[], 0), ("b", None, "/x/../*", &[], 0)]);
    assert_eq!(found, ["Unreachable - > a", "Unreachable - > b"]);
}

#[test]
fn partly_shared_methods_overlap() {
    let found = check(HOST_FIRST, &[("a", None, "/x", &["GET"], 0), ("b", None, "/x", &["GET", "POST"], 0)]);
    assert_eq!(found, ["Overlapping a > b"]);
}
