//! What authenticating plugins do alike: answer 401, fall back to an anonymous consumer, identify the caller.

use std::sync::Arc;

use crate::consumers::{Consumer, Credential};
use crate::exchange::{Answer, Exchange, Flow};

/// How a plugin refuses.
pub(crate) struct Refusal<'r> {
    /// The value of `WWW-Authenticate`.
    pub(crate) challenge: String,
    /// The consumer who calls where nobody could be identified.
    pub(crate) anonymous_consumer: Option<&'r str>,
}

impl Refusal<'_> {
    /// Answers 401 with this message, unless an anonymous consumer may call.
    pub(crate) fn refuse(&self, exchange: &mut Exchange<'_>, message: &str) -> Flow {
        let unauthorised =
            || Flow::respond(Answer::message(401, message).field("WWW-Authenticate", self.challenge.clone()));
        let Some(name) = self.anonymous_consumer else { return unauthorised() };
        // An anonymous consumer that does not exist lets nobody in.
        let Some(consumer) = exchange.consumers.named(name).cloned() else { return unauthorised() };
        admit(exchange, consumer, None)
    }
}

/// Goes on with the caller who showed `credential`.
pub(crate) fn identify(exchange: &mut Exchange<'_>, credential: Arc<Credential>) -> Option<Flow> {
    let consumer = exchange.consumers.named(&credential.consumer).cloned()?;
    Some(admit(exchange, consumer, Some(credential)))
}

/// Goes on as `consumer`, unless its plugins could not be built: its requests must not pass without them.
fn admit(exchange: &mut Exchange<'_>, consumer: Arc<Consumer>, credential: Option<Arc<Credential>>) -> Flow {
    if consumer.plugins.is_err() {
        return Flow::respond(Answer::error_msg(
            503,
            "503 Service Unavailable: the consumer's plugins cannot run",
        ));
    }
    exchange.identify(consumer, credential);
    Flow::Continue
}

/// What a client shows in the field `name`. Of a field that comes twice nothing is believed (RFC 9110 section 5.3),
/// since the upstream may read the other one: it is as good as empty.
pub(crate) fn shown<'e>(exchange: &'e Exchange<'_>, name: &'e str) -> Option<&'e [u8]> {
    let mut values = exchange.request.fields.named(name.as_bytes());
    let first = values.next()?;
    Some(if values.next().is_some() { b"" } else { first })
}

/// What follows `scheme` and a blank in the value of a field, whatever the case of the scheme.
pub(crate) fn after_scheme<'v>(value: &'v [u8], scheme: &str) -> Option<&'v [u8]> {
    let (start, rest) = value.split_at_checked(scheme.len())?;
    let is_scheme = start.eq_ignore_ascii_case(scheme.as_bytes());
    let rest = rest.strip_prefix(b" ").filter(|_| is_scheme)?;
    Some(rest.trim_ascii())
}

/// Takes a parameter out of the query of the request.
pub(crate) fn remove_argument(exchange: &mut Exchange<'_>, name: &str) {
    let Some(query) = exchange.request.query else { return };
    let query = exchange.request.bytes(query);
    let is_other = |pair: &&[u8]| {
        let key = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        *gatewright_model::message::decoded(key) != *name.as_bytes()
    };
    let kept: Vec<&[u8]> = query.split(|byte| *byte == b'&').filter(is_other).collect();
    let kept = (!kept.is_empty()).then(|| kept.join(&b'&'));
    exchange.set_query(kept.as_deref());
}

/// Takes a cookie out of the request.
pub(crate) fn remove_cookie(exchange: &mut Exchange<'_>, name: &str) {
    let is_other = |pair: &&[u8]| {
        let key = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        key.trim_ascii() != name.as_bytes()
    };
    let lines = exchange.request.fields.named(b"cookie");
    let kept: Vec<&[u8]> = lines.flat_map(|line| line.split(|byte| *byte == b';').filter(is_other)).collect();
    let kept: Vec<&[u8]> = kept.into_iter().map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty()).collect();
    let line = kept.join(&b"; "[..]);
    exchange.request.fields.remove(b"cookie");
    if !line.is_empty() {
        exchange.request.fields.append("Cookie", &line);
    }
}

/// Whether two secrets are equal, in a time that does not tell where they differ.
#[must_use]
pub fn is_same_secret(one: &[u8], other: &[u8]) -> bool {
    let difference = one.iter().zip(other).fold(0, |sum, (one, other)| sum | (one ^ other));
    one.len() == other.len() && std::hint::black_box(difference) == 0
}
