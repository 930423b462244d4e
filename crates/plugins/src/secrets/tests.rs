//! References, and providers asked through a fake outside.

use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::*;
use crate::jose::{Algorithm, Key, Token};
use crate::outbound::{Failure, Request};
use crate::testing::ready;

/// Answers from a table of what a request must look like; remembers the requests.
struct Outside {
    answers: Vec<(&'static str, u16, Value)>,
    asked: Mutex<Vec<Request>>,
}

impl Outbound for Outside {
    fn send(&self, request: Request) -> Waiting<Result<Response, Failure>> {
        let line = format!("{} {}", request.method, request.url);
        let known = self.answers.iter().find(|(wanted, ..)| *wanted == line);
        let answer = known.map(|(_, status, body)| Response {
            status: *status,
            body: body.to_string().into(),
            ..Response::default()
        });
        self.asked.lock().unwrap().push(request);
        Box::pin(std::future::ready(answer.ok_or(Failure::Unreachable(line))))
    }

    fn spawn(&self, _: Waiting<()>) {}

    fn sleep(&self, _: Duration) -> Waiting<()> {
        Box::pin(std::future::pending())
    }
}

fn outside(answers: Vec<(&'static str, u16, Value)>) -> (Arc<Outside>, Arc<dyn Outbound>) {
    let outside = Arc::new(Outside { answers, asked: Mutex::default() });
    (Arc::clone(&outside), outside)
}

fn settings(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn read(provider: &Arc<dyn Provider>, path: &str) -> Result<String, String> {
    ready(provider.read(path, Duration::from_secs(1_700_000_000)))
}

fn said(request: &Request, name: &str) -> String {
    let mut named = request.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
    named.next().map(|(_, value)| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
}

#[test]
fn references_are_read_and_what_leads_nowhere_is_refused() {
    let secret =
        |provider: &str, path: &str| Reference::Secret { provider: provider.into(), path: path.into() };
    let env = |name: &str, key: Option<&str>| Reference::Env { name: name.into(), key: key.map(Into::into) };
    for (text, expected) in [
        ("$secret://vault/1/jack/auth-key", Some(secret("vault.1", "jack/auth-key"))),
        ("$SECRET://aws/my/one", Some(secret("aws.my", "one"))),
        ("$env://KEY", Some(env("KEY", None))),
        ("$ENV://KEY/member", Some(env("KEY", Some("member")))),
        ("$env://", None),
        ("$env://KEY/", None),
        ("$secret://vault/1", None),
        ("$secret://vault//x", None),
    ] {
        assert!(is_reference(text), "{text}");
        assert_eq!(Reference::parse(text).ok(), expected, "{text}");
    }
    for text in ["", "secret", "$remote_addr", "x $env://KEY", "$é"] {
        assert!(!is_reference(text), "{text}");
    }
}

#[test]
fn references_are_found_and_replaced_wherever_they_stand() {
    let mut config = json!({"a": ["$env://A", {"b": "$env://B"}], "c": "plain", "d": 1});
    let mut found = BTreeSet::new();
    collect(&config, &mut found);
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["$env://A", "$env://B"]);
    replace(&mut config, &|reference| (reference == "$env://A").then(|| "value".into()));
    assert_eq!(config, json!({"a": ["value", {"b": "$env://B"}], "c": "plain", "d": 1}));
    assert_eq!(unresolved(&config).to_string(), "secret `$env://B` is not resolved");
}

#[test]
fn a_configuration_is_checked_around_its_references() {
    let check = |name: &str, config: Value| crate::validate(name, &config).to_string();
    // What a reference stands for may be as long, and of the form, that the field wants.
    assert_eq!(check("key-auth", json!({"realm": "$env://REALM"})), "");
    assert_eq!(check("csrf", json!({"key": "$secret://vault/1/csrf/key"})), "");
    assert!(check("csrf", json!({"key": "$secret://vault/csrf"})).contains("/key"));
    assert!(check("csrf", json!({"key": "$env://KEY", "expires": "x"})).contains("/expires"));
    let credential = json!({"key": "k", "algorithm": "RS256", "public_key": "$env://PEM"});
    assert_eq!(crate::validate_credential("jwt-auth", &credential).to_string(), "");
}

#[test]
fn vault_keeps_secrets_of_both_versions() {
    let (asked, outbound) = outside(vec![
        ("GET http://vault:8200/v1/kv/apisix/jack", 200, json!({"data": {"key": "one", "number": 7}})),
        ("GET http://vault:8200/v1/kv/apisix/team/jill", 404, json!({})),
        (
            "GET http://vault:8200/v1/kv/data/apisix/team/jill",
            200,
            json!({"data": {"data": {"key": "two"}, "metadata": {"version": 3}}}),
        ),
        ("GET http://vault:8200/v1/kv/apisix/sealed", 503, json!({"errors": ["a secret"]})),
    ]);
    let vault = json!({"uri": "http://vault:8200/", "prefix": "kv/apisix", "token": "t", "namespace": "n"});
    let vault = open("vault.1", &settings(vault), &outbound).unwrap();
    for (path, expected) in [
        ("jack/key", Ok("one")),
        ("jack/number", Ok("7")),
        ("jack/other", Err("vault: the secret has no member `other`")),
        ("team/jill/key", Ok("two")),
        ("sealed/key", Err("vault answered 503")),
        ("key", Err("`key` must be like `path/key`")),
    ] {
        assert_eq!(read(&vault, path).as_deref().map_err(String::as_str), expected, "{path}");
    }
    let asked = asked.asked.lock().unwrap();
    assert_eq!(
        (said(&asked[0], "x-vault-token"), said(&asked[0], "x-vault-namespace")),
        ("t".into(), "n".into())
    );
}

#[test]
fn aws_is_asked_with_a_signature() {
    let (asked, outbound) =
        outside(vec![("POST http://127.0.0.1:5000/", 200, json!({"SecretString": "{\"key\":\"one\"}"}))]);
    let aws = json!({"access_key_id": "id", "secret_access_key": "key", "session_token": "st", "region": "eu-west-1",
        "endpoint_url": "http://127.0.0.1:5000"});
    let aws = open("aws.1", &settings(aws), &outbound).unwrap();
    assert_eq!(read(&aws, "jack/key"), Ok("one".to_owned()));
    assert_eq!(read(&aws, "jack"), Ok("{\"key\":\"one\"}".to_owned()));
    assert!(read(&aws, "jack/other").is_err());
    let asked = asked.asked.lock().unwrap();
    assert_eq!(&asked[0].body[..], b"{\"SecretId\":\"jack\"}");
    assert_eq!(said(&asked[0], "x-amz-date"), "20231114T221320Z");
    let authorization = said(&asked[0], "authorization");
    let expected = "AWS4-HMAC-SHA256 Credential=id/20231114/eu-west-1/secretsmanager/aws4_request, \
                    SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target, Signature=";
    assert!(authorization.starts_with(expected), "{authorization}");
}

#[test]
fn gcp_is_asked_as_a_service_account() {
    let made: Value = serde_json::from_str(include_str!("../../testdata/jose.json")).unwrap();
    let (asked, outbound) = outside(vec![
        ("POST http://g/token", 200, json!({"access_token": "at", "expires_in": 3600})),
        (
            "GET http://g/v1/projects/p/secrets/jack/versions/latest:access",
            200,
            json!({"payload": {"data": STANDARD.encode("{\"key\":\"one\"}")}}),
        ),
    ]);
    let account = json!({"client_email": "a@p", "private_key": made["keys"]["RSA"]["private"], "project_id": "p",
        "token_uri": "http://g/token", "entries_uri": "http://g/v1"});
    let gcp = open("gcp.1", &settings(json!({ "auth_config": account })), &outbound).unwrap();
    assert_eq!(read(&gcp, "jack/key"), Ok("one".to_owned()));
    assert_eq!(read(&gcp, "jack").map(|text| text.len()), Ok(13));
    let asked = asked.asked.lock().unwrap();
    assert_eq!(asked.len(), 3, "one token for both");
    assert_eq!(said(&asked[1], "authorization"), "Bearer at");
    let body: std::collections::HashMap<_, _> = form_urlencoded::parse(&asked[0].body).collect();
    let assertion = Token::parse(body["assertion"].as_bytes()).unwrap();
    let key = Key::from_pem(made["keys"]["RSA"]["public"].as_str().unwrap()).unwrap();
    assert!(assertion.is_signed_by(&key, Algorithm::RS256));
    assert_eq!((assertion.text("iss"), assertion.text("aud")), (Some("a@p"), Some("http://g/token")));
}

#[test]
fn settings_that_cannot_be_used_are_named() {
    let (_, outbound) = outside(Vec::new());
    let wrong = |name: &str, value: Value| open(name, &settings(value), &outbound).err().unwrap_or_default();
    assert!(wrong("vault.1", json!({"uri": "x"})).contains("prefix"));
    assert!(wrong("kubernetes.1", json!({})).contains("kubernetes"));
    let account = json!({"client_email": "a", "private_key": "none", "project_id": "p"});
    assert!(wrong("gcp.1", json!({ "auth_config": account })).contains("private key"));
}
