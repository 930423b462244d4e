//! What the answers to proxied requests say about a node.

use gatewright_model::resource::checks::{CheckType, PassiveCheck};

use super::state::{Seen, Thresholds};
use super::statuses::Statuses;
use crate::proxy::reject::RejectReason;

/// How proxied answers are judged.
pub(crate) struct Passive {
    success: Statuses,
    failure: Statuses,
    pub(crate) thresholds: Thresholds,
}

impl Passive {
    pub(crate) fn compile(check: &PassiveCheck) -> Self {
        let statuses = |statuses: &[u16]| match check.check_type {
            CheckType::Tcp => Statuses::new(&[]),
            CheckType::Http | CheckType::Https => Statuses::new(statuses),
        };
        Self {
            success: statuses(&check.healthy.http_statuses),
            failure: statuses(&check.unhealthy.http_statuses),
            thresholds: Thresholds {
                successes: check.healthy.successes,
                http_failures: check.unhealthy.http_failures,
                tcp_failures: check.unhealthy.tcp_failures,
                timeouts: check.unhealthy.timeouts,
            },
        }
    }

    /// What an answer with `status` says.
    pub(crate) fn of_status(&self, status: u16) -> Option<Seen> {
        if self.success.contains(status) {
            Some(Seen::Success)
        } else {
            self.failure.contains(status).then_some(Seen::HttpFailure)
        }
    }

    /// What a try without an answer says; nothing, if it was not the node's fault.
    pub(crate) fn of_failure(reason: RejectReason) -> Option<Seen> {
        match reason {
            RejectReason::UpstreamConnectFailed
            | RejectReason::UpstreamTlsFailed
            | RejectReason::UpstreamClosed => Some(Seen::TcpFailure),
            RejectReason::UpstreamConnectTimeout
            | RejectReason::UpstreamSendTimeout
            | RejectReason::UpstreamReadTimeout => Some(Seen::Timeout),
            RejectReason::UpstreamMalformed => Some(Seen::HttpFailure),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_count_unless_only_connections_are_looked_at() {
        let mut check = PassiveCheck::default();
        let judge =
            |check: &PassiveCheck| [200, 404, 500].map(|status| Passive::compile(check).of_status(status));
        assert_eq!(judge(&check), [Some(Seen::Success), None, Some(Seen::HttpFailure)]);
        check.check_type = CheckType::Tcp;
        assert_eq!(judge(&check), [None, None, None]);
    }
}
