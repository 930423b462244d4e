//! Does to the rules what is done to plain data, and holds the two against each other after every step.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use gatewright_model::id::GatewayGroupId;
use gatewright_model::resource::route::Route;
use gatewright_model::resource::upstream::Upstream;
use gatewright_model::snapshot::{Revision, Snapshot};
use serde_json::{Value, json};

use super::super::document::{publish_parse, route_template_parse, service_template_parse};
use super::super::group_document::{group_route_parse, service_parse};
use super::super::{ADMIN, App, Caller, CanaryEnd, Patch, ProcessSecrets, Refusal, Shelf, World};
use super::state::{Active, Group, Lifecycle, further_upstream, unknown};
use super::verb::{GROUPS, NUMBERS, SERVICES, Step, Verb};
use crate::distribution::{Hints, sent};
use crate::store::faults::failing_at;
use crate::store::{Call, Direction, ListFilter, Store};

/// The rules over a store, and what should be true of them.
pub(super) struct Run {
    pub(super) app: App,
    clock: Arc<AtomicI64>,
    counter: Arc<AtomicU64>,
    expected: Lifecycle,
    /// Every snapshot that a gateway of a group can have.
    snapshots: BTreeMap<String, Vec<Snapshot>>,
}

impl Run {
    pub(super) async fn start(store: Store) -> Self {
        let mut tx = store.write().await.unwrap();
        let stamp = tx.stamp(1).await.unwrap();
        for group in GROUPS {
            let content = serde_json::from_value(json!({ "name": group })).unwrap();
            tx.gateway_group_insert(stamp, &group.parse().unwrap(), &content).await.unwrap();
        }
        tx.commit().await.unwrap();
        let (clock, counter) = (Arc::new(AtomicI64::new(1000)), Arc::new(AtomicU64::new(1)));
        let snapshots = GROUPS.iter().map(|group| ((*group).to_owned(), vec![Snapshot::default()])).collect();
        let app = app(store, &clock, &counter);
        Self { app, clock, counter, expected: Lifecycle::start(), snapshots }
    }

    /// The same life after the process died and came back with what `store` holds.
    pub(super) fn resume(&mut self, store: Store) {
        self.app = app(store, &self.clock, &self.counter);
    }

    /// Does one thing, and checks everything. Answers whether it was done.
    pub(super) async fn step(&mut self, step: &Step) -> bool {
        self.clock.fetch_add(step.seconds, Ordering::SeqCst);
        let performing = self.perform(&step.verb, step.is_dry_run);
        let outcome = match step.failing_at {
            Some(nth) => failing_at(nth, performing).await,
            None => performing.await,
        };
        let is_done = match (outcome, self.expected.after(&step.verb)) {
            (Err(Refusal::Unconfirmed { .. }), Ok(next)) if step.failing_at.is_some() => {
                self.expected = next;
                true
            }
            // Something failed on the way: then it is as if nothing had been asked.
            (Err(Refusal::Unavailable { .. }), _) if step.failing_at.is_some() => false,
            (Ok(()), Ok(next)) => {
                if !step.is_dry_run {
                    self.expected = next;
                }
                true
            }
            (Err(refusal), Err(expected)) => {
                assert_eq!(situation(&refusal), expected, "{refusal}: {step:?}");
                false
            }
            (outcome, expected) => panic!("{step:?}: {outcome:?}, but expected {:?}", expected.map(drop)),
        };
        let found = self.found().await;
        self.must_be_expected(found, step).await;
        is_done
    }

    /// After it was done or not: the store says one of both, all of it. Answers whether it was done.
    pub(super) async fn is_done_or_not(&mut self, step: &Step) -> bool {
        let found = self.found().await;
        let is_done = found.groups != self.expected.groups
            || found.templates != self.expected.templates
            || found.routes != self.expected.routes;
        if is_done {
            self.expected = self.expected.after(&step.verb).unwrap();
        }
        self.must_be_expected(found, step).await;
        is_done
    }

    /// Does something for a call, as the API does.
    pub(super) async fn perform(&self, verb: &Verb, is_dry_run: bool) -> Result<(), Refusal> {
        let call = Call::new(self.app.audit_log_row(), is_dry_run, None);
        call.scope(Box::pin(perform(&self.app, verb))).await
    }

    /// The store and the gateways are what plain data says.
    async fn must_be_expected(&mut self, found: Lifecycle, step: &Step) {
        for (key, version) in &mut self.expected.versions {
            // An id is told once; from then on it must stay.
            if version.id == unknown()
                && let Some(found) = found.versions.get(key)
            {
                version.id = found.id.clone();
            }
        }
        assert_eq!(found, self.expected, "after {step:?}");
        for group in GROUPS {
            self.gateways_must_follow(group, step).await;
        }
    }

    /// What the store says, through what the rules answer.
    async fn found(&self) -> Lifecycle {
        let admin = Caller::named(ADMIN);
        let all = ListFilter::default();
        let mut found = Lifecycle::start();
        for row in self.app.service_template_list(&admin, &all).await.unwrap().rows {
            found.templates.insert(row.id.to_string(), row.template);
        }
        for row in self.app.route_template_list::<Route>(&admin, None, &all).await.unwrap().rows {
            found.routes.insert(row.id.to_string(), (row.service_id.to_string(), row.route));
        }
        let mut tx = self.app.store().read().await.unwrap();
        for service in SERVICES {
            for number in NUMBERS {
                let version = tx.service_version_numbered(&service.parse().unwrap(), number).await.unwrap();
                if let Some(version) = version {
                    found.versions.insert((service.to_owned(), number.to_owned()), version);
                }
            }
        }
        drop(tx);
        for group in GROUPS {
            found.groups.insert(group.to_owned(), self.group_found(&group.parse().unwrap()).await);
        }
        found
    }

    async fn group_found(&self, id: &GatewayGroupId) -> Group {
        let admin = Caller::named(ADMIN);
        let all = ListFilter::default();
        let mut tx = self.app.store().read().await.unwrap();
        let Revision(revision) = tx.gateway_group_revision(id).await.unwrap().unwrap();
        let mut found = Group { revision, ..Group::default() };
        for row in tx.published_service_list(id, &all).await.unwrap().rows {
            let shelf = Shelf { group: id, owner: row.service_id.as_str() };
            let upstreams = self.app.object_list::<Upstream>(&admin, shelf, &all).await.unwrap().rows;
            let active = Active {
                number: row.version.map(|version| version.number),
                content: row.content,
                runtime: row.runtime,
                upstreams: upstreams.into_iter().map(|object| (object.id, object.content)).collect(),
            };
            let before = found.active.insert(row.service_id.to_string(), active);
            assert!(before.is_none(), "a service is active twice in `{id}`");
        }
        for row in self.app.group_route_list::<Route>(&admin, id, None, &all).await.unwrap().rows {
            found.routes.insert(row.id.to_string(), (row.service_id.to_string(), row.route));
        }
        for service in SERVICES {
            let history =
                tx.publication_list(id, &service.parse().unwrap(), Direction::Ascending).await.unwrap();
            assert!(history.iter().all(|row| row.published_by == ADMIN), "{history:?}");
            let numbers: Vec<_> = history.into_iter().map(|row| row.version.version).collect();
            if !numbers.is_empty() {
                found.history.insert(service.to_owned(), numbers);
            }
        }
        found
    }

    /// A gateway that starts and one that comes back with an older snapshot end with what the store says.
    async fn gateways_must_follow(&mut self, group: &str, step: &Step) {
        let id = group.parse().unwrap();
        let whole = sent(self.app.feeds(), &self.app, &id, None).await;
        let [whole] = whole.as_deref().unwrap_or_default() else {
            panic!("a gateway of `{group}` that has nothing is not sent everything at once, after {step:?}")
        };
        assert!(whole.full);
        let served = Snapshot::default().apply(whole.clone());
        let services: Vec<_> = served.services.values().map(|service| (**service).clone()).collect();
        assert_eq!(services, self.expected.served(group), "`{group}` after {step:?}");
        assert_eq!(served.revision.0, self.expected.groups[group].revision);

        let known = self.snapshots.get_mut(group).unwrap();
        let have = &known[step.have % known.len()];
        let missed = sent(self.app.feeds(), &self.app, &id, Some(have)).await;
        let missed = missed.unwrap_or_else(|| panic!("`{group}` is gone, after {step:?}"));
        // One that has nothing yet knows no epoch either.
        let is_changes = missed.iter().all(|update| !update.full);
        assert!(is_changes || have.epoch.is_none(), "a gateway that lags little is sent changes");
        let caught_up = missed.into_iter().fold(have.clone(), |snapshot, update| snapshot.apply(update));
        assert_eq!(caught_up, served, "`{group}`, from revision {}, after {step:?}", have.revision);
        if known.last().is_none_or(|last| last.revision < served.revision) {
            known.push(served);
        }
    }
}

fn app(store: Store, clock: &Arc<AtomicI64>, counter: &Arc<AtomicU64>) -> App {
    let (clock, counter) = (Arc::clone(clock), Arc::clone(counter));
    let random = move || {
        let mut bytes = [0; 32];
        bytes[8..16].copy_from_slice(&counter.fetch_add(1, Ordering::SeqCst).to_be_bytes());
        bytes
    };
    let world = World::new(move || clock.load(Ordering::SeqCst), random);
    App::new(store, world, Hints::default(), ProcessSecrets::of_a_test(), None)
}

async fn perform(app: &App, verb: &Verb) -> Result<(), Refusal> {
    let admin = Caller::named(ADMIN);
    match verb {
        Verb::TemplatePut { service, content } => {
            let document = service_template_parse(content.clone())?;
            app.service_template_put(&admin, &service.parse().unwrap(), document).await.map(drop)
        }
        Verb::TemplateDelete { service } => {
            app.service_template_delete(&admin, &service.parse().unwrap()).await
        }
        Verb::RoutePut { route, content } => {
            let document = route_template_parse::<Route>(content.clone())?;
            app.route_template_put(&admin, &route.parse().unwrap(), document).await.map(drop)
        }
        Verb::RouteDelete { route } => {
            app.route_template_delete::<Route>(&admin, &route.parse().unwrap()).await
        }
        Verb::Publish { group, services } => {
            let services = services.iter().map(|(service, number, host)| match host {
                Some(host) => json!({ "service_id": service, "version": number, "hosts": [host] }),
                None => json!({ "service_id": service, "version": number }),
            });
            publish(app, group, true, services.collect()).await
        }
        Verb::PublishAgain { group, services } => {
            let mut wishes = Vec::new();
            for (service, number) in services {
                let mut tx = app.store().read().await?;
                let version = tx.service_version_numbered(&service.parse().unwrap(), number).await?;
                let id = version.map_or_else(unknown, |version| version.id);
                wishes.push(json!({ "service_id": service, "service_version_id": id }));
            }
            publish(app, group, false, wishes).await
        }
        Verb::Synchronise { group, source, services } => {
            let services = services.iter().map(|(service, number)| {
                let mut wish = json!({ "service_id": service, "source_gateway_group_id": source });
                if let Some(number) = number {
                    wish["version"] = json!(number);
                }
                wish
            });
            publish(app, group, false, services.collect()).await
        }
        _ => perform_there(app, &verb.group().unwrap().parse().unwrap(), verb).await,
    }
}

/// What is done to services where they run.
async fn perform_there(app: &App, group: &GatewayGroupId, verb: &Verb) -> Result<(), Refusal> {
    let admin = Caller::named(ADMIN);
    match verb {
        Verb::RuntimePatch { service, edit, .. } => {
            let patch = Patch::parse(edit.patch())?;
            app.runtime_configuration_patch(&admin, group, &service.parse().unwrap(), patch).await.map(drop)
        }
        Verb::Unpublish { service, .. } => {
            app.published_service_delete(&admin, group, &service.parse().unwrap()).await
        }
        Verb::ServiceWrite { service, content, .. } => {
            let document = service_parse(content.clone())?;
            app.group_service_put(&admin, group, &service.parse().unwrap(), document).await.map(drop)
        }
        Verb::RouteWrite { route, content, .. } => {
            let document = group_route_parse::<Route>(content.clone())?;
            app.group_route_put(&admin, group, &route.parse().unwrap(), document).await.map(drop)
        }
        Verb::RouteRemove { route, .. } => {
            app.group_route_delete::<Route>(&admin, group, &route.parse().unwrap()).await
        }
        Verb::UpstreamPut { service, upstream, host, .. } => {
            let (service, upstream) = (service.parse().unwrap(), upstream.parse().unwrap());
            app.service_upstream_put(&admin, group, &service, &upstream, further_upstream(host))
                .await
                .map(drop)
        }
        Verb::CanaryEnd { service, upstream, is_promoted, .. } => {
            let (service, upstream) = (service.parse().unwrap(), upstream.parse().unwrap());
            let end = if *is_promoted { CanaryEnd::Promote } else { CanaryEnd::Abandon };
            app.canary_end(&admin, (group, &service), &upstream, end).await.map(drop)
        }
        _ => unreachable!("{verb:?} is about more than a group"),
    }
}

async fn publish(
    app: &App,
    group: &str,
    create_new_version: bool,
    services: Vec<Value>,
) -> Result<(), Refusal> {
    let wish = json!({
        "create_new_version": create_new_version, "gateway_group_id": group, "services": services
    });
    app.service_publish(&Caller::named(ADMIN), publish_parse(wish)?.content).await.map(drop)
}

/// The name of the rule that refuses.
fn situation(refusal: &Refusal) -> String {
    let text = format!("{refusal:?}");
    text.split([' ', '(']).next().unwrap_or_default().to_owned()
}
