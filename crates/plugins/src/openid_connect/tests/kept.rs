//! Sessions in what stands for a Redis server.

use std::collections::BTreeMap;

use super::*;
use crate::testing::Kept;

fn stored(more: &Value) -> Value {
    let mut config = json!({"session": {"secret": "sixteen or more characters", "storage": "redis",
        "redis": {"prefix": "shop"}}});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

/// Sessions that outlive access tokens.
fn long() -> Value {
    json!({"session": {"secret": "sixteen or more characters", "storage": "redis", "redis": {},
        "idling_timeout": 7200, "rolling_timeout": 7200}})
}

fn empty() -> Kept {
    Kept::new(Mutex::new(Some(BTreeMap::new())))
}

/// A gateway that keeps sessions in `kept`.
fn gateway(kept: &Kept, more: &Value) -> (Trial, Shared) {
    let (trial, behaviour) = trial(&stored(more));
    (trial.with_redis(kept), behaviour)
}

fn ask<'t>(trial: &'t Trial, session: &str) -> Run<'t> {
    trial.run(&format!("GET /\nCookie: {session}"))
}

/// The one session that is kept.
fn only(kept: &Kept) -> (String, String) {
    let kept = kept.lock().unwrap();
    let entries = kept.as_ref().unwrap();
    assert_eq!(entries.len(), 1, "{:?}", entries.keys());
    let (key, (bytes, _)) = entries.first_key_value().unwrap();
    (String::from_utf8(key.clone()).unwrap(), String::from_utf8(bytes.to_vec()).unwrap())
}

fn write(kept: &Kept, key: &str, text: &str) {
    let mut kept = kept.lock().unwrap();
    let entry = kept.as_mut().unwrap().get_mut(key.as_bytes()).unwrap();
    entry.0 = text.to_owned().into();
}

#[test]
fn a_session_is_good_at_every_gateway_that_asks_the_same_server() {
    let kept = empty();
    let (trial, behaviour) = gateway(&kept, &json!({}));
    let session = log_in(&trial, &behaviour, "/");
    assert!(session.len() < 200, "{session}");
    let (key, text) = only(&kept);
    assert!(key.starts_with("shop:session:"), "{key}");
    assert!(!session.contains(key.trim_start_matches("shop:session:")), "whoever reads there has no cookie");
    assert!(!text.contains("at-authorization_code") && !text.contains("jack"), "{text}");
    let (another, _) = gateway(&kept, &json!({}));
    for gateway in [&trial, &another] {
        let run = ask(gateway, &session);
        assert_eq!((run.answered().as_str(), run.sent("X-Refresh-Token").as_str()), ("", ""));
        assert_eq!(run.sent("X-Access-Token"), "at-authorization_code");
        assert_eq!(decoded(&run, "X-ID-Token")["sub"], "jack");
    }
    let (foreign, _) = gateway(&kept, &json!({"client_id": "other"}));
    assert!(ask(&foreign, &session).answered().starts_with("302 "));
    let (elsewhere, _) = gateway(&empty(), &json!({}));
    assert!(ask(&elsewhere, &session).answered().starts_with("302 "));
}

#[test]
fn whoever_writes_there_makes_nobody_somebody_else() {
    let kept = empty();
    let (trial, behaviour) = gateway(&kept, &json!({}));
    let one = log_in(&trial, &behaviour, "/");
    let (first, _) = only(&kept);
    let other = log_in(&trial, &behaviour, "/");
    let texts: Vec<(String, String)> = {
        let kept = kept.lock().unwrap();
        let entries = kept.as_ref().unwrap().iter();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        entries.map(|(key, (bytes, _))| (text(key), text(bytes))).collect()
    };
    assert_eq!(texts.len(), 2);
    let (_, of_other) = texts.iter().find(|(key, _)| *key != first).unwrap();
    write(&kept, &first, of_other);
    assert!(ask(&trial, &one).answered().starts_with("302 "), "it is bound to its name");
    assert_eq!(ask(&trial, &other).answered(), "");
    write(&kept, &first, "garbage");
    assert!(ask(&trial, &one).answered().starts_with("302 "));
}

#[test]
fn a_session_ends_there_when_it_ends_here() {
    let kept = empty();
    let (trial, behaviour) = gateway(&kept, &json!({}));
    let session = log_in(&trial, &behaviour, "/");
    trial.pass(Duration::from_secs(800));
    let run = ask(&trial, &session);
    assert_eq!((run.answered().as_str(), run.answer_field("Set-Cookie").as_str()), ("", ""), "same name");
    trial.pass(Duration::from_secs(899));
    assert_eq!(ask(&trial, &session).answered(), "", "it was used meanwhile");
    trial.pass(Duration::from_secs(900));
    assert!(ask(&trial, &session).answered().starts_with("302 "));
    assert!(kept.lock().unwrap().as_ref().unwrap().is_empty(), "nothing stays behind");
}

#[test]
fn a_session_ends_when_its_browser_logs_out_or_in_again() {
    let kept = empty();
    let (trial, behaviour) = gateway(&kept, &json!({}));
    let session = log_in(&trial, &behaviour, "/");
    let out = trial.run(&format!("GET /logout\nCookie: {session}"));
    assert!(query(&out.answer_field("Location")).contains_key("id_token_hint"));
    assert!(out.answer_field("Set-Cookie").contains("session=;"));
    assert!(ask(&trial, &session).answered().starts_with("302 "), "a copy of the cookie is good for nothing");
    assert!(kept.lock().unwrap().as_ref().unwrap().is_empty());

    let before = log_in(&trial, &behaviour, "/");
    let (key, _) = only(&kept);
    let sent = trial.run("GET /a");
    let asked = query(&sent.answer_field("Location"));
    behaviour.lock().unwrap().nonce = asked["nonce"].clone();
    let login = cookies(&sent.answer_field("Set-Cookie"));
    let back = format!("GET /a/.apisix/redirect?code=c&state={}\nCookie: {login}; {before}", asked["state"]);
    assert_eq!(trial.run(&back).answer_field("Location"), "/a");
    assert_ne!(only(&kept).0, key, "and one that begins is never called like one before");
}

#[test]
fn while_redis_is_away_nobody_is_let_in_passed_on_or_sent_around() {
    for action in ["auth", "deny", "pass"] {
        let kept = empty();
        let (trial, behaviour) = gateway(&kept, &json!({ "unauth_action": action }));
        let (logging_in, providing) = gateway(&kept, &json!({}));
        let session = log_in(&logging_in, &providing, "/");
        let entries = kept.lock().unwrap().take();
        for request in ["GET /", "GET /logout"] {
            let run = trial.run(&format!("{request}\nCookie: {session}"));
            let expected = "503 {\"message\":\"where sessions are kept, nobody answers\"}\n";
            assert_eq!(run.answered(), expected, "{action} {request}");
            assert_eq!(run.answer_field("Set-Cookie"), "", "the session goes on when it is back");
        }
        if action == "auth" {
            let arrived = come_back(&trial, &behaviour, "/");
            assert!(arrived.answered().starts_with("503 "), "{}", arrived.answered());
            assert_eq!(arrived.answer_field("Set-Cookie"), "", "the login can be tried again");
        }
        *kept.lock().unwrap() = entries;
        assert_eq!(ask(&trial, &session).answered(), "", "{action}");
    }
}

#[test]
fn a_session_that_ended_while_its_tokens_were_renewed_stays_ended() {
    let kept = empty();
    let (trial, behaviour) = gateway(&kept, &long());
    let session = log_in(&trial, &behaviour, "/");
    trial.pass(Duration::from_secs(3600));
    let (mut answer, gone) = (identity_provider(&behaviour), Arc::clone(&kept));
    let trial = trial.answering(move |request| {
        if form(request).get("grant_type").is_some_and(|kind| kind == "refresh_token") {
            gone.lock().unwrap().as_mut().unwrap().clear();
        }
        answer(request)
    });
    assert!(ask(&trial, &session).answered().starts_with("302 "));
    assert!(kept.lock().unwrap().as_ref().unwrap().is_empty());
}

#[test]
fn tokens_that_another_request_renewed_meanwhile_are_taken() {
    let kept = empty();
    let (slow, behaviour) = gateway(&kept, &long());
    let (fast, _) = gateway(&kept, &long());
    let session = log_in(&slow, &behaviour, "/");
    let (key, before) = only(&kept);
    for gateway in [&slow, &fast] {
        gateway.pass(Duration::from_secs(3600));
    }
    assert_eq!(ask(&fast, &session).sent("X-Access-Token"), "at-refresh_token");
    let (_, after) = only(&kept);
    write(&kept, &key, &before);
    let (mut answer, meanwhile, name) = (identity_provider(&behaviour), Arc::clone(&kept), key.clone());
    let slow = slow.answering(move |request| {
        if form(request).get("grant_type").is_some_and(|kind| kind == "refresh_token") {
            write(&meanwhile, &name, &after);
            return Ok(Response { status: 400, ..Response::default() });
        }
        answer(request)
    });
    let run = ask(&slow, &session);
    assert_eq!((run.answered().as_str(), run.sent("X-Access-Token").as_str()), ("", "at-refresh_token"));
}

#[test]
fn a_login_that_is_good_for_one_request_is_used_up_for_every_copy_of_the_cookie() {
    let kept = empty();
    let (trial, behaviour) = gateway(&kept, &json!({ "force_reauthorize": true }));
    let session = log_in(&trial, &behaviour, "/");
    assert_eq!(ask(&trial, &session).answered(), "");
    assert!(ask(&trial, &session).answered().starts_with("302 "));
    let (another, _) = gateway(&kept, &json!({ "force_reauthorize": true }));
    assert!(ask(&another, &session).answered().starts_with("302 "));
}
