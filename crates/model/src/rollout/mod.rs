//! Rollouts: a version on its way into a gateway group, under watch.
//!
//! As a *canary* the candidate serves a share of the requests beside the running version; as a *guarded publish* it
//! serves all of them from the first moment on. Either way the counts that gateways report of both versions are
//! compared ([`verdict`]), and a candidate that is worse goes away by itself.
//!
//! * Which version a request gets is decided by its head and one number alone ([`Canary`]), so that every gateway
//!   decides alike and a higher share keeps who was in the lower one.
//! * Whoever is compared is compared over the same time; what is not known is never held against a candidate.

pub mod verdict;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::expression::{Expression, Variable};
use crate::id::ServiceVersionId;
use crate::lifecycle::RouteVersion;
use crate::resource::Plugins;
use crate::resource::service::ServiceKind;
use crate::validation::Violations;

/// Steps of a rollout.
pub const STEPS_MAX: usize = 50;

/// Consumers that a canary names; more of them are better told apart by a share.
pub const CONSUMERS_MAX: usize = 100;

/// Seconds that a step may last: a month.
pub const STEP_SECONDS_MAX: u32 = 31 * 24 * 60 * 60;

/// A share of requests, in hundredths of a percent; a number of percent in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "f64")]
pub struct Share(u16);

impl Share {
    /// No request.
    pub const NONE: Self = Self(0);
    /// Every request.
    pub const ALL: Self = Self(10_000);

    /// So many hundredths of a percent; more than all is all.
    #[must_use]
    pub fn of_hundredths(hundredths: u16) -> Self {
        Self(hundredths).min(Self::ALL)
    }

    /// The share in hundredths of a percent.
    #[must_use]
    pub fn hundredths(self) -> u16 {
        self.0
    }

    /// The share as a part of one.
    #[must_use]
    pub fn ratio(self) -> f64 {
        f64::from(self.0) / f64::from(Self::ALL.0)
    }

    /// Whether a request that drew `lot`, which is any number, is in this share. Who is in a share is in every
    /// larger one.
    #[must_use]
    pub fn holds(self, lot: u64) -> bool {
        // The upper bits of the product are evenly spread over 0 to 9999.
        let drawn = (u128::from(lot) * u128::from(Self::ALL.0)) >> 64;
        drawn < u128::from(self.0)
    }
}

impl TryFrom<f64> for Share {
    type Error = String;

    fn try_from(percent: f64) -> Result<Self, String> {
        let hundredths = (percent * 100.0).round();
        let is_share = (0.0..=10_000.0).contains(&hundredths) && (hundredths / 100.0 - percent).abs() < 1e-9;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was just compared")]
        is_share.then_some(Self(hundredths as u16)).ok_or_else(|| {
            format!("{percent} is no share: write percent from 0 to 100, with two decimals at most")
        })
    }
}

impl Serialize for Share {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Whole percents are whole numbers, as people write them.
        if self.0.is_multiple_of(100) {
            return serializer.serialize_u16(self.0 / 100);
        }
        serializer.serialize_f64(f64::from(self.0) / 100.0)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", f64::from(self.0) / 100.0)
    }
}

/// A candidate beside the running version, and who gets it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Canary {
    /// Tells this canary from every other one, so that each chooses other clients.
    pub id: String,
    /// The share of requests that go to the candidate.
    #[serde(rename = "percent")]
    pub share: Share,
    /// Who gets it besides.
    #[serde(flatten)]
    pub audience: Audience,
    /// The candidate.
    pub service_version_id: ServiceVersionId,
    /// Its number.
    pub version: String,
    /// Name of the service in it.
    pub name: String,
    /// HTTP or stream.
    #[serde(rename = "type")]
    pub kind: ServiceKind,
    /// Plugins of all its routes.
    #[serde(default, skip_serializing_if = "Plugins::is_empty")]
    pub plugins: Plugins,
    /// Its routes.
    pub routes: Vec<RouteVersion>,
}

/// Who gets the candidate of a canary beside its share, and what keeps a client with its version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Audience {
    /// A condition on the request, such as `[["http_x_tester", "==", "yes"]]`: where it holds, the candidate serves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Value>, required = false)]
    pub vars: Vec<Value>,
    /// Names of consumers who get the candidate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 100, required = false)]
    pub consumers: Vec<String>,
    /// The variable by whose value a client keeps its version, such as `remote_addr` or `cookie_session`; absent, or
    /// where a request lacks it: every request is decided anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 256)]
    pub sticky: Option<String>,
}

impl Audience {
    /// Finds what is wrong with it.
    pub fn check(&self, at: &str, violations: &mut Violations) {
        match Expression::parse(&self.vars) {
            Ok(_) if self.vars.iter().any(names_body) => {
                violations.add(
                    format!("{at}/vars"),
                    "a version is chosen by the head: name no variable of the body",
                );
            }
            Ok(_) => {}
            Err(wrong) => violations.absorb(&format!("{at}/vars"), wrong),
        }
        if self.consumers.len() > CONSUMERS_MAX {
            violations.add(format!("{at}/consumers"), format!("maximum number of items is {CONSUMERS_MAX}"));
        }
        if self.sticky.as_deref().is_some_and(|name| Variable::of(name).needs_body()) {
            violations
                .add(format!("{at}/sticky"), "a version is chosen by the head: name no variable of the body");
        }
    }
}

/// Whether a part of an expression begins with a variable of the body.
fn names_body(part: &Value) -> bool {
    let Value::Array(parts) = part else { return false };
    let is_name = parts.first().and_then(Value::as_str).is_some_and(|name| Variable::of(name).needs_body());
    is_name || parts.iter().any(names_body)
}

/// A share, and how long it is kept before the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Step {
    /// The share of requests that go to the candidate, in percent.
    #[serde(rename = "percent")]
    #[schema(value_type = f64, minimum = 0, maximum = 100)]
    pub share: Share,
    /// How long, in seconds; of the last step 0 or absent: the rollout ends when it is reached.
    #[serde(default)]
    #[schema(maximum = 2_678_400)]
    pub seconds: u32,
}

/// Finds what is wrong with a list of steps: it must lead somewhere.
pub fn check_steps(steps: &[Step], at: &str, violations: &mut Violations) {
    if steps.len() > STEPS_MAX {
        violations.add(at, format!("maximum number of items is {STEPS_MAX}"));
    }
    let Some((last, waiting)) = steps.split_last() else {
        return violations
            .add(at, "a canary without steps never ends by itself; leave the list out to end it by hand");
    };
    if last.share != Share::NONE && last.share != Share::ALL {
        let message = format!("the last step is {}: steps must end at 0 % or at 100 %", last.share);
        violations.add(format!("{at}/{}/percent", waiting.len()), message);
    }
    for (index, step) in waiting.iter().enumerate().filter(|(_, step)| step.seconds == 0) {
        let message = format!("the step at {} is over at once; say how long it lasts", step.share);
        violations.add(format!("{at}/{index}/seconds"), message);
    }
    for (index, _) in steps.iter().enumerate().filter(|(_, step)| step.seconds > STEP_SECONDS_MAX) {
        violations.add(format!("{at}/{index}/seconds"), format!("maximum value is {STEP_SECONDS_MAX}"));
    }
}

/// Steps as people write them: `5% 10m, 25% 30m, 100%`.
///
/// # Errors
/// What cannot be read, and how it is written.
pub fn parse_steps(text: &str) -> Result<Vec<Step>, String> {
    text.split(',').map(|step| parse_step(step.trim())).collect()
}

fn parse_step(text: &str) -> Result<Step, String> {
    let wrong = || format!("`{text}` is no step: write a share and how long it lasts, such as `5% 10m`");
    let mut words = text.split_whitespace();
    let percent = words.next().and_then(|word| word.strip_suffix('%')).ok_or_else(wrong)?;
    let share = Share::try_from(percent.trim().parse::<f64>().map_err(|_| wrong())?)?;
    let seconds = words.next().map_or(Ok(0), |word| parse_seconds(word).ok_or_else(wrong))?;
    if words.next().is_some() {
        return Err(wrong());
    }
    Ok(Step { share, seconds })
}

/// A time with its unit in seconds: `90s`, `10m`, `2h` or `1d`.
#[must_use]
pub fn parse_seconds(text: &str) -> Option<u32> {
    let unit = text.chars().last()?;
    let number: u32 = text.strip_suffix(unit)?.parse().ok()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return None,
    };
    number.checked_mul(seconds)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn percent(number: f64) -> Share {
        Share::try_from(number).unwrap()
    }

    #[test]
    fn a_share_is_percent_with_two_decimals() {
        for (value, text) in [(json!(5), "5"), (json!(0.25), "0.25"), (json!(100), "100"), (json!(0), "0")] {
            let share: Share = serde_json::from_value(value).unwrap();
            assert_eq!(serde_json::to_string(&share).unwrap(), text);
        }
        for wrong in [json!(-1), json!(100.01), json!(0.001), json!("5%")] {
            assert!(serde_json::from_value::<Share>(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn steps_are_written_as_people_say_them() {
        let steps = parse_steps("5% 10m, 25% 2h,100%").unwrap();
        let read: Vec<_> = steps.iter().map(|step| (step.share, step.seconds)).collect();
        assert_eq!(read, [(percent(5.0), 600), (percent(25.0), 7200), (percent(100.0), 0)]);
        for wrong in ["", "5", "5% 10", "5% 10m x", "101%", "5%,", "5% m"] {
            assert!(parse_steps(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn steps_must_end_at_nothing_or_at_everything_and_last() {
        let complaint = |text: &str| {
            let mut violations = Violations::default();
            check_steps(&parse_steps(text).unwrap(), "/steps", &mut violations);
            violations.iter().next().map(|violation| violation.message.clone()).unwrap_or_default()
        };
        assert_eq!(complaint("5% 10m, 25% 30m, 100%"), "");
        assert_eq!(complaint("5% 10m, 0%"), "");
        assert_eq!(complaint("100% 10m"), "");
        assert!(complaint("5% 10m, 25% 30m").contains("the last step is 25 %"));
        assert!(complaint("5%, 100%").contains("over at once"));
        let mut violations = Violations::default();
        check_steps(&[], "/steps", &mut violations);
        assert!(!violations.is_empty());
    }

    #[test]
    fn an_audience_is_told_by_the_head() {
        let complaints = |audience: Value| {
            let audience: Audience = serde_json::from_value(audience).unwrap();
            let mut violations = Violations::default();
            audience.check("", &mut violations);
            violations.iter().map(|violation| violation.path.clone()).collect::<Vec<_>>()
        };
        assert!(complaints(json!({"vars": [["http_x", "==", "y"]], "sticky": "remote_addr"})).is_empty());
        assert_eq!(
            complaints(json!({"vars": [["post_arg.a", "==", "y"]], "sticky": "post_arg_b"})),
            ["/vars", "/sticky"]
        );
        assert!(!complaints(json!({"vars": [["http_x", "??", "y"]]})).is_empty());
    }

    proptest! {
        #[test]
        fn who_is_in_a_share_is_in_every_larger_one(lot in any::<u64>(), one in 0u16..=10_000, more in 0u16..=10_000) {
            let (small, large) = (Share::of_hundredths(one.min(more)), Share::of_hundredths(one.max(more)));
            prop_assert!(!small.holds(lot) || large.holds(lot));
            prop_assert!(Share::ALL.holds(lot) && !Share::NONE.holds(lot));
        }
    }

    #[test]
    fn a_share_of_evenly_spread_lots_is_that_share() {
        let lots = (0..10_000_u64).map(|index| index.wrapping_mul(u64::MAX / 10_000));
        let held = lots.filter(|lot| percent(25.0).holds(*lot)).count();
        assert!((2499..=2501).contains(&held), "{held}");
    }
}
