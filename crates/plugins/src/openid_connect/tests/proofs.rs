//! Tokens that are bound to a key of the gateway, and what proves that it has it.

use ring::digest::{SHA256, digest};

use super::*;
use crate::jose::{Key, URL_SAFE};

fn keys(kind: &str) -> Value {
    let made: Value = serde_json::from_str(include_str!("../../../testdata/jose.json")).unwrap();
    made["keys"][kind].clone()
}

fn dpop(kind: &str, algorithm: &str) -> Value {
    let keys = keys(kind);
    json!({"enabled": true, "signing_alg": algorithm, "private_key": keys["private"], "public_jwk": keys["jwk"]})
}

/// The proof that came with a request, verified with the key that it names.
fn proof(request: &Request) -> Option<Token> {
    let (_, value) = request.fields.iter().find(|(name, _)| name == "DPoP")?;
    let token = Token::parse(value).unwrap();
    let key = Key::from_jwk(&token.header["jwk"]).unwrap();
    assert!(token.is_signed_by(&key, token.algorithm().unwrap()));
    assert_eq!(token.header["typ"], "dpop+jwt");
    Some(token)
}

fn refusing(status: u16, nonce: &str) -> Response {
    let fields = vec![
        ("dpop-nonce".to_owned(), nonce.as_bytes().to_vec()),
        ("www-authenticate".to_owned(), b"DPoP error=\"use_dpop_nonce\"".to_vec()),
    ];
    Response { status, fields, body: r#"{"error":"use_dpop_nonce"}"#.into() }
}

/// An identity provider that grants tokens to whoever proves to have a key, and wants a nonce in each proof.
fn strict(behaviour: &Shared) -> impl FnMut(&Request) -> Result<Response, Failure> + Send + use<> {
    let mut usual = identity_provider(behaviour);
    move |request| {
        let (status, nonce) = match request.url.as_str() {
            "http://id/token" => (400, "of token"),
            "http://id/me" => (401, "of me"),
            _ => return usual(request),
        };
        let proof = proof(request).expect("a proof");
        if proof.text("nonce") != Some(nonce) {
            return Ok(refusing(status, nonce));
        }
        let mut answer = usual(request)?;
        let mut document: Value = serde_json::from_slice(&answer.body).unwrap();
        document["token_type"] = "DPoP".into();
        answer.body = document.to_string().into();
        Ok(answer)
    }
}

#[test]
fn whoever_grants_tokens_and_takes_them_is_shown_a_proof_with_the_nonce_it_wants() {
    for (kind, algorithm) in [("P-256", "ES256"), ("RSA", "RS256"), ("RSA", "PS256")] {
        let (trial, behaviour) = trial(&json!({"dpop": dpop(kind, algorithm)}));
        let trial = trial.answering(strict(&behaviour));
        let session = log_in(&trial, &behaviour, "/");
        let proofs: Vec<Token> = trial.asked().iter().filter_map(proof).collect();
        let of = |token: &Token| {
            let text = |claim: &str| token.text(claim).unwrap_or_default().to_owned();
            (token.header["alg"].as_str().unwrap().to_owned(), text("htm"), text("htu"), text("nonce"))
        };
        let expected = [
            ("POST", "http://id/token", ""),
            ("POST", "http://id/token", "of token"),
            ("GET", "http://id/me", ""),
            ("GET", "http://id/me", "of me"),
        ];
        let text = |text: &str| text.to_owned();
        let expected =
            expected.map(|(method, url, nonce)| (text(algorithm), text(method), text(url), text(nonce)));
        assert_eq!(proofs.iter().map(of).collect::<Vec<_>>(), expected);
        let shown = URL_SAFE.encode(digest(&SHA256, b"at-authorization_code"));
        let bound: Vec<_> = proofs.iter().map(|proof| proof.text("ath")).collect();
        assert_eq!(bound, [None, None, Some(shown.as_str()), Some(shown.as_str())]);
        let mut ids: Vec<_> = proofs.iter().filter_map(|proof| proof.text("jti")).collect();
        ids.dedup();
        assert_eq!(ids.len(), 4, "each is used once");
        assert!(proofs.iter().all(|proof| proof.time("iat") == Some(1_700_000_000.0)));
        assert!(proofs.iter().all(|proof| proof.header["jwk"].get("kid").is_none()), "only what counts");

        let (session, asked) = renewing(&trial, session);
        assert_eq!(asked, ["of token"], "the nonce is known by now");
        assert_eq!(
            trial.run(&format!("GET /\nCookie: {session}")).sent("X-Access-Token"),
            "at-refresh_token"
        );
    }
}

/// Lets the browser come until its tokens are renewed; what it sends from then on, and the nonces of all proofs.
fn renewing(trial: &Trial, mut session: String) -> (String, Vec<String>) {
    loop {
        trial.pass(Duration::from_secs(600));
        let run = trial.run(&format!("GET /\nCookie: {session}"));
        assert_eq!(run.answered(), "");
        session = cookies(&run.answer_field("Set-Cookie"));
        if run.sent("X-Access-Token") == "at-refresh_token" {
            let proofs = trial.asked().iter().filter_map(proof).collect::<Vec<_>>();
            let nonces = proofs.iter().map(|proof| proof.text("nonce").unwrap_or_default().to_owned());
            return (session, nonces.collect());
        }
    }
}

#[test]
fn the_code_is_bound_to_the_key_as_well() {
    let jwk = &keys("P-256")["jwk"];
    let counted = format!(
        r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#,
        jwk["x"].as_str().unwrap(),
        jwk["y"].as_str().unwrap()
    );
    let thumbprint = URL_SAFE.encode(digest(&SHA256, counted.as_bytes()));
    let (plain, _) = trial(&json!({"dpop": dpop("P-256", "ES256")}));
    assert_eq!(query(&plain.run("GET /").answer_field("Location"))["dpop_jkt"], thumbprint);
    let (pushing, _) = trial(&json!({"dpop": dpop("P-256", "ES256"), "par": {"enabled": true}}));
    pushing.run("GET /");
    let pushed = pushing.asked().into_iter().find(|request| request.url == "http://id/par").unwrap();
    assert_eq!(form(&pushed)["dpop_jkt"], thumbprint);
}

#[test]
fn tokens_that_are_not_bound_let_nobody_in() {
    // It takes proofs for nothing.
    let (trial, behaviour) = trial(&json!({"dpop": dpop("P-256", "ES256")}));
    let answered = come_back(&trial, &behaviour, "/").answered();
    assert!(answered.starts_with("500 ") && answered.contains("not bound"), "{answered}");
    // It wants a nonce again and again.
    let (trial, behaviour) = self::trial(&json!({"dpop": dpop("P-256", "ES256")}));
    let mut usual = identity_provider(&behaviour);
    let trial = trial.answering(move |request| match request.url.as_str() {
        "http://id/token" => Ok(refusing(400, "another")),
        _ => usual(request),
    });
    assert!(come_back(&trial, &behaviour, "/").answered().starts_with("500 "));
    let asked = trial.asked().iter().filter(|request| request.url == "http://id/token").count();
    assert_eq!(asked, 2, "once more, and no more");
    // It says that it cannot verify them.
    let (trial, behaviour) = self::trial(&json!({"dpop": dpop("P-256", "ES256")}));
    let mut usual = identity_provider(&behaviour);
    let trial = trial.answering(move |request| {
        let mut answer = usual(request)?;
        if request.url == "http://id/d" {
            let mut document: Value = serde_json::from_slice(&answer.body).unwrap();
            document["dpop_signing_alg_values_supported"] = json!(["RS256", "EdDSA"]);
            answer.body = document.to_string().into();
        }
        Ok(answer)
    });
    let answered = trial.run("GET /").answered();
    assert!(answered.starts_with("503 ") && answered.contains("ES256"), "{answered}");
}

#[test]
fn keys_that_make_no_proofs_are_refused() {
    let of = |change: &dyn Fn(&mut Value)| {
        let mut dpop = dpop("P-256", "ES256");
        change(&mut dpop);
        refused("openid-connect", &configured(&json!({ "dpop": dpop })))
    };
    let other = || keys("RSA")["jwk"].clone();
    assert_eq!(of(&|_| ()), [""; 0]);
    assert_eq!(of(&|dpop| dpop["public_jwk"] = other()), ["/dpop/public_jwk"]);
    assert_eq!(of(&|dpop| dpop["public_jwk"]["x"] = dpop["public_jwk"]["y"].clone()), ["/dpop/public_jwk"]);
    assert_eq!(of(&|dpop| dpop["public_jwk"]["d"] = "AA".into()), ["/dpop/public_jwk"], "it is no secret");
    assert_eq!(of(&|dpop| dpop["private_key"] = "no key".into()), ["/dpop/private_key"]);
    assert_eq!(of(&|dpop| dpop["signing_alg"] = "RS256".into()), ["/dpop/private_key"]);
    assert_eq!(of(&|dpop| dpop["signing_alg"] = "none".into()), ["/dpop/signing_alg"]);
    let bare = |enabled: bool| refused("openid-connect", &configured(&json!({"dpop": {"enabled": enabled}})));
    assert_eq!(bare(true), ["/dpop/private_key", "/dpop/public_jwk"]);
    assert_eq!(bare(false), [""; 0], "keys may be laid out before they are used");
}
