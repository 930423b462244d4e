//! Does to the rules what is done to plain data, and holds the two against each other after every step.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use gatewright_model::id::{GatewayGroupId, ServiceVersionId};
use gatewright_model::snapshot::{Revision, Snapshot};
use serde_json::{Value, json};

use super::super::document::{publish_parse, route_template_parse, service_template_parse};
use super::super::{ADMIN, App, Caller, Patch, ProcessSecrets, Refusal, World};
use super::state::{Group, Lifecycle, unknown};
use super::verb::{GROUPS, NUMBERS, SERVICES, Step, Verb};
use crate::distribution::{Assembled, Hints, assemble};
use crate::store::{Call, Direction, ListFilter, Store};

/// The rules over a store, and what should be true of them.
pub(super) struct Run {
    pub(super) app: App,
    clock: Arc<AtomicI64>,
    expected: Lifecycle,
    /// Every snapshot that a gateway of a group can have.
    snapshots: BTreeMap<String, Vec<Snapshot>>,
}

impl Run {
    pub(super) async fn start(store: Store) -> Self {
        let (clock, counter) = (Arc::new(AtomicI64::new(1000)), AtomicU64::new(1));
        let hand = Arc::clone(&clock);
        let random = move || {
            let mut bytes = [0; 32];
            bytes[8..16].copy_from_slice(&counter.fetch_add(1, Ordering::SeqCst).to_be_bytes());
            bytes
        };
        let world = World::new(move || hand.load(Ordering::SeqCst), random);
        let mut tx = store.write().await.unwrap();
        let stamp = tx.stamp(1).await.unwrap();
        for group in GROUPS {
            let content = serde_json::from_value(json!({ "name": group })).unwrap();
            tx.gateway_group_insert(stamp, &group.parse().unwrap(), &content).await.unwrap();
        }
        tx.commit().await.unwrap();
        let snapshots = GROUPS.iter().map(|group| ((*group).to_owned(), vec![Snapshot::default()])).collect();
        let app = App::new(store, world, Hints::default(), ProcessSecrets::default(), None);
        Self { app, clock, expected: Lifecycle::start(), snapshots }
    }

    /// Does one thing, and checks everything.
    pub(super) async fn step(&mut self, step: &Step) {
        self.clock.fetch_add(step.seconds, Ordering::SeqCst);
        let call = Call::new(self.app.audit_log_row(), step.is_dry_run);
        let outcome = call.scope(Box::pin(perform(&self.app, &step.verb))).await;
        match (outcome, self.expected.after(&step.verb)) {
            (Ok(versions), Ok(mut next)) if !step.is_dry_run => {
                for (service, number, id) in versions {
                    let version =
                        next.versions.get_mut(&(service, number)).expect("a version that was published");
                    // An id is told once; from then on it must stay.
                    if version.id == unknown() {
                        version.id = id;
                    }
                }
                self.expected = next;
            }
            (Ok(_), Ok(_)) => {}
            (Err(refusal), Err(expected)) => assert_eq!(situation(&refusal), expected, "{refusal}: {step:?}"),
            (outcome, expected) => panic!("{step:?}: {outcome:?}, but expected {:?}", expected.map(drop)),
        }
        let found = self.found().await;
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
        for row in self.app.route_template_list(&admin, None, &all).await.unwrap().rows {
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
        for group in GROUPS {
            let id: GatewayGroupId = group.parse().unwrap();
            let Revision(revision) = tx.gateway_group_revision(&id).await.unwrap().unwrap();
            let mut group_found = Group { revision, ..Group::default() };
            for row in tx.published_service_list(&id, &all).await.unwrap().rows {
                let service = row.version.service_id.to_string();
                let before = group_found.active.insert(service, (row.version.version, row.runtime));
                assert!(before.is_none(), "a service is active twice in `{group}`");
            }
            for service in SERVICES {
                let history =
                    tx.publication_list(&id, &service.parse().unwrap(), Direction::Ascending).await.unwrap();
                assert!(history.iter().all(|row| row.published_by == ADMIN), "{history:?}");
                let numbers: Vec<_> = history.into_iter().map(|row| row.version.version).collect();
                if !numbers.is_empty() {
                    group_found.history.insert(service.to_owned(), numbers);
                }
            }
            found.groups.insert(group.to_owned(), group_found);
        }
        found
    }

    /// A gateway that starts and one that comes back with an older snapshot end with what the store says.
    async fn gateways_must_follow(&mut self, group: &str, step: &Step) {
        let id = group.parse().unwrap();
        let Assembled::Update(full) = assemble(self.app.store(), &id, None).await.unwrap() else {
            panic!("a gateway of `{group}` that has nothing is sent nothing, after {step:?}")
        };
        assert!(full.full);
        let served = Snapshot::default().apply(full);
        let services: Vec<_> = served.services.values().map(|service| (**service).clone()).collect();
        assert_eq!(services, self.expected.served(group), "`{group}` after {step:?}");
        assert_eq!(served.revision.0, self.expected.groups[group].revision);

        let known = self.snapshots.get_mut(group).unwrap();
        let have = &known[step.have % known.len()];
        let caught_up = match assemble(self.app.store(), &id, Some(have.revision)).await.unwrap() {
            Assembled::Update(update) => {
                assert!(!update.full, "a gateway that lags little is sent changes");
                have.apply(update)
            }
            Assembled::Nothing => have.clone(),
            Assembled::NoGroup => panic!("`{group}` is gone, after {step:?}"),
        };
        assert_eq!(caught_up, served, "`{group}`, from revision {}, after {step:?}", have.revision);
        if known.last().is_none_or(|last| last.revision < served.revision) {
            known.push(served);
        }
    }
}

/// Does it; answers which versions became active: service, number, id.
async fn perform(app: &App, verb: &Verb) -> Result<Vec<(String, String, ServiceVersionId)>, Refusal> {
    let admin = Caller::named(ADMIN);
    match verb {
        Verb::TemplatePut { service, content } => {
            let document = service_template_parse(content.clone())?;
            app.service_template_put(&admin, &service.parse().unwrap(), document).await?;
        }
        Verb::TemplateDelete { service } => {
            app.service_template_delete(&admin, &service.parse().unwrap()).await?;
        }
        Verb::RoutePut { route, content } => {
            let document = route_template_parse(content.clone())?;
            app.route_template_put(&admin, &route.parse().unwrap(), document).await?;
        }
        Verb::RouteDelete { route } => app.route_template_delete(&admin, &route.parse().unwrap()).await?,
        Verb::Publish { group, services } => {
            let services = services.iter().map(|(service, number, host)| match host {
                Some(host) => json!({ "service_id": service, "version": number, "hosts": [host] }),
                None => json!({ "service_id": service, "version": number }),
            });
            return publish(app, group, true, services.collect()).await;
        }
        Verb::PublishAgain { group, services } => {
            let mut wishes = Vec::new();
            for (service, number) in services {
                let mut tx = app.store().read().await.unwrap();
                let version = tx.service_version_numbered(&service.parse().unwrap(), number).await.unwrap();
                let id = version.map_or_else(unknown, |version| version.id);
                wishes.push(json!({ "service_id": service, "service_version_id": id }));
            }
            return publish(app, group, false, wishes).await;
        }
        Verb::RuntimePatch { group, service, edit } => {
            let patch = Patch::parse(edit.patch())?;
            let (group, service) = (group.parse().unwrap(), service.parse().unwrap());
            app.runtime_configuration_patch(&admin, &group, &service, patch).await?;
        }
        Verb::Unpublish { group, service } => {
            let (group, service) = (group.parse().unwrap(), service.parse().unwrap());
            app.published_service_delete(&admin, &group, &service).await?;
        }
    }
    Ok(Vec::new())
}

async fn publish(
    app: &App,
    group: &str,
    create_new_version: bool,
    services: Vec<Value>,
) -> Result<Vec<(String, String, ServiceVersionId)>, Refusal> {
    let wish = json!({
        "create_new_version": create_new_version, "gateway_group_id": group, "services": services
    });
    let outcome = app.service_publish(&Caller::named(ADMIN), publish_parse(wish)?.content).await?;
    let versions = outcome.versions.into_iter();
    Ok(versions.map(|(service, id, number)| (service.to_string(), number, id)).collect())
}

/// The name of the rule that refuses.
fn situation(refusal: &Refusal) -> String {
    let text = format!("{refusal:?}");
    text.split([' ', '(']).next().unwrap_or_default().to_owned()
}
