//! A store of any size in a moment, for tests of scale: written by the database itself, row by row alike.
//!
//! Every service has a template with ten routes. Half of the services are published as a version, the others stand in
//! the group without one, with ten routes of their own.

use gatewright_model::id::GatewayGroupId;

use super::database::query;
use super::{Store, StoreError};

/// Routes of every service.
pub(crate) const ROUTES_PER_SERVICE: u32 = 10;

/// Fills `group` of an otherwise unused store with so many services, `s0`, `s1` …; those with an even number have a
/// version.
pub(crate) async fn seed(store: &Store, group: &GatewayGroupId, services: u32) -> Result<(), StoreError> {
    let mut tx = store.write().await?;
    for statement in statements(group.as_str(), services) {
        tx.tx.execute(query(statement)).await?;
    }
    tx.commit_aside().await?;
    store.analyse().await
}

fn statements(group: &str, services: u32) -> Vec<String> {
    let routes = services * ROUTES_PER_SERVICE;
    // Counts i from 0; both databases know this, and neither counts otherwise like the other.
    let numbers = |count: u32| {
        format!("WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {})", count - 1)
    };
    let service = "'s' || CAST(i AS TEXT)";
    let upstream = r#""upstream":{"nodes":[{"host":"10.0.0.1","port":80,"weight":1}]}"#;
    let labels = r#"CASE WHEN i % 100 = 0 THEN '{"team":"red"}' ELSE '{}' END"#;
    let route = format!("(i / {ROUTES_PER_SERVICE})");
    let place = format!("(i % {ROUTES_PER_SERVICE})");
    let route_content = format!(
        r#"'{{"name":"r' || CAST({place} AS TEXT) || '","paths":["/s' || CAST({route} AS TEXT) || '/r' || CAST({place} AS TEXT) || '"]}}'"#
    );
    let of_version = (0..ROUTES_PER_SERVICE).map(|place| {
        format!(r#"{{"route_id":"s' || CAST(i AS TEXT) || '-r{place}","name":"r{place}","paths":["/s' || CAST(i AS TEXT) || '/r{place}"]}}"#)
    });
    let of_version = of_version.collect::<Vec<_>>().join(",");
    vec![
        format!(
            "{} INSERT INTO service_template (id, name, labels, content, created_at, updated_at, created_number, change_number) \
             SELECT {service}, 'service ' || CAST(i AS TEXT), {labels}, \
             '{{\"name\":\"service ' || CAST(i AS TEXT) || '\",{upstream}}}', i, i, i, i FROM n",
            numbers(services)
        ),
        format!(
            "{} INSERT INTO route_template (id, service_id, name, labels, content, created_at, updated_at, created_number, \
             change_number) SELECT 's' || CAST({route} AS TEXT) || '-r' || CAST({place} AS TEXT), \
             's' || CAST({route} AS TEXT), 'r' || CAST({place} AS TEXT), '{{}}', {route_content}, i, i, i, i FROM n",
            numbers(routes)
        ),
        format!(
            "{} INSERT INTO service_version (id, service_id, version, name, labels, content, routes, created_at) \
             SELECT {service} || '-1', {service}, '1', 'service ' || CAST(i AS TEXT), {labels}, '{{\"type\":\"http\"}}', \
             '[{of_version}]', i FROM n WHERE i % 2 = 0",
            numbers(services)
        ),
        format!(
            "{} INSERT INTO published_service (gateway_group_id, service_id, service_version_id, name, labels, content, \
             runtime_configuration, revision, publish_time, created_at, updated_at, created_number, change_number) \
             SELECT '{group}', {service}, CASE WHEN i % 2 = 0 THEN {service} || '-1' END, 'service ' || CAST(i AS TEXT), \
             {labels}, '{{\"type\":\"http\"}}', '{{\"hosts\":[\"s' || CAST(i AS TEXT) || '.example\"],\
             \"strip_path_prefix\":true,{upstream},\"status\":1}}', i + 1, i, i, i, i, i FROM n",
            numbers(services)
        ),
        format!(
            "{} INSERT INTO publication (id, gateway_group_id, service_id, service_version_id, revision, published_by, \
             publish_time, change_number) SELECT {service} || '-1', '{group}', {service}, {service} || '-1', i + 1, 'admin', \
             i, i FROM n WHERE i % 2 = 0",
            numbers(services)
        ),
        format!(
            "{} INSERT INTO group_route (gateway_group_id, kind, id, service_id, name, labels, content, created_at, \
             updated_at, created_number, change_number) SELECT '{group}', 'http', \
             's' || CAST({route} AS TEXT) || '-r' || CAST({place} AS TEXT), 's' || CAST({route} AS TEXT), \
             'r' || CAST({place} AS TEXT), '{{}}', {route_content}, i, i, i, i FROM n WHERE {route} % 2 = 1",
            numbers(routes)
        ),
        format!(
            "{} INSERT INTO audit_log (number, id, event_time, event_type, operator_id, operator_name, source, token_name, \
             ip_address, gateway_group_id, resource_id, resource_name, method, uri, user_agent, body, status, error_message) \
             SELECT i, 'a' || CAST(i AS TEXT), i, 'service_publish', 'admin', 'admin', 'api', '', '127.0.0.1', '{group}', \
             {service}, '', 'POST', '/', '', '{{}}', 200, '' FROM n",
            numbers(services)
        ),
        format!("UPDATE gateway_group SET revision = {} WHERE id = '{group}'", services + 1),
        format!("UPDATE change_counter SET value = {}", routes + 1),
    ]
}
