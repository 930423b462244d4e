//! Instances, the layers they are configured in, and the chain that a request runs through.
//!
//! The order is total and the same on every gateway. Phases come first: what global rules do in a phase, then what
//! route and service (and, once known, the consumer) do in it. Within that, higher priority first, then the name of
//! the plugin. A layer above takes the place of a layer below per plugin, with its whole configuration: consumer,
//! then route, then service. Global rules are instances of their own.
//!
//! Everything is settled when configurations are compiled, except for the consumer, who is known only then: its
//! layer is walked side by side with the chain, so that no chain is made, kept or looked up while a request waits.

use std::sync::Arc;

use gatewright_model::limits;
use gatewright_model::resource::Plugins;
use gatewright_model::validation::Violations;
use serde_json::{Map, Value};

use crate::consumers::Consumer;
use crate::exchange::{Exchange, Flow};
use crate::kind::{Category, Kind, Outcome, Phase, Plugin, Site};
use crate::meta;
use crate::outbound::Outbound;
use crate::protos::Protos;
use crate::response::Response;
use crate::shared::Shared;
use crate::{consumers, schemas, secrets};

mod instance;

pub use instance::Instance;

fn request_phase(plugin: &dyn Plugin, phase: Phase, exchange: &mut Exchange<'_>) -> Flow {
    match phase {
        Phase::Rewrite => plugin.rewrite(exchange),
        Phase::Access => plugin.access(exchange),
        Phase::BeforeUpstream => plugin.before_upstream(exchange),
        Phase::Response | Phase::Log => Flow::Continue,
    }
}

/// The instances of one object (a service, a route, a consumer, all global rules), in running order.
#[derive(Clone, Default)]
pub struct Layer {
    instances: Box<[Arc<Instance>]>,
    /// Those of each phase, so that a walk through a phase meets nobody who takes no part in it.
    by_phase: [Box<[Arc<Instance>]>; Phase::ALL.len()],
}

/// What instances are built from.
#[derive(Clone, Copy)]
pub struct Ground<'g> {
    /// State that instances share by name.
    pub shared: &'g Shared,
    /// The way outside.
    pub outbound: &'g Arc<dyn Outbound>,
    /// The plugin metadata of the group, by plugin.
    pub metadata: &'g dyn Fn(&str) -> Option<&'g Map<String, Value>>,
    /// The protos of the group.
    pub protos: &'g Protos,
    /// The object whose plugins they are, the same on every gateway: `route/r1`.
    pub owner: &'g str,
}

/// What a layer was built from before, to take over what did not change.
#[derive(Clone, Copy)]
pub struct Before<'b> {
    /// The configurations.
    pub plugins: &'b Plugins,
    /// What was built from them.
    pub layer: &'b Layer,
    /// Plugins whose metadata changed since: they are built again.
    pub changed: &'b [&'b str],
}

impl Layer {
    /// Builds the instances of `plugins`. An instance whose configuration is the one it had before is taken over
    /// with its state.
    ///
    /// # Errors
    /// Everything wrong, each with its JSON path in `plugins`.
    pub fn build(
        plugins: &Plugins,
        ground: Ground<'_>,
        before: Option<Before<'_>>,
    ) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        if plugins.len() > limits::PLUGINS_MAX {
            return Err(Violations::one("", format!("maximum number of plugins is {}", limits::PLUGINS_MAX)));
        }
        let mut instances = Vec::with_capacity(plugins.len());
        for (name, config) in plugins {
            let Some(kind) = crate::find(name) else {
                violations.add(format!("/{name}"), format!("unknown plugin `{name}`"));
                continue;
            };
            if consumers::is_credential(kind, config) {
                // One whose secrets are not resolved matches nobody; the consumer has others, perhaps.
                if secrets::are_in(config) {
                    continue;
                }
                // What a consumer shows is found through the index, and does nothing by itself.
                violations.absorb(&format!("/{name}"), consumers::violations(kind, schemas(kind), config));
                continue;
            }
            if let Some(known) = before.and_then(|before| before.instance(name, config)) {
                instances.push(Arc::clone(known));
                continue;
            }
            let Ground { shared, outbound, metadata, protos, owner } = ground;
            let site = Site { metadata: metadata(name), shared, outbound, protos, owner };
            match Instance::build(kind, config, &site) {
                Ok(instance) => instances.push(Arc::new(instance)),
                Err(wrong) => violations.absorb(&format!("/{name}"), wrong),
            }
        }
        violations.into_result()?;
        Ok(Self::sorted(instances))
    }

    /// The layer of these instances.
    #[must_use]
    pub fn sorted(mut instances: Vec<Arc<Instance>>) -> Self {
        instances.sort_by(|one, other| one.order(other));
        Self::in_order(instances)
    }

    fn in_order(instances: Vec<Arc<Instance>>) -> Self {
        let those_of = |phase| instances.iter().filter(move |instance| instance.kind.phases.has(phase));
        let by_phase = Phase::ALL.map(|phase| those_of(phase).cloned().collect());
        Self { instances: instances.into(), by_phase }
    }

    /// This layer with what `above` has in place of its own.
    #[must_use]
    pub fn under(&self, above: &Self) -> Self {
        if above.instances.is_empty() {
            return self.clone();
        }
        let kept = self.instances.iter().filter(|instance| above.instance(instance.kind).is_none());
        Self::sorted(kept.chain(&above.instances).cloned().collect())
    }

    /// The layer without what is disabled: what requests run through.
    #[must_use]
    pub fn enabled(&self) -> Self {
        Self::in_order(self.instances.iter().filter(|instance| !instance.meta.disable).cloned().collect())
    }

    /// The instances of all these layers that find out who calls, each once.
    #[must_use]
    pub fn identifying<'l>(layers: impl Iterator<Item = &'l Self>) -> Self {
        let mut found: Vec<Arc<Instance>> = Vec::new();
        for instance in layers.flat_map(|layer| &*layer.instances) {
            let is_known = found.iter().any(|known| Arc::ptr_eq(known, instance));
            if instance.kind.category == Category::Authentication && !is_known {
                found.push(Arc::clone(instance));
            }
        }
        Self::sorted(found)
    }

    /// Finds out who calls, if one of these instances can tell by the head alone; `exchange` is good for nothing else
    /// afterwards.
    pub fn identify(&self, exchange: &mut Exchange<'_>) {
        for instance in &self.instances {
            if instance.enter(exchange) {
                // Whatever it would answer: somebody else may know.
                let _ = instance.plugin.rewrite(exchange);
            }
            if exchange.state.consumer.is_some() {
                return;
            }
        }
    }

    /// Whether there is nothing to run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }

    /// The instances, in running order.
    pub fn iter(&self) -> impl Iterator<Item = &Instance> {
        self.instances.iter().map(|instance| &**instance)
    }

    fn instance(&self, kind: &Kind) -> Option<&Arc<Instance>> {
        self.instances.iter().find(|instance| std::ptr::eq(instance.kind, kind))
    }

    /// Those that take part in `phase`, in running order.
    fn of(&self, phase: Phase) -> &[Arc<Instance>] {
        &self.by_phase[phase as usize]
    }
}

impl<'b> Before<'b> {
    fn instance(&self, name: &str, config: &Value) -> Option<&'b Arc<Instance>> {
        let same = self.plugins.get(name) == Some(config) && !self.changed.contains(&name);
        same.then(|| self.layer.instances.iter().find(|instance| instance.kind.name == name))?
    }
}

/// The layers that one exchange runs through.
#[derive(Clone, Copy)]
pub struct Course<'c> {
    /// The global rules.
    pub global: &'c Layer,
    /// Route over service.
    pub route: &'c Layer,
}

/// How far an exchange has come in its request phases.
pub struct Progress {
    stage: usize,
    below: usize,
    above: usize,
    blamed: Option<Arc<meta::ErrorBody>>,
}

/// Who runs in a stage.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Global,
    Route,
    /// Only what the consumer adds to the route, and never another authentication.
    ConsumerAlone,
    /// The route, with the consumer's layer above it.
    Both,
}

/// The stages of the request phases, in order.
const STAGES: [(Phase, Who); 7] = [
    (Phase::Rewrite, Who::Global),
    (Phase::Rewrite, Who::Route),
    (Phase::Rewrite, Who::ConsumerAlone),
    (Phase::Access, Who::Global),
    (Phase::Access, Who::Both),
    (Phase::BeforeUpstream, Who::Global),
    (Phase::BeforeUpstream, Who::Both),
];

/// How many of [`STAGES`] a request without a route runs: global rules see it, then it is answered with 404.
const GLOBAL_STAGES: [usize; 2] = [0, 3];

impl Progress {
    /// At the beginning.
    #[must_use]
    pub fn start() -> Self {
        Self { stage: 0, below: 0, above: 0, blamed: None }
    }

    /// What becomes of a flow that a plugin handed back after it was waited for.
    #[must_use]
    pub fn settle(&self, mut flow: Flow) -> Flow {
        if let (Flow::Respond(answer), Some(body)) = (&mut flow, &self.blamed)
            && answer.status >= 400
        {
            body.put_into(answer);
        }
        flow
    }
}

impl Course<'_> {
    /// Whether nothing runs, whoever calls.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.global.is_empty() && self.route.is_empty()
    }

    /// Runs the request phases on from `progress` until they are through (`Continue`) or something else has to
    /// happen first. After that, this is called again, unless the request was answered.
    pub fn advance(&self, progress: &mut Progress, exchange: &mut Exchange<'_>) -> Flow {
        while let Some((phase, who)) = STAGES.get(progress.stage) {
            if self.has_anybody(*phase, *who, exchange.state.consumer.as_deref()) {
                match self.stage(*phase, *who, progress, exchange) {
                    Flow::Continue => {}
                    flow => return progress.settle(flow),
                }
            }
            progress.stage_is_over();
        }
        Flow::Continue
    }

    /// As [`Self::advance`], for a request that no route matches.
    pub fn advance_unmatched(&self, progress: &mut Progress, exchange: &mut Exchange<'_>) -> Flow {
        while let Some((phase, who)) = STAGES.get(progress.stage) {
            if GLOBAL_STAGES.contains(&progress.stage) {
                match self.stage(*phase, *who, progress, exchange) {
                    Flow::Continue => {}
                    flow => return progress.settle(flow),
                }
            }
            progress.stage_is_over();
        }
        Flow::Continue
    }

    fn stage(&self, phase: Phase, who: Who, progress: &mut Progress, exchange: &mut Exchange<'_>) -> Flow {
        let consumer = exchange.state.consumer.clone();
        let layers = (self.below(phase, who), above(phase, who, consumer.as_deref()));
        while let Some((instance, side)) = next(layers, progress) {
            let adds = |instance: &Instance| {
                instance.kind.category != Category::Authentication
                    && self.route.instance(instance.kind).is_none()
            };
            let skipped = who == Who::ConsumerAlone && !adds(instance)
                || exchange.state.already_run.contains(&instance.kind.name)
                || who == Who::Global && self.is_left_to_route(instance, exchange);
            if skipped || !instance.enter(exchange) {
                progress.pass(side);
                continue;
            }
            progress.blamed.clone_from(&instance.meta.error_response);
            match instance.measured(exchange, |plugin, exchange| request_phase(plugin, phase, exchange)) {
                Flow::Continue => progress.pass(side),
                // The same plugin is asked again, with the body there.
                Flow::ReadBody(bytes_max) => return Flow::ReadBody(bytes_max),
                flow => {
                    progress.pass(side);
                    return flow;
                }
            }
        }
        Flow::Continue
    }

    fn below(&self, phase: Phase, who: Who) -> &[Arc<Instance>] {
        match who {
            Who::Global => self.global.of(phase),
            Who::Route | Who::Both => self.route.of(phase),
            Who::ConsumerAlone => &[],
        }
    }

    fn has_anybody(&self, phase: Phase, who: Who, consumer: Option<&Consumer>) -> bool {
        !self.below(phase, who).is_empty() || !above(phase, who, consumer).is_empty()
    }

    /// Whether anybody takes part in `phase`, as far as the consumer is known.
    #[must_use]
    pub fn has(&self, phase: Phase, consumer: Option<&Consumer>) -> bool {
        [Who::Global, Who::Both].into_iter().any(|who| self.has_anybody(phase, who, consumer))
    }

    /// Runs the phase of the response.
    pub fn response(&self, exchange: &mut Exchange<'_>, response: &mut Response<'_>) {
        self.each(Phase::Response, exchange, &mut |plugin, exchange| plugin.response(exchange, response));
    }

    /// Lets everybody take note of how the exchange ended.
    pub fn log(&self, exchange: &mut Exchange<'_>, outcome: &Outcome) {
        self.each(Phase::Log, exchange, &mut |plugin, exchange| plugin.log(exchange, outcome));
    }

    /// Whether a global rule does not run because route, service or consumer have the same plugin.
    fn is_left_to_route(&self, global: &Instance, exchange: &Exchange<'_>) -> bool {
        let consumer =
            || exchange.state.consumer.as_ref().and_then(|consumer| consumer.plugins.as_ref().ok());
        global.plugin.yields_to_route()
            && (self.route.instance(global.kind).is_some()
                || consumer().is_some_and(|layer| layer.instance(global.kind).is_some()))
    }

    fn each(
        &self,
        phase: Phase,
        exchange: &mut Exchange<'_>,
        ask: &mut dyn FnMut(&dyn Plugin, &mut Exchange<'_>),
    ) {
        let consumer = exchange.state.consumer.clone();
        for who in [Who::Global, Who::Both] {
            let layers = (self.below(phase, who), above(phase, who, consumer.as_deref()));
            let mut progress = Progress::start();
            while let Some((instance, side)) = next(layers, &mut progress) {
                progress.pass(side);
                let skipped = who == Who::Global && self.is_left_to_route(instance, exchange);
                if !skipped && instance.enter(exchange) {
                    instance.measured(exchange, |plugin, exchange| ask(plugin, exchange));
                }
            }
        }
    }
}

/// Which of two layers an instance is from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Below,
    Above,
}

impl Progress {
    fn stage_is_over(&mut self) {
        (self.stage, self.below, self.above) = (self.stage + 1, 0, 0);
    }

    fn pass(&mut self, side: Side) {
        match side {
            Side::Below => self.below += 1,
            Side::Above => self.above += 1,
        }
    }
}

/// What the consumer adds in a stage, where its layer is looked at.
fn above(phase: Phase, who: Who, consumer: Option<&Consumer>) -> &[Arc<Instance>] {
    match who {
        Who::Global | Who::Route => &[],
        Who::ConsumerAlone | Who::Both => {
            consumer.and_then(|consumer| consumer.plugins.as_ref().ok()).map_or(&[], |layer| layer.of(phase))
        }
    }
}

/// The next instance of what two layers have in a phase, in running order; what is above hides what is below.
fn next<'l>(
    (below, above): (&'l [Arc<Instance>], &'l [Arc<Instance>]),
    progress: &mut Progress,
) -> Option<(&'l Instance, Side)> {
    while let Some(hidden) = below.get(progress.below)
        && above.iter().any(|one| std::ptr::eq(one.kind, hidden.kind))
    {
        progress.below += 1;
    }
    while above.get(progress.above).is_some_and(|instance| instance.meta.disable) {
        progress.above += 1;
    }
    match (below.get(progress.below), above.get(progress.above)) {
        (Some(lower), Some(upper)) if lower.order(upper).is_le() => Some((lower, Side::Below)),
        (_, Some(upper)) => Some((upper, Side::Above)),
        (Some(lower), None) => Some((lower, Side::Below)),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests;
