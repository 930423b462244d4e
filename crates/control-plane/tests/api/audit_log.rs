//! The audit log, and dry runs, which leave nothing in it.

use serde_json::{Value, json};

use crate::world::{KEY, PASSWORD, World, publish};

const LOG: &str = "/api/audit_logs";

async fn rows(world: &World, query: &str) -> Vec<Value> {
    let answer = world.call("GET", &format!("{LOG}?{query}"), None).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["list"].as_array().unwrap().clone()
}

#[tokio::test]
pub(crate) async fn every_write_leaves_one_row_that_says_who_what_and_where() {
    let world = World::start().await;
    world.design("s1").await;
    world.publish("default", "s1", "1").await;
    let headers = [("x-api-key", KEY), ("user-agent", "curl/8"), ("content-type", "application/json")];
    let body = json!({"name": "mine", "desc": "d"}).to_string();
    let made = world.send("POST", "/api/services/template", &headers, &body).await;

    let types: Vec<_> = rows(&world, "").await.iter().map(|row| row["event_type"].clone()).collect();
    assert_eq!(
        types,
        ["service_template_create", "service_publish", "route_template_put", "service_template_put"]
    );
    let row = &rows(&world, "event_type=service_template_create").await[0];
    assert_eq!(row["operator"]["username"], "admin");
    assert_eq!(
        (&row["source"], &row["token_name"], &row["ip_address"]),
        (&json!("api"), &json!("first start"), &json!("127.0.0.1"))
    );
    assert_eq!((&row["resource_id"], &row["resource_name"]), (&made.body["value"]["id"], &json!("mine")));
    assert_eq!(row["http_request"]["method"], "POST");
    assert_eq!(row["http_request"]["uri"], "/api/services/template");
    assert_eq!(row["http_request"]["user_agent"], "curl/8");
    assert_eq!(row["http_request"]["body"], json!({"name": "mine", "desc": "d"}));
    assert_eq!((&row["http_response"]["status_code"], &row["error_message"]), (&json!(200), &json!("")));
    let row = &rows(&world, "resource_id=s1&event_type=service_publish").await[0];
    assert_eq!((&row["gateway_group_id"], &row["resource_name"]), (&json!("default"), &json!("s1")));
}

#[tokio::test]
async fn a_publish_of_several_services_is_found_by_each() {
    let world = World::start().await;
    world.design("s1").await;
    world.design("s2").await;
    world.value("POST", "/api/services/publish", Some(publish("default", &[("s1", "1"), ("s2", "1")]))).await;
    for service in ["s1", "s2"] {
        let query = format!("gateway_group_id=default&resource_id={service}");
        assert_eq!(rows(&world, &query).await.len(), 1, "{service}");
    }
}

#[tokio::test]
async fn refused_writes_are_recorded_with_their_reason() {
    let world = World::start().await;
    let message = world.refused(404, "DELETE", "/api/services/template/none", None).await;
    world.refused(400, "POST", "/api/gateway_groups", Some(json!({"name": 5}))).await;
    world.send("DELETE", "/api/services/template/s1", &[("x-api-key", "wrong")], "").await;
    let wrong = json!({"username": "admin", "password": "canary"}).to_string();
    world.send("POST", "/api/login", &[], &wrong).await;
    let found = rows(&world, "direction=asc").await;
    let outcome = |row: &Value| (row["event_type"].clone(), row["http_response"]["status_code"].clone());
    assert_eq!(
        found.iter().map(outcome).collect::<Vec<_>>(),
        [
            (json!("service_template_delete"), json!(404)),
            (json!("gateway_group_create"), json!(400)),
            (json!("service_template_delete"), json!(401)),
            (json!("session_create"), json!(401)),
        ]
    );
    assert_eq!((&found[0]["error_message"], &found[0]["resource_id"]), (&json!(message), &json!("none")));
    assert_eq!(found[2]["operator"], json!({"id": "", "username": ""}));
    assert_eq!(found[3]["resource_name"], "admin");
}

/// What the newest row of this type says that changed: of each object noun, outcome and the fields.
async fn changes(world: &World, event_type: &str) -> Value {
    let row = rows(world, &format!("event_type={event_type}")).await.remove(0);
    let object = |object: &Value| {
        let fields: Vec<_> =
            object["changes"].as_array().unwrap().iter().map(|it| it["path"].clone()).collect();
        json!([object["noun"], object["outcome"], fields])
    };
    row["changes"]["objects"].as_array().unwrap().iter().map(object).collect()
}

#[tokio::test]
pub(crate) async fn p27_a_row_says_what_changed_and_the_chain_of_rows_holds() {
    let world = World::start().await;
    world.design("s1").await;
    assert_eq!(changes(&world, "service_template_put").await[0][1], "created");
    let template = |desc: &str, key: &str| {
        json!({"name": "s1", "desc": desc, "plugins": {"csrf": {"key": key}},
            "upstream": {"nodes": [{"host": "127.0.0.1", "port": 1, "weight": 1}]}})
    };
    world.value("PUT", "/api/services/template/s1", Some(template("a", "canary-one"))).await;
    world.value("PUT", "/api/services/template/s1", Some(template("b", "canary-two"))).await;
    let row = rows(&world, "event_type=service_template_put").await.remove(0);
    let secret = json!({"path": "/plugins/csrf/key", "before": "******", "after": "******"});
    let expected = json!([{"path": "/desc", "before": "a", "after": "b"}, secret]);
    assert_eq!(row["changes"]["objects"][0]["changes"], expected, "{row}");
    world.publish("default", "s1", "1").await;
    let route = json!({"name": "r1", "service_id": "s1", "paths": ["/other"]});
    world.value("PUT", "/api/routes/template/s1-r1", Some(route)).await;
    world.publish("default", "s1", "2").await;
    let published = changes(&world, "service_publish").await;
    assert_eq!((&published[0][0], &published[0][1]), (&json!("published_service"), &json!("changed")));
    let fields = published[0][2].to_string();
    assert!(fields.contains("/version") && fields.contains("/routes/s1-r1/paths"), "{fields}");
    world.value("DELETE", "/api/gateway_groups/default/services/s1", None).await;
    assert_eq!(changes(&world, "published_service_delete").await[0][1], "deleted");
    world.value("DELETE", "/api/services/template/s1", None).await;
    let nouns: Vec<_> = changes(&world, "service_template_delete").await.as_array().unwrap().clone();
    assert_eq!(nouns.len(), 2, "its route goes along: {nouns:?}");

    let verified = world.value("GET", "/api/audit_logs/verify", None).await;
    let all = rows(&world, "").await;
    assert_eq!((&verified["holds"], &verified["rows"]), (&json!(true), &json!(all.len())), "{verified}");
    assert_eq!(
        (&verified["head"]["hash"], &verified["head"]["position"]),
        (&all[0]["hash"], &all[0]["position"])
    );
    let head = format!("{}:{}", all[0]["position"], all[0]["hash"].as_str().unwrap());
    world.value("GET", &format!("/api/audit_logs/verify?known={head}"), None).await;
    world.refused(400, "GET", "/api/audit_logs/verify?known=yesterday", None).await;
    world.refused(400, "GET", "/api/audit_logs/verify?known=yesterday&known=today", None).await;
}

#[tokio::test]
async fn reads_leave_no_row_and_filters_and_pages_hold() {
    let world = World::start().await;
    world.call("GET", "/api/gateway_groups", None).await;
    for name in ["a", "b", "c"] {
        world.group_create(name).await;
    }
    let answer = world.call("GET", &format!("{LOG}?page=2&page_size=2"), None).await;
    assert_eq!((&answer.body["total"], answer.body["list"].as_array().unwrap().len()), (&json!(3), 1));
    let row = &answer.body["list"][0];
    assert_eq!(row["resource_name"], "a");
    let (time, operator) = (row["event_time"].as_i64().unwrap(), row["operator"]["id"].as_str().unwrap());
    for (query, expected) in [
        (format!("operator_id={operator}"), 3),
        ("operator_id=nobody".to_owned(), 0),
        (format!("start_at={time}"), 3),
        (format!("start_at={}", time + 3600), 0),
        (format!("end_at={}", time - 3600), 0),
        ("event_type=user_invite".to_owned(), 0),
    ] {
        assert_eq!(rows(&world, &query).await.len(), expected, "{query}");
    }
    world.refused(400, "GET", &format!("{LOG}?start_at=yesterday"), None).await;
    let types = world.list("/api/audit_logs/event_types", "key").await;
    for known in ["service_publish", "user_invite", "session_create", "access_token_regenerate"] {
        assert!(types.iter().any(|key| key == known), "{known}: {types:?}");
    }
    assert!(!types.iter().any(|key| key.ends_with("_get") || key.ends_with("_list")), "{types:?}");
}

#[tokio::test]
async fn p18_an_export_holds_everything_and_no_formula() {
    let world = World::start().await;
    world.group_create("=HYPERLINK(\"http://evil\")").await;
    world.group_create("plain, with \"quotes\"").await;
    let json = world.call("GET", "/api/audit_logs/export?format=json", None).await;
    assert_eq!(json.body.as_array().unwrap().len(), 2);
    let (headers, body) =
        world.send_raw("GET", "/api/audit_logs/export?format=csv", &[("x-api-key", KEY)]).await;
    assert_eq!(headers["content-type"], "text/csv");
    let lines: Vec<_> = body.lines().collect();
    assert!(lines[0].starts_with("id,event_time,event_type,operator_id"), "{}", lines[0]);
    assert!(lines[1].contains("\"plain, with \"\"quotes\"\"\""), "{}", lines[1]);
    assert!(lines[2].contains("\"'=HYPERLINK(\"\"http://evil\"\")\""), "{}", lines[2]);
    assert_eq!(lines.len(), 3);
    world.refused(400, "GET", "/api/audit_logs/export?format=xml", None).await;
}

#[tokio::test]
async fn p22_planted_secrets_are_in_no_row_no_answer_and_no_file() {
    let world = World::start().await;
    let canary = |name: &str| format!("canary-{name}-7f3a91");
    let login = json!({"username": "admin", "password": canary("login")});
    let service = json!({"name": "s", "plugins": {
        "key-auth": {"key": canary("key")}, "jwt-auth": {"secret": canary("secret"), "private_key": canary("pem")},
    }});
    let wrong_type = json!({"username": "u", "password": {"token": canary("nested")}});
    let patch = json!([{"op": "add", "path": "/plugins/key-auth/key", "value": canary("patch")}]);
    let mut heard = String::new();
    for (method, path, body) in [
        ("POST", "/api/login".to_owned(), login),
        ("POST", "/api/invites".to_owned(), json!({"username": "ann", "password": canary("invite")})),
        ("POST", "/api/invites".to_owned(), wrong_type),
        (
            "PUT",
            "/api/password".to_owned(),
            json!({"old_password": canary("old"), "new_password": canary("new")}),
        ),
        ("PUT", "/api/license".to_owned(), json!({"data": canary("license")})),
        (
            "PUT",
            format!("/api/services/template/s?api_key={}", canary("query")),
            json!({"name": "s", "plugins": {"key-auth": 5}, "token": canary("unknown")}),
        ),
    ] {
        heard.push_str(&world.call(method, &path, Some(body)).await.body.to_string());
    }
    // Here the document itself is answered, as it must be; the log must not have it.
    for (method, body) in [("PUT", service), ("PATCH", patch)] {
        world.call(method, "/api/services/template/s", Some(body)).await;
    }
    let made = world.value("POST", "/api/tokens", Some(json!({"name": "t", "expires_at": 0}))).await;
    let key = world.value("PUT", "/api/gateway_groups/default/admin_key", None).await;
    heard.push_str(&world.call("GET", "/api/audit_logs", None).await.body.to_string());
    heard.push_str(&world.call("GET", "/api/audit_logs/export", None).await.body.to_string());
    heard
        .push_str(&world.send_raw("GET", "/api/audit_logs/export?format=csv", &[("x-api-key", KEY)]).await.1);
    let secrets = [KEY, PASSWORD, made["token"].as_str().unwrap(), key["key"].as_str().unwrap()];
    for secret in ["canary-"].iter().chain(&secrets) {
        assert!(!heard.contains(secret), "{secret} in {heard}");
    }
    for file in ["gatewright.db", "gatewright.db-wal"] {
        let bytes = std::fs::read(world.dir.path().join(file)).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        for secret in ["invite", "old", "new", "login", "license", "query"].map(canary) {
            assert!(!text.contains(&secret), "{secret} in {file}");
        }
        assert!(secrets.iter().all(|secret| !text.contains(secret)), "{file}");
    }
}

#[tokio::test]
async fn a_dry_run_answers_the_same_and_stores_nothing() {
    let world = World::start().await;
    world.design("s1").await;
    let before = rows(&world, "").await.len();
    let body = publish("default", &[("s1", "1")]);
    let tried = world.value("POST", "/api/services/publish?dry-run=all", Some(body.clone())).await;
    assert_eq!((&tried["revision"], &tried["services"][0]["version"]), (&json!(1), &json!("1")));
    world.value("POST", "/api/gateway_groups?dry-run=all", Some(json!({"name": "g"}))).await;
    world.value("DELETE", "/api/services/template/s1?dry-run=all", None).await;
    let runtime = "/api/gateway_groups/default/services/s1/runtime_configuration?dry-run=all";
    world.refused(404, "PATCH", runtime, Some(json!({}))).await;
    world.refused(400, "POST", "/api/gateway_groups?dry-run=yes", Some(json!({"name": "g"}))).await;

    assert_eq!(world.list("/api/gateway_groups", "id").await, ["default"]);
    assert_eq!(world.list("/api/services/template", "id").await, ["s1"]);
    let types: Vec<_> = rows(&world, "").await.iter().map(|row| row["event_type"].clone()).collect();
    assert_eq!(types.len(), before + 1, "only the misspelt one was no dry run: {types:?}");
    let real = world.value("POST", "/api/services/publish", Some(body)).await;
    assert_eq!(real["revision"], 1);
}
