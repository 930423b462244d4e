//! A plugin with its configuration, built and ready to run.

use std::cmp::Ordering;
use std::sync::Arc;

use gatewright_model::validation::Violations;
use serde_json::Value;

use crate::exchange::Exchange;
use crate::kind::{Kind, Plugin, Site};
use crate::meta::{self, Meta};
use crate::{schemas, secrets};

/// A plugin with its configuration.
pub struct Instance {
    pub(super) kind: &'static Kind,
    pub(super) meta: Meta,
    pub(super) plugin: Arc<dyn Plugin>,
}

impl Instance {
    /// Builds an instance of `kind`.
    ///
    /// # Errors
    /// Everything wrong with `config`, each with its JSON path in it.
    pub fn build(kind: &'static Kind, config: &Value, site: &Site<'_>) -> Result<Self, Violations> {
        // Whoever resolves references did so before; what is left of them stands for nothing.
        if secrets::are_in(config) {
            return Err(secrets::unresolved(config));
        }
        let mut found = schemas(kind).config.violations(config);
        let meta = meta::parse(config, &mut found);
        found.into_result()?;
        let mut config = config.clone();
        if let Some(members) = config.as_object_mut() {
            members.remove(meta::MEMBER);
        }
        let plugin = (kind.build)(config, site)?;
        Ok(Self { kind, meta, plugin })
    }

    /// What it is an instance of.
    #[must_use]
    pub fn kind(&self) -> &'static Kind {
        self.kind
    }

    /// The plugin itself.
    #[must_use]
    pub fn plugin(&self) -> &dyn Plugin {
        &*self.plugin
    }

    fn priority(&self) -> i32 {
        self.meta.priority.unwrap_or(self.kind.priority)
    }

    /// The order of running: higher priority first, then by name.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        other.priority().cmp(&self.priority()).then_with(|| self.kind.name.cmp(other.kind.name))
    }

    /// Tells instances apart within one exchange.
    fn identity(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Makes the exchange this instance's, unless its filter says that it does not run.
    pub(super) fn enter(&self, exchange: &mut Exchange<'_>) -> bool {
        let identity = self.identity();
        exchange.state.instance = identity;
        let Some(filter) = &self.meta.filter else { return true };
        let remembered = exchange.state.filters.iter().find(|(asked, _)| *asked == identity);
        if let Some((_, runs)) = remembered {
            return *runs;
        }
        let runs = filter.holds(&*exchange);
        exchange.state.filters.push((identity, runs));
        runs
    }

    /// Has the plugin do something, and tells how long that took if anybody wants to know.
    pub(super) fn measured<T>(
        &self,
        exchange: &mut Exchange<'_>,
        act: impl FnOnce(&dyn Plugin, &mut Exchange<'_>) -> T,
    ) -> T {
        let since = exchange.surroundings.stopwatch();
        let done = act(&*self.plugin, exchange);
        if let Some(since) = since {
            exchange.surroundings.worked(self.kind.name, since);
        }
        done
    }
}
