//! Bodies that are written anew on their way: a client that speaks JSON, a backend that speaks XML.

use gatewright_e2e::{Upstream, World, client};
use serde_json::json;

const HOST: &str = "orders.test";

#[test]
fn a_client_speaks_json_to_a_backend_that_speaks_xml() {
    let (world, upstream) = (World::start(), Upstream::echo());
    let template = json!({"upstream": {"nodes": upstream.nodes()}, "plugins": {"body-transformer": {
        "request": {
            "input_format": "json",
            "template": "<order>{% for _, item in ipairs(items) do %}<item>{{item.name}}</item>{% end %}</order>",
        },
        "response": {"template": "{\"answered\": {{_ctx.var.status}}}"},
    }}});
    world.serve("orders", "1", &template, &[json!({"paths": ["/*"]})]);
    let asked = |body: &str| {
        let headers = [("Content-Type", "application/json")];
        client::request(world.proxy, "POST", HOST, "/orders", &headers, body.as_bytes())
    };
    let answer = asked("{\"items\": [{\"name\": \"tea\"}, {\"name\": \"<milk>\"}]}");
    assert_eq!((answer.status(), answer.text().as_str()), (200, "{\"answered\": 200}"));
    let got = upstream.last();
    assert_eq!(
        String::from_utf8_lossy(&got.body),
        "<order><item>tea</item><item>&lt;milk&gt;</item></order>"
    );
    let refused = asked("{\"items\": ");
    assert_eq!(refused.status(), 400);
    assert!(refused.text().contains("request body decode"), "{}", refused.text());
    assert_eq!(upstream.recorded().len(), 1);
}
