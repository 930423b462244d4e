//! What of bodies is in a log entry: looked at as they pass, and no more than was asked for.

use std::cell::RefCell;
use std::rc::Rc;

use gatewright_model::expression::Expression;
use gatewright_model::validation::Violations;

use super::EntryConfig;
use crate::exchange::{Body, Exchange, Flow};
use crate::response::{BodyFilter, Response};

/// Bytes of a request body that is waited for, at least: what is longer streams past, and is not in the entry.
const READ_BYTES_MIN: usize = 1024 * 1024;

/// Which bodies are in an entry.
pub(super) struct Bodies {
    request: Option<Wanted>,
    response: Option<Wanted>,
}

struct Wanted {
    condition: Option<Expression>,
    bytes_max: usize,
}

/// What was seen of the bodies of an exchange.
#[derive(Default)]
pub(super) struct Captured {
    pub(super) request: Option<Vec<u8>>,
    pub(super) response: Option<Vec<u8>>,
}

/// The request is one whose body is in the entry.
struct RequestWanted;

impl Bodies {
    pub(super) fn parse(config: &EntryConfig, violations: &mut Violations) -> Self {
        let mut wanted = |include: bool, condition: Option<&[_]>, bytes_max: usize, at: &str| {
            let condition = condition.and_then(|elements| {
                Expression::parse(elements).map_err(|wrong| violations.absorb(at, wrong)).ok()
            });
            include.then_some(Wanted { condition, bytes_max })
        };
        let request = config.include_req_body_expr.as_deref();
        let response = config.include_resp_body_expr.as_deref();
        Self {
            request: wanted(
                config.include_req_body,
                request,
                config.max_req_body_bytes,
                "/include_req_body_expr",
            ),
            response: wanted(
                config.include_resp_body,
                response,
                config.max_resp_body_bytes,
                "/include_resp_body_expr",
            ),
        }
    }

    /// Has the body of the request read, if it is wanted.
    pub(super) fn request(&self, exchange: &mut Exchange<'_>) -> Flow {
        let Some(wanted) = &self.request else { return Flow::Continue };
        if exchange.note::<RequestWanted>().is_none() {
            if !wanted.holds(exchange) {
                return Flow::Continue;
            }
            exchange.set_note(RequestWanted);
        }
        match exchange.state.body {
            Body::Unread => Flow::ReadBody(wanted.bytes_max.max(READ_BYTES_MIN)),
            Body::Read(_) | Body::TooLarge => Flow::Continue,
        }
    }

    /// Looks at the body of the response as it passes, if it is wanted.
    pub(super) fn response(&self, exchange: &mut Exchange<'_>, response: &mut Response<'_>) {
        let Some(wanted) = &self.response else { return };
        if wanted.holds(exchange) {
            let seen = Rc::<RefCell<Vec<u8>>>::default();
            exchange.set_note(Rc::clone(&seen));
            response.observe_body(Box::new(Seen { seen, bytes_max: wanted.bytes_max }));
        }
    }

    /// What was seen.
    pub(super) fn captured(&self, exchange: &Exchange<'_>) -> Captured {
        let request = match (&self.request, &exchange.state.body) {
            (Some(wanted), Body::Read(body)) if exchange.note::<RequestWanted>().is_some() => {
                Some(body[..body.len().min(wanted.bytes_max)].to_vec())
            }
            _ => None,
        };
        let response = exchange.note::<Rc<RefCell<Vec<u8>>>>().map(|seen| seen.take());
        Captured { request, response }
    }
}

impl Wanted {
    fn holds(&self, exchange: &Exchange<'_>) -> bool {
        self.condition.as_ref().is_none_or(|condition| condition.holds(exchange))
    }
}

/// Keeps the beginning of a body that passes.
struct Seen {
    seen: Rc<RefCell<Vec<u8>>>,
    bytes_max: usize,
}

impl BodyFilter for Seen {
    fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let mut seen = self.seen.borrow_mut();
        let room = self.bytes_max.saturating_sub(seen.len());
        seen.extend_from_slice(&piece[..piece.len().min(room)]);
        out.extend_from_slice(piece);
    }

    fn finish(&mut self, _: &mut Vec<u8>) {}

    fn only_looks(&self) -> bool {
        true
    }
}
