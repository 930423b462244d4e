//! Documents about rollouts, parsed.

use std::sync::LazyLock;

use gatewright_model::rollout::verdict::Guard;
use gatewright_model::rollout::{Audience, STEP_SECONDS_MAX, Share, Step, check_steps};
use gatewright_model::validation::{Schema, Violations};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::app::document::{Document, parse};
use crate::store::Plan;

/// A version to try beside the running one.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct CanaryWish {
    /// The number of the version.
    #[schema(min_length = 1, max_length = 256)]
    pub(crate) version: String,
    /// Whether the version is made of the template first.
    #[serde(default)]
    #[schema(default = false)]
    pub(crate) create_new_version: bool,
    /// The share of requests that go to it, in percent, until somebody ends the canary; or else `steps`.
    #[serde(default)]
    #[schema(value_type = f64, minimum = 0, maximum = 100, nullable = false)]
    pub(crate) percent: Option<Share>,
    /// Shares one after the other; the last is 100, and the version is promoted, or 0, and it goes away.
    #[serde(default)]
    #[schema(max_items = 50)]
    pub(crate) steps: Vec<Step>,
    #[serde(flatten)]
    pub(crate) audience: Audience,
    /// Whether the canary is aborted by itself when its version is worse than the running one.
    #[serde(default = "guarded")]
    #[schema(default = true)]
    pub(crate) guarded: bool,
    /// By how much it may be worse.
    #[serde(default)]
    pub(crate) guard: Guard,
}

const fn guarded() -> bool {
    true
}

impl CanaryWish {
    pub(super) fn plan(&self) -> Plan {
        let guard = self.guarded.then_some(self.guard);
        Plan { audience: self.audience.clone(), steps: self.steps.clone(), guard }
    }
}

/// How long a publish is watched, and by how much it may be worse than the version before.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct BakeWish {
    /// How long, in seconds.
    #[schema(minimum = 1, maximum = 2_678_400)]
    pub(crate) seconds: u32,
    #[serde(flatten)]
    pub(crate) guard: Guard,
}

impl BakeWish {
    pub(crate) fn plan(&self) -> Plan {
        let steps = vec![Step { share: Share::ALL, seconds: self.seconds.min(STEP_SECONDS_MAX) }];
        Plan { audience: Audience::default(), steps, guard: Some(self.guard) }
    }
}

/// A share of requests.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
pub(crate) struct ShareWish {
    /// In percent.
    #[schema(value_type = f64, minimum = 0, maximum = 100)]
    pub(crate) percent: Share,
}

pub(crate) fn canary_parse(value: Value) -> Result<Document<CanaryWish>, Violations> {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<CanaryWish>);
    SCHEMA.violations(&value).into_result()?;
    let (content, warnings) = parse::<CanaryWish>(value)?;
    canary_check(&content)?;
    Ok(Document { id: None, content, warnings })
}

fn canary_check(wish: &CanaryWish) -> Result<(), Violations> {
    let mut violations = Violations::default();
    wish.audience.check("", &mut violations);
    match (wish.percent, wish.steps.as_slice()) {
        (Some(_), []) => {}
        (None, []) => violations.add("/steps", "say which share the version gets: percent, or steps"),
        (Some(_), _) => violations.add("/percent", "stands alone: steps say which share the version gets"),
        (None, steps) => check_steps(steps, "/steps", &mut violations),
    }
    violations.into_result()
}

pub(crate) fn share_parse(value: Value) -> Result<Document<ShareWish>, Violations> {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<ShareWish>);
    SCHEMA.violations(&value).into_result()?;
    let (content, warnings) = parse(value)?;
    Ok(Document { id: None, content, warnings })
}
