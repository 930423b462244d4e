//! What consistent hashing hashes of a request.
//!
//! The names are classified when the upstream is compiled. A request that lacks the value is hashed by the
//! client's address, so that it still goes to the same node every time.

use gatewright_model::expression::{Value, Variable, Variables};
use gatewright_model::resource::upstream::HashOn;

use super::consistent_hash::{hash, mix};

/// Where the key of a request comes from.
pub(crate) struct HashKey(Box<[Part]>);

/// A part of a key.
enum Part {
    /// Text as it is.
    Literal(u64),
    Variable(Variable),
}

impl HashKey {
    /// What `hash_on` and `key` of an upstream say.
    pub(crate) fn compile(hash_on: HashOn, key: &str) -> Self {
        let one = |variable| Self([Part::Variable(variable)].into());
        match hash_on {
            HashOn::Vars => one(Variable::of(key)),
            HashOn::Header => one(Variable::of(&format!("http_{key}"))),
            HashOn::Cookie => one(Variable::of(&format!("cookie_{key}"))),
            HashOn::Consumer => one(Variable::ConsumerName),
            HashOn::VarsCombinations => Self(parts(key).into()),
        }
    }

    /// The key of a request.
    pub(crate) fn of(&self, variables: &impl Variables) -> u64 {
        let mut key: u64 = 0;
        let mut found = false;
        for part in &self.0 {
            let hashed = match part {
                Part::Literal(hashed) => *hashed,
                Part::Variable(variable) => match variables.get(variable) {
                    Some(value) => {
                        found = true;
                        hash_of(&value)
                    }
                    None => 0,
                },
            };
            key = mix(key ^ hashed);
        }
        if found {
            return key;
        }
        variables.get(&Variable::RemoteAddr).map_or(0, |address| mix(hash_of(&address)))
    }
}

fn hash_of(value: &Value<'_>) -> u64 {
    match value {
        Value::Text(text) => hash(&[text]),
        Value::Number(number) => hash(&[number.to_string().as_bytes()]),
        Value::Bool(truth) => hash(&[truth.to_string().as_bytes()]),
        Value::List(items) => items.iter().fold(0, |key, item| mix(key ^ hash_of(item))),
        Value::Object => 0,
    }
}

/// `$name` and `${name}` are variables, everything else is text.
fn parts(template: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some(dollar) = rest.find('$') {
        let (text, after) = rest.split_at(dollar);
        let after = &after[1..];
        let (braced, name_on) = match after.strip_prefix('{') {
            Some(name_on) => (true, name_on),
            None => (false, after),
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let length = name_on.find(|c| !is_name(c)).unwrap_or(name_on.len());
        let (name, behind) = name_on.split_at(length);
        if !text.is_empty() {
            parts.push(Part::Literal(hash(&[text.as_bytes()])));
        }
        if !name.is_empty() {
            parts.push(Part::Variable(Variable::of(name)));
        }
        rest = if braced { behind.strip_prefix('}').unwrap_or(behind) } else { behind };
    }
    if !rest.is_empty() {
        parts.push(Part::Literal(hash(&[rest.as_bytes()])));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatewright_model::expression::NamedVariables;
    use serde_json::json;

    fn key(hash_on: HashOn, key: &str, variables: serde_json::Value) -> u64 {
        HashKey::compile(hash_on, key).of(&NamedVariables::new(variables.as_object().unwrap()))
    }

    #[test]
    fn requests_with_the_same_value_have_the_same_key() {
        for (hash_on, name, variable) in [
            (HashOn::Vars, "arg_user", "arg_user"),
            (HashOn::Header, "X-User", "http_x_user"),
            (HashOn::Cookie, "user", "cookie_user"),
            (HashOn::Consumer, "", "consumer_name"),
        ] {
            let of = |user: &str, address: &str| {
                key(hash_on, name, json!({variable: user, "remote_addr": address}))
            };
            assert_eq!(of("alice", "10.0.0.1"), of("alice", "10.0.0.2"), "{hash_on:?}");
            assert_ne!(of("alice", "10.0.0.1"), of("bob", "10.0.0.1"), "{hash_on:?}");
        }
    }

    #[test]
    fn without_the_value_the_address_of_the_client_decides() {
        let of = |address: &str| key(HashOn::Header, "X-User", json!({"remote_addr": address}));
        assert_eq!(of("10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        let combination =
            |address: &str| key(HashOn::VarsCombinations, "$arg_a-$arg_b", json!({"remote_addr": address}));
        assert_eq!(combination("10.0.0.1"), of("10.0.0.1"));
    }

    #[test]
    fn several_variables_make_one_key() {
        let of = |template: &str, a: &str, b: &str| {
            key(HashOn::VarsCombinations, template, json!({"arg_a": a, "uri": b, "remote_addr": "10.0.0.1"}))
        };
        assert_ne!(of("$arg_a$uri", "1", "/x"), of("$arg_a$uri", "1", "/y"));
        assert_ne!(of("$arg_a$uri", "1", "/x"), of("$arg_a$uri", "2", "/x"));
        assert_eq!(of("${arg_a}-$uri", "1", "/x"), of("$arg_a-${uri}", "1", "/x"));
        assert_ne!(of("$arg_a-$uri", "1", "/x"), of("$arg_a+$uri", "1", "/x"));
    }
}
