//! Tokens that others made, verified with every kind of key, and our own verified back.

use serde_json::{Value, json};

use super::*;

fn made() -> Value {
    serde_json::from_str(include_str!("../../testdata/jose.json")).expect("keys and tokens")
}

/// Every algorithm with its token and the keys that verify it.
fn cases() -> Vec<(Algorithm, String, Vec<Key>)> {
    let made = made();
    let tokens = made["tokens"].as_object().expect("tokens").iter();
    let cases = tokens.map(|(name, case)| {
        let keys = &made["keys"][case["key"].as_str().expect("a key")];
        let keys = match keys["secret"].as_str() {
            Some(secret) => vec![Key::secret(secret.as_bytes())],
            None => vec![
                Key::from_pem(keys["public"].as_str().expect("a key")).expect("a key"),
                Key::from_jwk(&keys["jwk"]).expect("a key"),
            ],
        };
        (Algorithm::of(name).expect(name), case["token"].as_str().expect("a token").to_owned(), keys)
    });
    cases.collect()
}

#[test]
fn tokens_of_every_algorithm_are_verified_by_their_key_and_no_other() {
    let cases = cases();
    assert_eq!(cases.len(), 13);
    for (algorithm, text, keys) in &cases {
        let token = Token::parse(text.as_bytes()).unwrap();
        assert_eq!((token.algorithm(), token.key_id()), (Some(*algorithm), Some("k1")));
        assert_eq!(token.text("key"), Some(&*format!("jack-{algorithm:?}")));
        for (other, _, others) in &cases {
            for (key, own) in others.iter().zip(0..) {
                let expected = keys.get(own).is_some_and(|_| algorithm == other)
                    || (key.is_for(*algorithm) && !algorithm.is_symmetric() && keys[0].is_for(*other))
                    || (algorithm.is_symmetric() && other.is_symmetric());
                assert_eq!(token.is_signed_by(key, *algorithm), expected, "{algorithm:?} by {other:?}'s key");
                if algorithm != other {
                    assert!(!token.is_signed_by(key, *other), "{algorithm:?} taken for {other:?}");
                }
            }
        }
        // One bit elsewhere, in what is signed and in the signature.
        let (start, signature) = text.rsplit_once('.').unwrap();
        let (header, _) = start.split_once('.').unwrap();
        let forged = format!("{header}.{}.{signature}", URL_SAFE.encode(r#"{"key":"admin"}"#));
        let mut bytes = URL_SAFE.decode(signature).unwrap();
        bytes[7] ^= 1;
        let flipped = format!("{start}.{}", URL_SAFE.encode(bytes));
        for text in [forged, flipped, format!("{start}.")] {
            let token = Token::parse(text.as_bytes()).unwrap();
            assert!(!keys.iter().any(|key| token.is_signed_by(key, *algorithm)), "{text}");
        }
    }
}

#[test]
fn what_is_no_token_is_not_read() {
    let none = format!("{}.{}.", URL_SAFE.encode(r#"{"alg":"none"}"#), URL_SAFE.encode("{}"));
    let token = Token::parse(none.as_bytes()).unwrap();
    assert_eq!(token.algorithm(), None, "no signature is no algorithm");
    let critical =
        format!("{}.{}.", URL_SAFE.encode(r#"{"alg":"HS256","crit":["b64"]}"#), URL_SAFE.encode("{}"));
    for text in ["", "a.b", "a.b.c", "e30.e30", "e30.e30.e30.e30", "e30.W10.", "W10.e30.", &critical] {
        assert!(Token::parse(text.as_bytes()).is_err(), "{text}");
    }
    assert!(Token::parse(&vec![b'a'; TOKEN_BYTES_MAX + 1]).is_err());
}

#[test]
fn tokens_of_our_own_are_verified_by_the_other_half_of_the_key() {
    let made = made();
    for (algorithm, _, keys) in cases() {
        let key = &made["keys"][made["tokens"][format!("{algorithm:?}")]["key"].as_str().unwrap()];
        let key = key["private"].as_str().or(key["secret"].as_str()).unwrap();
        let signer = Signer::new(algorithm, key, Some("own".to_owned())).unwrap();
        let token = signer.sign(&json!({"sub": "gateway"})).unwrap();
        let token = Token::parse(token.as_bytes()).unwrap();
        assert_eq!((token.key_id(), token.text("sub")), (Some("own"), Some("gateway")));
        assert!(keys.iter().all(|key| token.is_signed_by(key, algorithm)), "{algorithm:?}");
    }
    assert!(Signer::new(Algorithm::RS256, "no key", None).is_err());
    assert!(Signer::new(Algorithm::ES512, "no key", None).is_err());
}

#[test]
fn keys_that_are_not_for_signatures_are_not_taken() {
    let made = made();
    let mut jwk = made["keys"]["P-256"]["jwk"].clone();
    assert!(Key::from_jwk(&jwk).is_some());
    jwk["use"] = "enc".into();
    assert!(Key::from_jwk(&jwk).is_none());
    for jwk in [
        json!({}),
        json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}),
        json!({"kty": "OKP", "crv": "X25519", "x": "AA"}),
    ] {
        assert!(Key::from_jwk(&jwk).is_none(), "{jwk}");
    }
    assert!(Key::from_pem("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n").is_err());
    assert!(Key::from_pem(made["keys"]["P-256"]["private"].as_str().unwrap()).is_err());
}
