//! What the demo says to the admin API, and what it prints.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use super::*;

fn demo(version: &str) -> Demo {
    let addresses =
        Addresses { admin: "127.0.0.1:7080".parse().unwrap(), proxy: "127.0.0.1:9080".parse().unwrap() };
    Demo { addresses, version: version.to_owned() }
}

#[test]
fn the_lines_are_ready_to_paste() {
    let [ask, list, publish] = demo("1.0.0").lines("k-1");
    assert_eq!(ask, "curl -H 'Host: petstore.example.com' http://127.0.0.1:9080/store/pets/1");
    assert_eq!(list, "curl -H \"X-API-KEY: k-1\" http://127.0.0.1:7080/api/gateway_groups/default/services");
    assert!(publish.contains(r#""version":"1.1.0""#) && !publish.contains('\n'), "{publish}");
}

#[test]
fn the_line_that_publishes_names_a_version_that_is_still_free() {
    for (active, next) in [("1.0.0", "1.1.0"), ("1.1.0", "1.2.0"), ("2.3.4", "2.4.0"), ("other", "1.1.0")] {
        assert_eq!(demo(active).next_version(), next);
    }
}

#[test]
fn the_key_is_written_out_only_when_it_was_just_made() {
    let directory = std::env::temp_dir().join(format!("gatewright demo {}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    assert_eq!(key_to_paste(Some("k-1"), &directory), "k-1");
    assert_eq!(key_to_paste(None, &directory), "$GATEWRIGHT_ADMIN_KEY");
    std::fs::write(directory.join("admin-key"), "k-2").unwrap();
    assert_eq!(key_to_paste(None, &directory), format!("$(cat '{}/admin-key')", directory.display()));
    std::fs::remove_dir_all(&directory).unwrap();
}

type Calls = Arc<Mutex<Vec<(String, Value)>>>;

/// An admin API that has published `services` and accepts everything; hands back a client and the changes asked for.
fn admin_api(services: Value) -> (AdminClient, Calls) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = AdminClient::new(&format!("http://{}", listener.local_addr().unwrap()), "k").unwrap();
    let calls = Calls::default();
    let seen = calls.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = BufReader::new(stream);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).unwrap() > 0 {}
            let length = head
                .to_lowercase()
                .split("content-length: ")
                .nth(1)
                .and_then(|rest| rest.lines().next()?.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            stream.read_exact(&mut body).unwrap();
            let call = head.split(" HTTP/").next().unwrap().to_owned();
            let answer = if call.starts_with("GET ") {
                json!({ "list": services }).to_string()
            } else {
                seen.lock().unwrap().push((call, serde_json::from_slice(&body).unwrap()));
                r#"{"value":{}}"#.to_owned()
            };
            let length = answer.len();
            let answer =
                format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{answer}");
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
    (client, calls)
}

async fn publish(client: AdminClient) -> String {
    tokio::task::spawn_blocking(move || publish_where_missing(&client)).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_first_start_designs_and_publishes_the_pet_store() {
    let (client, calls) = admin_api(json!([{"service_id": "other", "version": "7.0.0"}]));
    assert_eq!(publish(client).await, "1.0.0");
    let calls = calls.lock().unwrap();
    let made: Vec<_> = calls.iter().map(|(call, _)| call.as_str()).collect();
    let expected = [
        "PUT /api/services/template/pet-store",
        "PUT /api/routes/template/pet-store-get-pet",
        "PUT /api/routes/template/pet-store-list-pets",
        "POST /api/services/publish",
    ];
    assert_eq!(made, expected);
    let ports = pet_store::recorded_ports(&calls[0].1["upstream"]["nodes"]).expect("two own backends");
    assert!(ports.map(|port| Backend::bind(port).is_err()).iter().all(|taken| *taken), "they answer already");
}

#[tokio::test]
async fn a_later_start_takes_the_published_ports_and_changes_nothing() {
    let ports = [free_port(), free_port()];
    let nodes = ports.map(|port| json!({"host": "127.0.0.1", "port": port, "weight": 1, "priority": 0}));
    let service = json!({"service_id": "pet-store", "version": "1.4.0", "upstream": {"nodes": nodes}});
    let (client, calls) = admin_api(json!([service]));
    assert_eq!(publish(client).await, "1.4.0");
    assert_eq!(*calls.lock().unwrap(), []);
    assert!(ports.map(|port| Backend::bind(port).is_err()).iter().all(|taken| *taken), "they answer already");
}

#[tokio::test]
async fn a_later_start_moves_the_nodes_when_a_port_is_taken() {
    let squatter = TcpListener::bind("127.0.0.1:0").unwrap();
    let ports = [free_port(), squatter.local_addr().unwrap().port()];
    let nodes = ports.map(|port| json!({"host": "127.0.0.1", "port": port, "weight": 1}));
    let service = json!({"service_id": "pet-store", "version": "1.0.0", "upstream": {"nodes": nodes}});
    let (client, calls) = admin_api(json!([service]));
    publish(client).await;
    let calls = calls.lock().unwrap();
    let [(call, changes)] = calls.as_slice() else { panic!("not one change: {calls:?}") };
    assert_eq!(call, "PATCH /api/gateway_groups/default/services/pet-store/runtime_configuration");
    let moved = pet_store::recorded_ports(&changes["upstream"]["nodes"]).expect("two own backends");
    assert!(!moved.contains(&ports[1]));
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
