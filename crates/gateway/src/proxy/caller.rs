//! Who calls, where that decides which version of a service the request gets.
//!
//! The version has to be chosen before its plugins run, so the plugins that find out who calls are asked beforehand, on
//! a copy of the head. What they say here lets nobody in: the plugins of the version that was chosen decide that.
//! Nothing of this costs anything unless a canary of the group names consumers.

use std::cell::OnceCell;

use gatewright_model::expression::{Value, Variable, Variables};
use gatewright_plugins::exchange::{Exchange, Matched, State};

use super::phases::View;
use super::variables::RequestVariables;
use crate::live::LiveConfig;
use crate::router::choice::IDENTIFIED;

/// The variables of a request before it is matched, and who sent it.
pub(super) struct Identified<'a> {
    variables: RequestVariables<'a>,
    live: &'a LiveConfig,
    caller: OnceCell<Option<Box<str>>>,
}

impl<'a> Identified<'a> {
    pub(super) fn new(variables: RequestVariables<'a>, live: &'a LiveConfig) -> Self {
        Self { variables, live, caller: OnceCell::new() }
    }

    /// The name of the consumer that the request proves to be from.
    fn caller(&self) -> Option<&str> {
        let found = self.caller.get_or_init(|| {
            let address = self.variables.client;
            let mut request = self.variables.request.clone();
            let mut state = State::default();
            let mut exchange = Exchange {
                request: &mut request,
                client: address.told(),
                matched: Matched::default(),
                consumers: &self.live.plugins.consumers,
                surroundings: &View::of(address),
                state: &mut state,
            };
            self.live.identifying.identify(&mut exchange);
            state.consumer.map(|consumer| consumer.name.clone())
        });
        found.as_deref()
    }
}

impl Variables for Identified<'_> {
    fn get<'v>(&'v self, variable: &Variable) -> Option<Value<'v>> {
        match variable {
            Variable::Other(name) if **name == *IDENTIFIED => Some(Value::text(self.caller()?.as_bytes())),
            other => self.variables.get(other),
        }
    }
}
