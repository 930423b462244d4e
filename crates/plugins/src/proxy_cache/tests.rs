//! Requests one after another, and which of them the upstream sees.

use std::sync::Arc;
use std::time::Duration;

use gatewright_model::resource::Labels;
use serde_json::{Value, json};

use crate::chain::Layer;
use crate::consumers::Consumer;
use crate::testing::{Ending, Responded, Trial, refused};

fn memory(more: Value) -> Value {
    let mut config = json!({"cache_strategy": "memory", "cache_zone": "z"});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

fn trial(more: Value) -> Trial {
    Trial::of("proxy-cache", memory(more))
}

/// What an upstream would answer that is not asked.
const NOBODY: &str = "500\n\nnobody asks";

const PAGE: &str = "200\nContent-Type: text/html\nContent-Length: 4\n\npage";

/// What the cache made of `request`, where the upstream would answer with `upstream`.
fn status(trial: &Trial, request: &str, upstream: &str) -> String {
    trial.run(request).respond(upstream).field("Apisix-Cache-Status")
}

fn said(responded: &Responded) -> String {
    format!("{} {} {}", responded.head.status, responded.field("Apisix-Cache-Status"), responded.body)
}

#[test]
fn the_second_request_is_answered_without_the_upstream() {
    let trial = trial(json!({}));
    let first = trial.run("GET /a?x=1").respond(PAGE);
    assert_eq!(said(&first), "200 MISS page");
    trial.pass(Duration::from_secs(7));
    let run = trial.run("GET /a?x=1");
    assert_eq!(run.answered(), "200 page");
    let second = run.respond(NOBODY);
    assert_eq!(said(&second), "200 HIT page");
    assert_eq!((second.field("Content-Type").as_str(), second.field("Age").as_str()), ("text/html", "7"));
    for other in ["GET /a?x=2", "GET /a", "GET /b?x=1", "GET /a?x=1\nHost: other.example", "POST /a?x=1"] {
        assert_eq!(trial.run(other).answered(), "", "{other}");
    }
    trial.pass(Duration::from_secs(294));
    assert_eq!(said(&trial.run("GET /a?x=1").respond(PAGE)), "200 EXPIRED page");
    assert_eq!(status(&trial, "GET /a?x=1", NOBODY), "HIT");
}

#[test]
fn only_what_may_be_kept_is_kept() {
    for (config, answer, kept) in [
        (json!({}), "200", true),
        (json!({}), "301\nLocation: /b", true),
        (json!({}), "404", true),
        (json!({}), "500", false),
        (json!({}), "204", false),
        (json!({"cache_http_status": [204]}), "204", true),
        (json!({"cache_http_status": [206]}), "206\nContent-Range: bytes 0-1/2", false),
        (json!({}), "200\nSet-Cookie: a=1", false),
        (json!({"cache_set_cookie": true}), "200\nSet-Cookie: a=1", true),
        (json!({}), "200\nCache-Control: private", false),
        (json!({}), "200\nCache-Control: no-store", false),
        (json!({}), "200\nCache-Control: no-cache", false),
        (json!({}), "200\nCache-Control: max-age=0", false),
        (json!({}), "200\nCache-Control: max-age=5", true),
        (json!({}), "200\nVary: Accept, *", false),
        (json!({"no_cache": ["$arg_fresh"]}), "200", true),
        (json!({"no_cache": ["$arg_x", "$arg_no"]}), "200", false),
        (json!({"no_cache": ["$arg_zero"]}), "200", true),
        (json!({"cache_method": ["POST"]}), "200", false),
        (json!({"max_resp_body_size": 4}), "200\n\nfour", true),
        (json!({"max_resp_body_size": 4}), "200\n\nfour5", false),
        (json!({"max_resp_body_size": 4}), "200\nContent-Length: 5\n\nfour5", false),
        (json!({"cache_control": true}), "200", false),
        (json!({"cache_control": true}), "200\nCache-Control: max-age=9", true),
        (json!({"cache_control": true}), "200\nExpires: Thu, 01 Jan 2099 00:00:00 GMT", true),
        (json!({"cache_control": true}), "200\nExpires: 0", false),
    ] {
        let trial = trial(config.clone());
        let request = "GET /a?x=1&zero=0";
        assert_eq!(status(&trial, request, answer), "MISS", "{config} {answer}");
        let is_kept = trial.run(request).answer.is_some();
        assert_eq!(is_kept, kept, "{config} {answer}");
    }
}

#[test]
fn a_body_that_was_cut_short_is_never_kept() {
    for (ending, kept) in [(Ending::Said, true), (Ending::Connection, false), (Ending::Cut, false)] {
        let trial = trial(json!({}));
        trial.run("GET /").respond_as("200\n\npage", ending);
        assert_eq!(trial.run("GET /").answer.is_some(), kept);
    }
}

#[test]
fn what_is_kept_is_what_the_upstream_sent_and_passes_the_plugins_each_time() {
    let plugins = json!({
        "proxy-cache": memory(json!({})),
        "request-id": {},
        "echo": {"after_body": "!"},
        "gzip": {"_meta": {"priority": 5000}, "types": ["text/html"], "min_length": 1},
    });
    let trial = Trial::all(&plugins);
    let first = trial.run("GET /\nX-Request-Id: one\nAccept-Encoding: gzip").respond(PAGE);
    assert_eq!(
        (first.field("X-Request-Id").as_str(), first.field("Content-Encoding").as_str()),
        ("one", "gzip")
    );
    let second = trial.run("GET /\nX-Request-Id: two").respond(NOBODY);
    assert_eq!(said(&second), "200 HIT page!");
    assert_eq!(
        (second.field("X-Request-Id").as_str(), second.field("Content-Encoding").as_str()),
        ("two", "")
    );
}

#[test]
fn clients_have_a_say_where_they_are_given_one() {
    let request = |field: &str| format!("GET /\nCache-Control: {field}");
    for (field, without, with) in [
        ("max-age=10", "HIT", "HIT"),
        ("max-age=1", "HIT", "STALE"),
        ("min-fresh=20", "HIT", "HIT"),
        ("min-fresh=60", "HIT", "STALE"),
        ("no-cache", "HIT", "BYPASS"),
        ("no-store", "HIT", "BYPASS"),
        ("only-if-cached", "HIT", "HIT"),
    ] {
        for (config, expected) in [(json!({}), without), (json!({"cache_control": true}), with)] {
            let trial = trial(config);
            let answer = "200\nCache-Control: max-age=60\n\npage";
            assert_eq!(status(&trial, "GET /", answer), "MISS");
            trial.pass(Duration::from_secs(5));
            assert_eq!(status(&trial, &request(field), answer), expected, "{field}");
        }
    }
    let trial = trial(json!({"cache_control": true}));
    let run = trial.run(&request("only-if-cached"));
    assert_eq!(run.answered(), "504 ");
    assert_eq!(run.respond(NOBODY).field("Apisix-Cache-Status"), "MISS");
}

#[test]
fn what_is_to_go_past_the_cache_does() {
    let trial = trial(json!({"cache_bypass": ["$http_x_fresh"]}));
    assert_eq!(status(&trial, "GET /", PAGE), "MISS");
    for (field, expected) in [
        ("X-Fresh: 1", "BYPASS"),
        ("X-Fresh: 0", "HIT"),
        ("X-Fresh:", "HIT"),
        ("Range: bytes=0-1", "HIT"),
        ("Range: bytes=0-1\nX-Fresh: 1", "BYPASS"),
        ("If-Match: \"a\"", "BYPASS"),
    ] {
        assert_eq!(status(&trial, &format!("GET /\n{field}"), "200\n\nother"), expected, "{field}");
    }
    assert_eq!(trial.run("GET /").answered(), "200 page", "in memory, it changes nothing");
    let plugins = json!({"proxy-cache": {"cache_bypass": ["$http_x_fresh"]}});
    let disk = Trial::all(&plugins).with_disk(&plugins);
    status(&disk, "GET /", PAGE);
    assert_eq!(status(&disk, "GET /\nX-Fresh: 1", "200\n\nother"), "BYPASS");
    assert_eq!(disk.run("GET /").answered(), "200 other", "on disk, it is what is kept from then on");
}

#[test]
fn parts_are_given_of_what_is_kept_whole_and_asked_for_where_nothing_is() {
    let page = "200\nETag: \"a\"\nContent-Type: text/plain\n\n0123456789";
    let plugins = json!({"proxy-cache": {"cache_zone": "parts"}});
    for trial in [trial(json!({})), Trial::all(&plugins).with_disk(&plugins)] {
        let part = "206\nContent-Range: bytes 2-3/10\n\n23";
        assert_eq!(status(&trial, "GET /\nRange: bytes=2-3", part), "BYPASS");
        assert_eq!(status(&trial, "GET /", page), "MISS", "a part is not kept");
        for (fields, expected, range) in [
            ("Range: bytes=2-3", "206 23", "bytes 2-3/10"),
            ("Range: bytes=-1", "206 9", "bytes 9-9/10"),
            ("Range: bytes=10-", "416 ", "bytes */10"),
            ("Range: bytes=2-3\nIf-Range: \"b\"", "200 0123456789", ""),
            ("Range: bytes=2-3\nIf-Range: \"a\"", "206 23", "bytes 2-3/10"),
            ("Range: bytes=2-3\nIf-None-Match: \"a\"", "304 ", ""),
            ("Range: bytes=2-3,5-6", "200 0123456789", ""),
        ] {
            let run = trial.run(&format!("GET /\n{fields}"));
            assert_eq!(
                (run.answered().as_str(), run.answer_field("Content-Range").as_str()),
                (expected, range)
            );
        }
        trial.pass(Duration::from_secs(301));
        assert_eq!(status(&trial, "GET /\nRange: bytes=2-3", part), "BYPASS", "what is old is not given");
    }
}

#[test]
fn each_variant_answers_those_who_ask_for_it() {
    let trial = trial(json!({}));
    let page = |language: &str| format!("200\nVary: Accept-Language, Accept\n\n{language}");
    for language in ["en", "de"] {
        let request = format!("GET /\nAccept-Language: {language}");
        assert_eq!(status(&trial, &request, &page(language)), "MISS");
    }
    for (fields, expected) in [
        ("Accept-Language: en", "200 en"),
        ("accept-language:   de", "200 de"),
        ("Accept-Language: fr", ""),
        ("Accept-Language: en\nAccept: text/html", ""),
        ("Accept-Language: en\nAccept-Language: de", ""),
        ("X-Other: 1", ""),
    ] {
        assert_eq!(trial.run(&format!("GET /\n{fields}")).answered(), expected, "{fields}");
    }
}

#[test]
fn an_old_answer_is_confirmed_by_the_upstream() {
    let trial = trial(json!({"cache_ttl": 10}));
    status(&trial, "GET /", "200\nETag: \"1\"\nX-Kept: old\nContent-Type: text/html\n\npage");
    trial.pass(Duration::from_secs(11));
    let run = trial.run("GET /\nIf-None-Match: \"0\"");
    assert_eq!(run.sent("If-None-Match"), "\"1\"", "the upstream is asked about what is kept");
    let confirmed = run.respond("304\nETag: \"1\"\nX-Kept: new");
    assert_eq!(said(&confirmed), "200 REVALIDATED page");
    assert_eq!(
        (confirmed.field("X-Kept").as_str(), confirmed.field("Content-Type").as_str()),
        ("new", "text/html")
    );
    let hit = trial.run("GET /").respond(NOBODY);
    assert_eq!((said(&hit).as_str(), hit.field("X-Kept").as_str()), ("200 HIT page", "new"));
    trial.pass(Duration::from_secs(11));
    let known = trial.run("GET /\nIf-None-Match: \"1\"").respond("304\nETag: \"1\"");
    assert_eq!(said(&known), "304 REVALIDATED ");
    trial.pass(Duration::from_secs(11));
    assert_eq!(said(&trial.run("GET /").respond("200\nETag: \"2\"\n\nother")), "200 EXPIRED other");
    assert_eq!(trial.run("GET /").answered(), "200 other");
    trial.pass(Duration::from_secs(11));
    assert_eq!(said(&trial.run("GET /").respond("500\n\nbroken")), "500 EXPIRED broken");
}

#[test]
fn a_client_that_has_the_answer_does_not_get_it_again() {
    let trial = trial(json!({}));
    status(&trial, "GET /", "200\nETag: \"1\"\nContent-Type: text/html\n\npage");
    let known = trial.run("GET /\nIf-None-Match: \"0\", W/\"1\"").respond(NOBODY);
    assert_eq!((said(&known).as_str(), known.field("ETag").as_str()), ("304 HIT ", "\"1\""));
    assert_eq!(known.field("Content-Type"), "");
    assert_eq!(said(&trial.run("GET /\nIf-None-Match: \"0\"").respond(NOBODY)), "200 HIT page");
    // What is not kept yet is the upstream's to confirm.
    let run = trial.run("GET /other\nIf-None-Match: \"0\"");
    assert_eq!(run.sent("If-None-Match"), "\"0\"");
    assert_eq!(said(&run.respond("304")), "304 MISS ");
    assert!(trial.run("GET /other").answer.is_none());
}

#[test]
fn head_is_answered_with_what_get_got() {
    let trial = trial(json!({}));
    assert_eq!(status(&trial, "HEAD /", "200\nContent-Length: 4"), "MISS");
    let run = trial.run("HEAD /");
    assert_eq!((run.answered().as_str(), run.answer_field("Content-Length").as_str()), ("200 ", "4"));
    assert!(trial.run("GET /").answer.is_none(), "but never the other way round");
    status(&trial, "GET /", PAGE);
    assert_eq!(trial.run("HEAD /").answered(), "200 page");
}

#[test]
fn answers_to_posts_are_for_the_same_body() {
    let trial = trial(json!({"cache_method": ["GET", "POST"]}));
    assert_eq!(status(&trial, "POST /q\n\none", "200\n\n1"), "MISS");
    for (request, expected) in [("POST /q\n\none", "200 1"), ("POST /q\n\ntwo", ""), ("GET /q", "")] {
        assert_eq!(trial.run(request).answered(), expected, "{request}");
    }
    let long = format!("POST /q\n\n{}", "x".repeat(super::POST_BYTES_MAX + 1));
    assert_eq!(status(&trial, &long, "200\n\nlong"), "MISS");
    assert!(trial.run(&long).answer.is_none());
}

#[test]
fn what_is_purged_or_changed_is_gone() {
    let trial = trial(json!({}));
    let page = "200\nVary: Accept\n\npage";
    assert_eq!(trial.run("PURGE /a").answered(), "404 ");
    for accept in ["a", "b"] {
        status(&trial, &format!("GET /a\nAccept: {accept}"), page);
    }
    assert_eq!(trial.run("PURGE /a").answered(), "200 ");
    assert!(
        trial.run("GET /a\nAccept: a").answer.is_none() && trial.run("GET /a\nAccept: b").answer.is_none()
    );
    for (method, answer, gone) in [
        ("PUT", "200", true),
        ("DELETE", "204", true),
        ("POST", "302", true),
        ("PUT", "409", false),
        ("OPTIONS", "200", false),
    ] {
        status(&trial, "GET /b", PAGE);
        assert_eq!(status(&trial, &format!("{method} /b"), answer), "MISS");
        assert_eq!(trial.run("GET /b").answer.is_none(), gone, "{method} {answer}");
    }
}

#[test]
fn c14_nobody_gets_what_was_meant_for_somebody_else() {
    // The key holds scheme, host, path and query; no way of writing a path gets the answer to another one.
    let cache = trial(json!({}));
    status(&cache, "GET /account?x=1\nHost: a.example", PAGE);
    for other in [
        "GET /account?x=1\nHost: b.example",
        "GET /account?x=2\nHost: a.example",
        "GET /account;.css?x=1\nHost: a.example",
        "GET /account/.css?x=1\nHost: a.example",
        "GET /account%2f.css?x=1\nHost: a.example",
        "HEAD /other\nHost: a.example",
    ] {
        assert_eq!(cache.run(other).answered(), "", "{other}");
    }
    let cache = cache.over_tls();
    assert_eq!(cache.run("GET /account?x=1\nHost: a.example").answered(), "", "another scheme");
    // Parts of a key do not run into each other.
    let parts = trial(json!({"cache_key": ["$arg_a", "$arg_b"]}));
    status(&parts, "GET /?a=xy&b=z", PAGE);
    assert_eq!(parts.run("GET /?a=x&b=yz").answered(), "");
    assert_eq!(parts.run("GET /?b=z&a=xy").answered(), "200 page");
    // What depends on everything, or on a field that is not in the key, is not given to others.
    let poisoned = trial(json!({}));
    status(&poisoned, "GET /\nX-Forwarded-Host: evil", "200\nVary: *\n\nevil");
    assert_eq!(poisoned.run("GET /").answered(), "");
    status(&poisoned, "GET /\nX-Forwarded-Host: evil", "200\nVary: X-Forwarded-Host\n\nevil");
    assert_eq!(poisoned.run("GET /").answered(), "");
    // What an authorised request gets is kept only if the upstream says that it is for all.
    for (answer, kept) in [
        ("200\n\nmine", false),
        ("200\nCache-Control: max-age=60\n\nmine", false),
        ("200\nCache-Control: public\n\nours", true),
        ("200\nCache-Control: s-maxage=60\n\nours", true),
        ("200\nCache-Control: public, private\n\nmine", false),
    ] {
        let authorised = trial(json!({}));
        status(&authorised, "GET /\nAuthorization: Bearer a", answer);
        for request in ["GET /", "GET /\nAuthorization: Bearer b"] {
            assert_eq!(authorised.run(request).answer.is_some(), kept, "{request} {answer}");
        }
    }
    let public = trial(json!({}));
    status(&public, "GET /", PAGE);
    assert_eq!(public.run("GET /\nAuthorization: Bearer a").answered(), "", "it may get more than others");
}

#[test]
fn consumers_get_answers_of_their_own() {
    let consumer = |name: &str| {
        let plugins = Ok(Layer::default());
        Arc::new(Consumer { name: name.into(), custom_id: None, labels: Labels::default(), plugins })
    };
    for (isolated, expected) in [(true, ""), (false, "200 page")] {
        let trial = trial(json!({"consumer_isolation": isolated}));
        trial.run_as("GET /", consumer("jack")).respond(PAGE);
        assert_eq!(trial.run_as("GET /", consumer("jack")).answered(), "200 page");
        assert_eq!(trial.run_as("GET /", consumer("jill")).answered(), expected);
        assert_eq!(trial.run("GET /").answered(), expected);
    }
    let trial = trial(json!({}));
    trial.run_as("GET /\nAuthorization: Basic x", consumer("jack")).respond(PAGE);
    assert_eq!(trial.run_as("GET /\nAuthorization: Basic x", consumer("jack")).answered(), "200 page");
}

#[test]
fn who_lets_in_without_naming_a_consumer_makes_answers_private() {
    let plugins = json!({"proxy-cache": memory(json!({})), "forward-auth": {"uri": "http://auth.example"}});
    let trial = Trial::all(&plugins)
        .answering(|_| Ok(crate::outbound::Response { status: 200, ..Default::default() }));
    assert_eq!(status(&trial, "GET /", PAGE), "MISS");
    assert_eq!(status(&trial, "GET /", PAGE), "MISS");
}

#[test]
fn fields_for_caches_can_be_hidden() {
    let trial = trial(json!({"hide_cache_headers": true}));
    let answer = "200\nCache-Control: max-age=60\nExpires: Thu, 01 Jan 2099 00:00:00 GMT\n\npage";
    for expected in ["MISS", "HIT"] {
        let responded = trial.run("GET /").respond(answer);
        assert_eq!(responded.field("Apisix-Cache-Status"), expected);
        assert_eq!(
            (responded.field("Cache-Control"), responded.field("Expires")),
            (String::new(), String::new())
        );
    }
}

#[test]
fn on_disk_answers_say_themselves_how_long_they_are_fresh() {
    let plugins = json!({"proxy-cache": {"cache_ttl": 100}});
    for (fields, seconds) in [
        ("", 100),
        ("Cache-Control: max-age=10", 10),
        ("Cache-Control: max-age=10, s-maxage=20", 20),
        ("Cache-Control: max-age=10\nAge: 4", 6),
    ] {
        let trial = Trial::all(&plugins).with_disk(&plugins);
        status(&trial, "GET /", &format!("200\n{fields}\n\npage"));
        trial.pass(Duration::from_secs(seconds - 1));
        assert_eq!(status(&trial, "GET /", "500"), "HIT", "{fields}");
        trial.pass(Duration::from_secs(1));
        assert_eq!(status(&trial, "GET /", "500"), "EXPIRED", "{fields}");
    }
}

#[test]
fn what_is_on_disk_survives_a_restart_unless_it_is_damaged() {
    let plugins = json!({"proxy-cache": {}});
    let trial = Trial::all(&plugins).with_disk(&plugins);
    let answer = "200\nVary: Accept\nETag: \"1\"\n\npage";
    for request in ["GET /a\nAccept: x", "GET /a\nAccept: y", "GET /b"] {
        assert_eq!(status(&trial, request, answer), "MISS");
        assert_eq!(trial.run(request).answered(), "200 page");
    }
    let disk = trial.disk();
    disk.lock().unwrap().insert("strange".to_owned(), "file".into());
    let trial = trial.restarted(&plugins);
    assert_eq!(trial.run("GET /a\nAccept: x").answered(), "200 page");
    assert_eq!(trial.run("GET /a\nAccept: y").answered(), "200 page");
    assert_eq!(trial.run("GET /a\nAccept: z").answered(), "");
    assert_eq!(trial.run("PURGE /a").answered(), "200 ");
    assert_eq!(disk.lock().unwrap().len(), 1, "what is purged and what nobody knows is removed");
    let trial = trial.restarted(&plugins);
    assert_eq!(trial.run("GET /a\nAccept: x").answered(), "", "and does not come back");
    assert_eq!(trial.run("GET /b").answered(), "200 page");
    for bytes in disk.lock().unwrap().values_mut() {
        let mut damaged = bytes.to_vec();
        damaged[40] ^= 1;
        *bytes = damaged.into();
    }
    assert_eq!(status(&trial, "GET /b", "200\n\nnew"), "MISS", "what is damaged is asked for again");
    assert_eq!((trial.run("GET /b").answered().as_str(), disk.lock().unwrap().len()), ("200 new", 1));
    disk.lock().unwrap().clear();
    assert_eq!(trial.run("GET /b").answered(), "");
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for (config, expected) in [
        (json!({"cache_key": []}), "/cache_key"),
        (json!({"cache_key": ["$"]}), "/cache_key/0"),
        (json!({"cache_method": ["PUT"]}), "/cache_method/0"),
        (json!({"cache_http_status": [100]}), "/cache_http_status/0"),
        (json!({"cache_strategy": "tape"}), "/cache_strategy"),
        (json!({"cache_ttl": 0}), "/cache_ttl"),
        (json!({"cache_zone": ""}), "/cache_zone"),
        (json!({"max_resp_body_size": 0}), "/max_resp_body_size"),
    ] {
        assert_eq!(refused("proxy-cache", &config), [expected], "{config}");
    }
}
