//! Which of two versions of a service a request gets while a candidate is tried beside the running version.
//!
//! Rules of both versions stand in the router, each as one [`Arm`] of the same [`Choice`]. The choice is made before
//! anything else of the rules is looked at and is the same for every route of the service, so that versions with
//! different routes never mix: what the chosen version does not serve is not served by the other one.

use std::cell::Cell;
use std::sync::{Arc, LazyLock};

use gatewright_model::expression::{Expression, Value, Variable};
use gatewright_model::rollout::{Audience, Canary, Share};
use gatewright_model::validation::Violations;

use super::Request;

/// A number that decides about shares: drawn for a request once it matters, and the same for all of it.
#[derive(Debug)]
pub struct Lot {
    drawn: Cell<Option<u64>>,
    draw: fn() -> u64,
}

impl Lot {
    /// A lot that `draw` draws.
    #[must_use]
    pub fn drawn_by(draw: fn() -> u64) -> Self {
        Self { drawn: Cell::new(None), draw }
    }

    /// This number.
    #[must_use]
    pub fn of(number: u64) -> Self {
        Self { drawn: Cell::new(Some(number)), draw: || 0 }
    }

    fn get(&self) -> u64 {
        let number = self.drawn.get().unwrap_or_else(self.draw);
        self.drawn.set(Some(number));
        number
    }
}

/// Who gets the candidate.
#[derive(Debug)]
pub(crate) struct Choice {
    share: Share,
    vars: Option<Expression>,
    consumers: Box<[Box<str>]>,
    sticky: Option<Variable>,
    /// Makes every canary choose other clients.
    salt: u64,
}

/// One of the two versions.
#[derive(Clone, Debug)]
pub(crate) struct Arm {
    choice: Arc<Choice>,
    is_candidate: bool,
}

impl Choice {
    /// What a canary says.
    ///
    /// # Errors
    /// What is wrong with its condition.
    pub(crate) fn compile(canary: &Canary) -> Result<Arc<Self>, Violations> {
        let audience = &canary.audience;
        let vars = match audience.vars.is_empty() {
            true => None,
            false => Some(Expression::parse(&audience.vars)?),
        };
        Ok(Arc::new(Self {
            share: canary.share,
            vars,
            consumers: audience.consumers.iter().map(|name| name.as_str().into()).collect(),
            sticky: audience.sticky.as_deref().map(Variable::of),
            salt: hash(0, canary.id.as_bytes()),
        }))
    }

    /// Both versions: the running one and the candidate.
    pub(crate) fn arms(self: Arc<Self>) -> (Arm, Arm) {
        let running = Arm { choice: Arc::clone(&self), is_candidate: false };
        (running, Arm { choice: self, is_candidate: true })
    }

    fn takes_candidate(&self, request: &Request<'_>) -> bool {
        if self.vars.as_ref().is_some_and(|vars| vars.holds(request.variables)) {
            return true;
        }
        if !self.consumers.is_empty()
            && let Some(Value::Text(name)) = consumer(request)
            && self.consumers.iter().any(|wanted| wanted.as_bytes() == &*name)
        {
            return true;
        }
        match self.share {
            Share::NONE => false,
            Share::ALL => true,
            share => share.holds(self.lot(request)),
        }
    }

    fn lot(&self, request: &Request<'_>) -> u64 {
        let value = match &self.sticky {
            Some(Variable::ConsumerName) => consumer(request),
            Some(variable) => request.variables.get(variable),
            None => None,
        };
        match value {
            Some(Value::Text(text)) => hash(self.salt, &text),
            Some(Value::Number(number)) => hash(self.salt, number.to_string().as_bytes()),
            _ => request.lot.get(),
        }
    }
}

impl Arm {
    /// Whether a request gets this version.
    pub(super) fn takes(&self, request: &Request<'_>) -> bool {
        self.choice.takes_candidate(request) == self.is_candidate
    }
}

/// The consumer of a request that has not been authenticated yet, as whoever sent it proves; a variable of its own,
/// because conditions of routes must not see more than without a canary.
pub(crate) const IDENTIFIED: &str = "identified_consumer_name";

fn consumer<'r>(request: &Request<'r>) -> Option<Value<'r>> {
    static NAME: LazyLock<Variable> = LazyLock::new(|| Variable::Other(IDENTIFIED.into()));
    request.variables.get(&NAME).or_else(|| request.variables.get(&Variable::ConsumerName))
}

/// Whether an audience tells consumers apart, which costs looking for who calls.
pub(crate) fn asks_for_consumers(audience: &Audience) -> bool {
    !audience.consumers.is_empty() || audience.sticky.as_deref() == Some("consumer_name")
}

/// FNV-1a with a finish that spreads the upper bits, which shares are told by; the same on every gateway.
fn hash(seed: u64, text: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ seed;
    let mixed = text.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
