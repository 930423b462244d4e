//! `request-id`: gives every request an id that client, gateway and upstream can log.
//!
//! An id that the client sent is kept. Do not use it where ids must be trusted: whoever calls chooses them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::edits;
use crate::exchange::{Exchange, Flow, Surroundings};
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::response::Response;
use crate::schema;
use gatewright_model::validation::Violations;

pub(crate) const KIND: Kind = Kind {
    name: "request-id",
    priority: 12015,
    category: Category::Other,
    phases: Phases::of(&[Phase::Rewrite, Phase::Response]),
    schema: schema::of::<Config>,
    metadata: None,
    credential: None,
    build,
};

const LETTERS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIGKLMNOPQRSTUVWXYZ0123456789";
const NANOID: &[u8] = b"_-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Seconds between 1970 and the epoch of KSUIDs.
const KSUID_EPOCH: u64 = 1_400_000_000;

/// Longest id that is made.
const LENGTH_MAX: u32 = 1024;

#[derive(Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Config {
    /// The header field that carries the id.
    header_name: String,
    /// Whether the response carries it as well.
    include_in_response: bool,
    /// How ids are made.
    algorithm: Algorithm,
    /// How `range_id` makes them.
    range_id: RangeId,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Algorithm {
    #[default]
    Uuid,
    Nanoid,
    RangeId,
    Ksuid,
    Uuidv7,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct RangeId {
    /// Length of an id.
    #[schema(minimum = 6)]
    length: u32,
    /// The characters it consists of.
    #[schema(min_length = 6)]
    char_set: String,
}

impl Default for RangeId {
    fn default() -> Self {
        Self { length: 16, char_set: LETTERS.to_owned() }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            header_name: "X-Request-Id".to_owned(),
            include_in_response: true,
            algorithm: Algorithm::default(),
            range_id: RangeId::default(),
        }
    }
}

struct RequestId(Config);

/// The id, for the response.
struct Given(Vec<u8>);

fn build(config: Value, _: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let mut violations = Violations::default();
    edits::check_name(&config.header_name, "/header_name", &mut violations);
    if config.range_id.length > LENGTH_MAX {
        violations.add("/range_id/length", format!("number must be at most {LENGTH_MAX}"));
    }
    if !config.range_id.char_set.bytes().all(|byte| byte.is_ascii_graphic()) {
        violations.add("/range_id/char_set", "must consist of visible ASCII characters");
    }
    violations.into_result()?;
    Ok(Arc::new(RequestId(config)))
}

impl Plugin for RequestId {
    fn rewrite(&self, exchange: &mut Exchange<'_>) -> Flow {
        let name = &self.0.header_name;
        let sent = exchange.field(name).filter(|id| !id.is_empty()).map(<[u8]>::to_vec);
        let id = sent.unwrap_or_else(|| {
            let id = self.make(exchange.surroundings);
            exchange.request.fields.set(name, &id);
            id
        });
        exchange.set_variable("request_id", id.clone());
        if self.0.include_in_response {
            exchange.set_note(Given(id));
        }
        Flow::Continue
    }

    fn response(&self, exchange: &mut Exchange<'_>, response: &mut Response<'_>) {
        let name = &self.0.header_name;
        if let Some(Given(id)) = exchange.note()
            && response.field(name).is_none()
        {
            response.head.fields.append(name, id);
        }
    }
}

impl RequestId {
    fn make(&self, surroundings: &dyn Surroundings) -> Vec<u8> {
        let random = || u128::from(surroundings.random()) << 64 | u128::from(surroundings.random());
        match self.0.algorithm {
            Algorithm::Uuid => {
                uuid::Builder::from_random_bytes(random().to_be_bytes()).into_uuid().to_string().into_bytes()
            }
            Algorithm::Uuidv7 => {
                #[allow(clippy::cast_possible_truncation, reason = "milliseconds fit for millions of years")]
                let millis = surroundings.now().unix.as_millis() as u64;
                let random = random().to_be_bytes();
                let random: [u8; 10] = std::array::from_fn(|index| random[index]);
                uuid::Builder::from_unix_timestamp_millis(millis, &random)
                    .into_uuid()
                    .to_string()
                    .into_bytes()
            }
            Algorithm::Nanoid => pick(surroundings, NANOID, 21),
            Algorithm::RangeId => {
                pick(surroundings, self.0.range_id.char_set.as_bytes(), self.0.range_id.length as usize)
            }
            Algorithm::Ksuid => ksuid(surroundings.now().unix.as_secs(), random()),
        }
    }
}

fn pick(surroundings: &dyn Surroundings, characters: &[u8], length: usize) -> Vec<u8> {
    let one = |_| {
        // A part of a 64-bit number: the bias is far below what anybody could measure.
        let index = (u128::from(surroundings.random()) * characters.len() as u128) >> 64;
        characters.get(index as usize).copied().unwrap_or(b'0')
    };
    (0..length).map(one).collect()
}

/// 32 bits of seconds and 128 random ones, as 27 digits to the base of 62.
fn ksuid(seconds: u64, random: u128) -> Vec<u8> {
    #[allow(clippy::cast_possible_truncation, reason = "the format has 32 bits for them")]
    let mut limbs = [
        seconds.saturating_sub(KSUID_EPOCH) as u32,
        (random >> 96) as u32,
        (random >> 64) as u32,
        (random >> 32) as u32,
        random as u32,
    ];
    let mut digits = [b'0'; 27];
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0_u64;
        for limb in &mut limbs {
            let value = remainder << 32 | u64::from(*limb);
            #[allow(
                clippy::cast_possible_truncation,
                reason = "the remainder is below 62, so the quotient fits"
            )]
            let quotient = (value / 62) as u32;
            *limb = quotient;
            remainder = value % 62;
        }
        *digit = BASE62[usize::try_from(remainder).unwrap_or(0)];
    }
    digits.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trial, refused};
    use serde_json::json;

    #[test]
    fn ids_are_made_where_none_was_sent() {
        for (algorithm, length) in
            [("uuid", 36), ("uuidv7", 36), ("nanoid", 21), ("ksuid", 27), ("range_id", 16)]
        {
            let trial = Trial::of("request-id", json!({"algorithm": algorithm}));
            let first = trial.run("GET /").sent("X-Request-Id");
            let second = trial.run("GET /").sent("X-Request-Id");
            assert_eq!(first.len(), length, "{algorithm}: {first}");
            assert_ne!(first, second);
        }
        let trial = Trial::of("request-id", json!({}));
        assert_eq!(trial.run("GET /\nx-request-id: mine").sent("X-Request-Id"), "mine");
        assert_eq!(trial.run("GET /\nx-request-id:").sent("X-Request-Id").len(), 36);
    }

    #[test]
    fn the_response_carries_the_id_unless_the_upstream_gave_one() {
        let trial = Trial::of("request-id", json!({"header_name": "X-Id"}));
        let run = trial.run("GET /\nX-Id: mine");
        assert_eq!(run.respond("200").field("X-Id"), "mine");
        let run = trial.run("GET /\nX-Id: mine");
        assert_eq!(run.respond("200\nX-Id: upstream's").field("X-Id"), "upstream's");
        let silent = Trial::of("request-id", json!({"include_in_response": false}));
        assert_eq!(silent.run("GET /").respond("200").field("X-Request-Id"), "");
    }

    #[test]
    fn ksuids_are_ordered_by_time() {
        assert_eq!(ksuid(KSUID_EPOCH, 0), b"000000000000000000000000000");
        assert_eq!(ksuid(KSUID_EPOCH + u64::from(u32::MAX), u128::MAX), b"aWgEPTl1tmebfsQzFP4bxwgy80V");
        assert!(ksuid(1_700_000_000, u128::MAX) < ksuid(1_700_000_001, 0));
    }

    #[test]
    fn what_no_header_can_carry_is_refused() {
        assert_eq!(refused("request-id", &json!({"header_name": "a b"})), ["/header_name"]);
        let config = json!({"algorithm": "snowflake", "range_id": {"length": 5, "char_set": "abc"}});
        assert_eq!(refused("request-id", &config), ["/algorithm", "/range_id/char_set", "/range_id/length"]);
    }
}
