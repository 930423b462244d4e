//! An identity provider that stands for a real one, browsers that go there and back, and tokens of every kind.

mod kept;
mod proofs;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::jose::{Algorithm, Signer, Token};
use crate::outbound::{Failure, Request, Response};
use crate::testing::{Run, Trial, refused};

/// When trials begin.
const NOW: u64 = 1_700_000_000;

/// What the identity provider is going to put into the next ID token.
#[derive(Default)]
struct Behaviour {
    nonce: String,
    is_away: bool,
    more: Map<String, Value>,
    expires_in: u64,
    /// What it says beside tokens that it granted.
    scope: Option<&'static str>,
}

type Shared = Arc<Mutex<Behaviour>>;

fn signer() -> Signer {
    let made: Value = serde_json::from_str(include_str!("../../../testdata/jose.json")).unwrap();
    Signer::new(Algorithm::RS256, made["keys"]["RSA"]["private"].as_str().unwrap(), Some("k1".to_owned()))
        .unwrap()
}

fn signed(claims: Value) -> String {
    let mut all =
        json!({"iss": "http://id", "sub": "jack", "aud": "gateway", "iat": NOW, "exp": NOW + 100_000});
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    signer().sign(&all).unwrap()
}

fn form(request: &Request) -> HashMap<String, String> {
    form_urlencoded::parse(&request.body).into_owned().collect()
}

fn identity_provider(behaviour: &Shared) -> impl FnMut(&Request) -> Result<Response, Failure> + Send + use<> {
    let behaviour = Arc::clone(behaviour);
    move |request| {
        let behaviour = behaviour.lock().unwrap();
        if behaviour.is_away {
            return Err(Failure::TimedOut);
        }
        let made: Value = serde_json::from_str(include_str!("../../../testdata/jose.json")).unwrap();
        let mut jwk = made["keys"]["RSA"]["jwk"].clone();
        (jwk["kid"], jwk["alg"]) = ("k1".into(), "RS256".into());
        let sent = form(request);
        let document = match request.url.as_str() {
            "http://id/d" => json!({
                "issuer": "http://id", "authorization_endpoint": "http://id/auth", "token_endpoint": "http://id/token",
                "userinfo_endpoint": "http://id/me", "jwks_uri": "http://id/keys", "introspection_endpoint": "http://id/introspect",
                "pushed_authorization_request_endpoint": "http://id/par", "end_session_endpoint": "http://id/end", "revocation_endpoint": "http://id/revoke",
            }),
            "http://id/keys" => json!({ "keys": [jwk] }),
            "http://id/par" => json!({"request_uri": format!("urn:{}", sent["state"]), "expires_in": 60}),
            "http://id/me" => json!({"sub": "jack", "email": "jack@example"}),
            "http://id/introspect" => match sent["token"].as_str() {
                "good" => json!({"active": true, "scope": "a b", "exp": NOW + 60, "sub": "jack"}),
                _ => json!({"active": false}),
            },
            "http://id/token" => {
                let mut claims = json!({ "nonce": behaviour.nonce });
                claims.as_object_mut().unwrap().extend(behaviour.more.clone());
                json!({"access_token": format!("at-{}", sent["grant_type"]), "refresh_token": "rt",
                    "expires_in": behaviour.expires_in, "id_token": signed(claims), "scope": behaviour.scope})
            }
            _ => json!({}),
        };
        Ok(Response { status: 200, body: document.to_string().into(), ..Response::default() })
    }
}

fn configured(more: &Value) -> Value {
    let mut config = json!({"client_id": "gateway", "client_secret": "s", "discovery": "http://id/d",
        "session": {"secret": "sixteen or more characters"}});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

fn trial(more: &Value) -> (Trial, Shared) {
    let behaviour = Shared::new(Mutex::new(Behaviour { expires_in: 3600, ..Behaviour::default() }));
    let trial = Trial::of("openid-connect", configured(more)).answering(identity_provider(&behaviour));
    (trial, behaviour)
}

fn decoded(run: &Run<'_>, name: &str) -> Value {
    STANDARD
        .decode(run.sent(name))
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default()
}

/// The cookies that an answer sets, as a browser sends them back.
fn cookies(set: &str) -> String {
    let lines = set.split(", ").filter_map(|line| line.split(';').next());
    lines.filter(|pair| !pair.ends_with('=')).collect::<Vec<_>>().join("; ")
}

fn query(location: &str) -> HashMap<String, String> {
    let (_, query) = location.split_once('?').unwrap_or_default();
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

/// A browser logs in; what it has to send from then on.
fn log_in(trial: &Trial, behaviour: &Shared, target: &str) -> String {
    let arrived = come_back(trial, behaviour, target);
    assert_eq!(arrived.answer_field("Location"), target, "{}", arrived.answered());
    cookies(&arrived.answer_field("Set-Cookie"))
}

/// A browser goes to the identity provider and comes back from there.
fn come_back<'t>(trial: &'t Trial, behaviour: &Shared, target: &str) -> Run<'t> {
    let sent = trial.run(&format!("GET {target}"));
    assert!(sent.answered().starts_with("302 "), "{}", sent.answered());
    let asked = query(&sent.answer_field("Location"));
    behaviour.lock().unwrap().nonce = asked["nonce"].clone();
    let back = asked["redirect_uri"].trim_start_matches("http://api.example").to_owned();
    let login = cookies(&sent.answer_field("Set-Cookie"));
    trial.run(&format!("GET {back}?code=c&state={}\nCookie: {login}", asked["state"]))
}

#[test]
fn tokens_in_requests_are_verified_by_published_keys() {
    let (trial, _) =
        trial(&json!({"bearer_only": true, "use_jwks": true, "realm": "r", "required_scopes": ["a"],
        "claim_validator": {"audience": {"required": true, "match_with_client_id": true}}}));
    let invalid =
        |reason: &str| format!("Bearer realm=\"r\", error=\"invalid_token\", error_description=\"{reason}\"");
    let good = json!({"scope": "a b"});
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        format!("Bearer {}", signed(claims))
    };
    for (shown, status, challenge) in [
        (format!("Bearer {}", signed(good.clone())), 0, String::new()),
        (with("aud", json!(["x", "gateway"])), 0, String::new()),
        (String::new(), 401, "Bearer realm=\"r\"".to_owned()),
        ("Bearer".to_owned(), 400, String::new()),
        ("Bearer x".to_owned(), 401, invalid("the token cannot be read")),
        (with("exp", (NOW).into()), 401, invalid("the token has expired")),
        (with("nbf", (NOW + 1000).into()), 401, invalid("the token is not valid yet")),
        (with("iss", "http://other".into()), 401, invalid("the issuer is not trusted")),
        (with("aud", "other".into()), 403, String::new()),
        (with("scope", "b".into()), 403, String::new()),
        (format!("{}x", with("a", 1.into())), 401, invalid("the token cannot be read")),
    ] {
        let run = match shown.as_str() {
            "" => trial.run("GET /"),
            shown => trial.run(&format!("GET /\nAuthorization: {shown}")),
        };
        let answered = run.answer.as_ref().map_or(0, |answer| answer.status);
        assert_eq!((answered, run.answer_field("WWW-Authenticate")), (status, challenge), "{shown}");
    }
    let fetched = trial.asked().iter().filter(|request| request.url == "http://id/keys").count();
    assert_eq!(fetched, 1, "keys are kept");
}

#[test]
fn the_upstream_learns_what_the_gateway_says_and_nothing_else() {
    let (trial, _) = trial(&json!({"bearer_only": true, "use_jwks": true}));
    let token = signed(json!({"role": "admin"}));
    let forged = "X-ID-Token: forged\nX-Userinfo: forged\nX-Refresh-Token: forged\nX-Raw-ID-Token: forged";
    let run = trial.run(&format!("GET /\nAuthorization: Bearer {token}\n{forged}"));
    assert_eq!(run.sent("X-Access-Token"), token);
    assert_eq!(decoded(&run, "X-Userinfo")["role"], "admin");
    assert_eq!(run.sent("X-ID-Token") + &run.sent("X-Refresh-Token") + &run.sent("X-Raw-ID-Token"), "");
}

#[test]
fn tokens_can_be_introspected_and_answers_are_remembered_and_c9_nobody_gets_in_where_nobody_answers() {
    let (trial, behaviour) = trial(&json!({"bearer_only": true, "required_scopes": ["b"]}));
    assert_eq!(trial.run("GET /\nAuthorization: Bearer good").answered(), "");
    assert!(trial.run("GET /\nAuthorization: Bearer bad").answered().starts_with("401 "));
    let asked = trial.asked();
    let introspected: Vec<_> = asked.iter().filter(|request| request.url == "http://id/introspect").collect();
    assert_eq!(introspected.len(), 2);
    let (_, value) = introspected[0].fields.iter().find(|(name, _)| name == "Authorization").unwrap();
    assert_eq!(String::from_utf8_lossy(value), "Basic Z2F0ZXdheTpz");
    behaviour.lock().unwrap().is_away = true;
    assert_eq!(trial.run("GET /\nAuthorization: Bearer good").answered(), "", "what is known is enough");
    trial.pass(Duration::from_secs(60));
    let nobody = trial.run("GET /\nAuthorization: Bearer good").answered();
    assert!(nobody.starts_with("503 "), "{nobody}: nobody knows, so nobody is let in");
}

#[test]
fn a_browser_logs_in_and_its_session_is_good_at_every_gateway() {
    let more = json!({"use_pkce": true, "scope": "openid email", "set_raw_id_token_header": true,
        "set_refresh_token_header": true, "authorization_params": {"prompt": "login"}});
    let (trial, behaviour) = trial(&more);
    let session = log_in(&trial, &behaviour, "/a?b=1");
    let granted = trial.asked().into_iter().find(|request| request.url == "http://id/token").unwrap();
    let granted = form(&granted);
    assert_eq!(
        (granted["code"].as_str(), granted["redirect_uri"].as_str()),
        ("c", "http://api.example/a/.apisix/redirect")
    );
    assert!(granted["code_verifier"].len() >= 43);
    let (another, _) = self::trial(&more);
    for gateway in [&trial, &another] {
        let run = gateway.run(&format!("GET /other\nCookie: {session}"));
        assert_eq!(run.answered(), "");
        assert_eq!(run.sent("X-Access-Token"), "at-authorization_code");
        assert_eq!(decoded(&run, "X-ID-Token")["sub"], "jack");
        assert_eq!(decoded(&run, "X-Userinfo")["email"], "jack@example");
        assert_eq!(run.sent("X-Refresh-Token"), "rt");
        assert!(Token::parse(run.sent("X-Raw-ID-Token").as_bytes()).is_ok());
    }
    let other = json!({"session": {"secret": "another secret, long enough"}});
    let (foreign, _) = self::trial(&other);
    assert!(foreign.run(&format!("GET /\nCookie: {session}")).answered().starts_with("302 "));
}

#[test]
fn a_browser_is_asked_for_what_the_configuration_says() {
    let (trial, _) = trial(&json!({"use_pkce": true, "redirect_uri": "https://shop.example/back",
        "authorization_params": {"prompt": "login"}}));
    let trial = trial.over_tls();
    let run = trial.run("GET /a?b");
    let asked = query(&run.answer_field("Location"));
    assert!(run.answer_field("Location").starts_with("http://id/auth?"));
    for (name, expected) in [
        ("response_type", "code"),
        ("client_id", "gateway"),
        ("redirect_uri", "https://shop.example/back"),
        ("scope", "openid"),
        ("code_challenge_method", "S256"),
        ("prompt", "login"),
    ] {
        assert_eq!(asked[name], expected, "{name}");
    }
    let cookie = run.answer_field("Set-Cookie");
    for attribute in ["; Path=/", "; HttpOnly", "; SameSite=Lax", "; Secure", "; Max-Age=600"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
}

#[test]
fn what_does_not_fit_the_login_begins_no_session() {
    let (trial, behaviour) = trial(&json!({}));
    let sent = trial.run("GET /a");
    let asked = query(&sent.answer_field("Location"));
    let login = cookies(&sent.answer_field("Set-Cookie"));
    let back = |query: &str, cookie: &str| {
        trial.run(&format!("GET /a/.apisix/redirect?{query}\nCookie: {cookie}")).answered()
    };
    let state = &asked["state"];
    // Without the login, or with the state of another: begin anew.
    assert!(back(&format!("code=c&state={state}"), "a=b").starts_with("302 "));
    assert!(back("code=c&state=other", &login).starts_with("302 "));
    assert!(back(&format!("error=access_denied&state={state}"), &login).starts_with("500 "));
    // The ID token is for another login, client, or issuer, or too old.
    for more in [
        json!({}),
        json!({"aud": "other"}),
        json!({"iss": "http://other"}),
        json!({"exp": NOW}),
        json!({"azp": "other"}),
    ] {
        let mut next = behaviour.lock().unwrap();
        next.nonce = if more == json!({}) { "other".to_owned() } else { asked["nonce"].clone() };
        next.more = more.as_object().unwrap().clone();
        drop(next);
        let answered = back(&format!("code=c&state={state}"), &login);
        assert!(answered.starts_with("500 "), "{more}: {answered}");
    }
    trial.pass(Duration::from_secs(600));
    assert!(back(&format!("code=c&state={state}"), &login).starts_with("302 "), "too late");
}

#[test]
fn tokens_are_renewed_and_sessions_end() {
    let (trial, behaviour) =
        trial(&json!({"session": {"secret": "sixteen or more characters", "idling_timeout": 7200,
        "rolling_timeout": 7200, "absolute_timeout": 10_000}}));
    let session = log_in(&trial, &behaviour, "/");
    trial.pass(Duration::from_secs(3600));
    let renewed = trial.run(&format!("GET /\nCookie: {session}"));
    assert_eq!(renewed.sent("X-Access-Token"), "at-refresh_token");
    let session = cookies(&renewed.answer_field("Set-Cookie"));
    assert_eq!(
        trial.run(&format!("GET /\nCookie: {session}")).answer_field("Set-Cookie"),
        "",
        "written once"
    );
    trial.pass(Duration::from_secs(7199));
    behaviour.lock().unwrap().is_away = true;
    assert!(!trial.run(&format!("GET /\nCookie: {session}")).answered().is_empty(), "the session is over");
}

#[test]
fn where_tokens_are_not_to_be_renewed_a_session_outlives_them() {
    let (trial, behaviour) = trial(&json!({"renew_access_token_on_expiry": false,
        "session": {"secret": "sixteen or more characters", "idling_timeout": 7200, "rolling_timeout": 7200}}));
    let session = log_in(&trial, &behaviour, "/");
    trial.pass(Duration::from_secs(3601));
    let run = trial.run(&format!("GET /\nCookie: {session}"));
    assert_eq!((run.answered().as_str(), run.sent("X-Access-Token").as_str()), ("", "at-authorization_code"));
}

#[test]
fn a_session_that_nobody_uses_ends_and_one_in_use_does_not() {
    let (trial, behaviour) = trial(&json!({}));
    let mut session = log_in(&trial, &behaviour, "/");
    for _ in 0..3 {
        trial.pass(Duration::from_secs(800));
        let run = trial.run(&format!("GET /\nCookie: {session}"));
        assert_eq!(run.answered(), "");
        session = cookies(&run.answer_field("Set-Cookie"));
    }
    trial.pass(Duration::from_secs(900));
    assert!(trial.run(&format!("GET /\nCookie: {session}")).answered().starts_with("302 "));
}

#[test]
fn a_timeout_of_zero_is_none() {
    let secret = "sixteen or more characters";
    let (trial, behaviour) = trial(&json!({"session":
        {"secret": secret, "idling_timeout": 0, "rolling_timeout": 0, "absolute_timeout": 0}}));
    behaviour.lock().unwrap().expires_in = 10_000_000;
    let session = log_in(&trial, &behaviour, "/");
    trial.pass(Duration::from_secs(9_000_000));
    assert_eq!(trial.run(&format!("GET /\nCookie: {session}")).answered(), "");
}

#[test]
fn where_it_is_forced_every_request_needs_a_login_of_its_own() {
    let (trial, behaviour) = trial(&json!({ "force_reauthorize": true }));
    let fresh = log_in(&trial, &behaviour, "/a?b");
    let ask = |target: &str, session: &str| trial.run(&format!("GET {target}\nCookie: {session}"));
    assert!(ask("/b", &fresh).answered().starts_with("302 "), "the login was made for another");
    let run = ask("/a?b", &fresh);
    assert_eq!((run.answered().as_str(), run.sent("X-Access-Token").as_str()), ("", "at-authorization_code"));
    let used = cookies(&run.answer_field("Set-Cookie"));
    assert!(ask("/a?b", &used).answered().starts_with("302 "), "and is good for one request");
    let out = ask("/logout", &used).answer_field("Location");
    assert!(query(&out).contains_key("id_token_hint"), "{out}");
    trial.pass(Duration::from_secs(60));
    assert!(ask("/a?b", &fresh).answered().starts_with("302 "), "which has to come soon");
    for (action, expected) in [("deny", "401 "), ("pass", "")] {
        let (trial, _) = self::trial(&json!({"force_reauthorize": true, "unauth_action": action}));
        let run = trial.run(&format!("GET /a?b\nCookie: {used}"));
        assert!(run.answered().starts_with(expected), "{action}: {}", run.answered());
        assert_eq!(run.sent("X-Access-Token"), "");
    }
}

#[test]
fn a_login_has_to_be_as_the_configuration_demands() {
    let schema = |wanted: &str| {
        json!({"claim_schema": {"type": "object", "required": ["access_token", "user", "id_token"],
            "properties": {"id_token": {"required": [wanted]}}}})
    };
    let scopes = json!({"required_scopes": ["a"]});
    let in_id_token = json!({"scope": "a"});
    for (more, scope, claims, expected) in [
        (schema("sub"), None, json!({}), "302 "),
        (schema("role"), None, json!({}), "401 "),
        (scopes.clone(), None, json!({}), "403 "),
        (scopes.clone(), Some("b a"), json!({}), "302 "),
        (scopes.clone(), None, in_id_token.clone(), "302 "),
        (scopes, Some("b"), in_id_token, "403 "),
    ] {
        let (trial, behaviour) = trial(&more);
        behaviour.lock().unwrap().scope = scope;
        behaviour.lock().unwrap().more = claims.as_object().unwrap().clone();
        let answered = come_back(&trial, &behaviour, "/").answered();
        assert!(answered.starts_with(expected), "{more} {scope:?} {claims}: {answered}");
    }
}

#[test]
fn logging_out_forgets_the_session_and_tells_the_identity_provider() {
    let (trial, behaviour) = trial(
        &json!({"post_logout_redirect_uri": "https://shop.example/bye", "revoke_tokens_on_logout": true}),
    );
    let session = log_in(&trial, &behaviour, "/");
    trial.asked();
    let run = trial.run(&format!("GET /logout\nCookie: {session}"));
    let asked = query(&run.answer_field("Location"));
    assert!(run.answer_field("Location").starts_with("http://id/end?"));
    assert_eq!(asked["post_logout_redirect_uri"], "https://shop.example/bye");
    assert!(Token::parse(asked["id_token_hint"].as_bytes()).is_ok());
    assert!(
        run.answer_field("Set-Cookie").contains("session=;")
            && run.answer_field("Set-Cookie").contains("Max-Age=0")
    );
    let revoked: Vec<_> = trial.asked().iter().map(|request| form(request)["token"].clone()).collect();
    assert_eq!(revoked, ["rt", "at-authorization_code"]);
}

#[test]
fn nobody_known_is_refused_or_let_through_as_configured() {
    for (action, expected) in [("deny", "401 "), ("pass", ""), ("auth", "302 ")] {
        let (trial, _) = trial(&json!({ "unauth_action": action }));
        let run = trial.run("GET /\nX-Userinfo: forged");
        assert!(run.answered().starts_with(expected), "{action}");
        assert_eq!(run.sent("X-Userinfo"), "");
    }
    let (away, behaviour) = trial(&json!({}));
    behaviour.lock().unwrap().is_away = true;
    assert!(away.run("GET /").answered().starts_with("503 "));
}

#[test]
fn what_a_browser_is_sent_for_can_be_said_to_the_identity_provider_itself() {
    for (method, own) in [("client_secret_basic", false), ("client_secret_post", true)] {
        let par = json!({"enabled": true, "endpoint_auth_method": method});
        let (trial, _) = trial(&json!({"use_pkce": true, "par": par}));
        let sent = trial.run("GET /a");
        let pushed = trial.asked().into_iter().find(|request| request.url == "http://id/par").unwrap();
        let said = form(&pushed);
        let location = sent.answer_field("Location");
        assert!(location.starts_with("http://id/auth?"), "{location}");
        let expected =
            [("client_id", "gateway".to_owned()), ("request_uri", format!("urn:{}", said["state"]))];
        let expected = expected.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(query(&location), HashMap::from(expected), "a browser carries nothing else");
        assert_eq!((said["response_type"].as_str(), said["client_id"].as_str()), ("code", "gateway"));
        assert!(said.contains_key("nonce") && said.contains_key("code_challenge"), "{said:?}");
        assert_eq!(said.contains_key("client_secret"), own, "{method}");
        assert_eq!(form_urlencoded::parse(&pushed.body).filter(|(name, _)| name == "client_id").count(), 1);
    }
    let nowhere = json!({"par": {"enabled": true, "endpoint": "http://id/nowhere"}});
    assert!(trial(&nowhere).0.run("GET /").answered().starts_with("503 "), "what is not pushed is not asked");
}

#[test]
fn clients_prove_themselves_with_assertions_as_well() {
    let made: Value = serde_json::from_str(include_str!("../../../testdata/jose.json")).unwrap();
    let (trial, behaviour) = trial(&json!({"token_endpoint_auth_method": "private_key_jwt",
        "client_rsa_private_key": made["keys"]["RSA"]["private"], "client_rsa_private_key_id": "own"}));
    log_in(&trial, &behaviour, "/");
    let granted = trial.asked().into_iter().find(|request| request.url == "http://id/token").unwrap();
    let assertion = Token::parse(form(&granted)["client_assertion"].as_bytes()).unwrap();
    assert_eq!(
        (assertion.key_id(), assertion.text("iss"), assertion.text("aud")),
        (Some("own"), Some("gateway"), Some("http://id/token"))
    );
}

#[test]
fn what_cannot_be_done_is_refused() {
    let of = |more: Value| refused("openid-connect", &configured(&more));
    assert_eq!(of(json!({})), [""; 0]);
    assert_eq!(refused("openid-connect", &json!({})), ["/client_id", "/discovery"]);
    assert_eq!(refused("openid-connect", &json!({"client_id": "c", "discovery": "d"})), ["/session"]);
    assert_eq!(of(json!({"session": {"secret": "short"}})), ["/session/secret"]);
    assert_eq!(of(json!({"par": {"endpoint_auth_method": "by heart"}})), ["/par/endpoint_auth_method"]);
    let session = |more: Value| {
        let mut session = json!({"secret": "0123456789abcdef", "storage": "redis"});
        session.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        of(json!({ "session": session }))
    };
    assert_eq!(session(json!({})), ["/session/redis"]);
    assert_eq!(session(json!({"redis": {}})), [""; 0]);
    assert_eq!(
        session(json!({"redis": {"host": "r", "read_timeout": 0}})),
        ["/session/redis/host", "/session/redis/read_timeout"]
    );
    assert_eq!(
        of(json!({"public_key": "no key", "claim_schema": {"type": 1}})),
        ["/claim_schema", "/public_key"]
    );
    assert_eq!(of(json!({"token_endpoint_auth_method": "private_key_jwt"})), ["/client_rsa_private_key"]);
}
