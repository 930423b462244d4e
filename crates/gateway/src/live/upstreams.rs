//! The upstreams of a service, compiled: its own, the further ones beside it, and those written into its plugins.
//!
//! One that did not change is taken over with its connections, health and counters, whatever it was before: a canary
//! that is promoted keeps them when it becomes the service's own upstream.
//! One that cannot be used rejects the requests that are sent to it and nothing else. One that is not there is not
//! missed, because clients write references and upstreams in any order: the service's own upstream serves.

use std::collections::BTreeMap;
use std::sync::Arc;

use gatewright_model::id::ObjectId;
use gatewright_model::resource::group_object::{CERTIFICATE_PLACE, GroupObject, ObjectKey, ObjectKind};
use gatewright_model::resource::upstream as resource;
use gatewright_model::snapshot::{Objects, PublishedService};
use gatewright_plugins::exchange::UpstreamChoice;

use crate::proxy::reject::RejectReason;
use crate::upstream::discovered::Discovered;
use crate::upstream::discovered::table::Table;
use crate::upstream::{Background, Reachable, Upstream};

/// The upstreams of one service.
pub(crate) struct ServiceUpstreams {
    own: LiveUpstream,
    further: BTreeMap<ObjectId, LiveUpstream>,
    inline: Vec<(Arc<resource::Upstream>, LiveUpstream)>,
}

/// One upstream.
#[derive(Clone)]
pub(crate) struct LiveUpstream {
    /// The client certificate it names, if it names one that is there.
    client_certificate: Option<Arc<GroupObject>>,
    nodes: Nodes,
}

/// Where its nodes come from.
#[derive(Clone)]
enum Nodes {
    /// The configuration: it stays as it is.
    Written(Reachable),
    /// A registry: how it is now stands on the table.
    Discovered(Arc<Discovered>),
}

/// What upstreams are compiled from.
#[derive(Clone, Copy)]
pub(super) struct Ground<'g> {
    pub(super) objects: &'g Objects,
    /// Services and their upstreams before, to take over what did not change.
    pub(super) known: &'g [(&'g PublishedService, &'g ServiceUpstreams)],
    pub(super) background: &'g Background,
}

impl ServiceUpstreams {
    /// Compiles the upstreams of `published`, in whose plugins `inline` are written.
    pub(super) fn compile(
        published: &PublishedService,
        inline: Vec<Arc<resource::Upstream>>,
        ground: Ground<'_>,
    ) -> Self {
        let further = published.upstreams.iter();
        Self {
            own: LiveUpstream::compile(&published.runtime.upstream, ground),
            further: further
                .map(|(id, written)| (id.clone(), LiveUpstream::compile(written, ground)))
                .collect(),
            inline: inline
                .into_iter()
                .map(|written| (Arc::clone(&written), LiveUpstream::compile(&written, ground)))
                .collect(),
        }
    }

    /// Whether nodes would be shown the same certificates if these upstreams of `published` were compiled again.
    pub(super) fn show_certificates_of(&self, published: &PublishedService, objects: &Objects) -> bool {
        self.each(published).all(|(written, live)| live.shows(client_certificate(written, objects)))
    }

    /// The service's own upstream.
    pub(crate) fn own(&self) -> &LiveUpstream {
        &self.own
    }

    /// The further upstreams, in the order of their ids.
    pub(crate) fn further(&self) -> impl Iterator<Item = (&ObjectId, &LiveUpstream)> {
        self.further.iter()
    }

    /// All of them, those in plugins included.
    pub(crate) fn all(&self) -> impl Iterator<Item = &LiveUpstream> {
        let beside = self.further.values().chain(self.inline.iter().map(|(_, live)| live));
        std::iter::once(&self.own).chain(beside)
    }

    /// The upstream that a plugin chose, if it is one of these.
    pub(crate) fn chosen(&self, choice: &UpstreamChoice) -> Option<&LiveUpstream> {
        match choice {
            // A handful at most, and a request asks once.
            UpstreamChoice::Id(id) => {
                self.further.iter().find(|(known, _)| known.as_str() == &**id).map(|(_, live)| live)
            }
            UpstreamChoice::Inline(written) => {
                self.inline.iter().find(|(known, _)| Arc::ptr_eq(known, written)).map(|(_, live)| live)
            }
        }
    }

    /// Each with what it was compiled from, which is `published`.
    fn each<'s>(
        &'s self,
        published: &'s PublishedService,
    ) -> impl Iterator<Item = (&'s resource::Upstream, &'s LiveUpstream)> {
        let further = published.upstreams.values().zip(self.further.values());
        let inline = self.inline.iter().map(|(written, live)| (&**written, live));
        std::iter::once((&published.runtime.upstream, &self.own)).chain(further).chain(inline)
    }
}

impl LiveUpstream {
    fn compile(written: &resource::Upstream, ground: Ground<'_>) -> Self {
        let client_certificate = client_certificate(written, ground.objects);
        let same = |(known, live): &(&resource::Upstream, &Self)| {
            *known == written && live.shows(client_certificate)
        };
        let mut known = ground.known.iter();
        if let Some((_, live)) = known.find_map(|(before, known)| known.each(before).find(same)) {
            return live.clone();
        }
        Self::made_of(written, client_certificate, ground.background)
    }

    /// One that stands in no service and shows no certificate of the group.
    pub(super) fn alone(written: &resource::Upstream, background: &Background) -> Self {
        Self::made_of(written, None, background)
    }

    fn made_of(
        written: &resource::Upstream,
        client_certificate: Option<&Arc<GroupObject>>,
        background: &Background,
    ) -> Self {
        let nodes = match background.discovered(written, client_certificate) {
            Some(discovered) => Nodes::Discovered(Arc::new(discovered)),
            None => {
                let object = client_certificate.map(|object| &**object);
                Nodes::Written(Upstream::compile(written, object, background).map(Arc::new))
            }
        };
        Self { client_certificate: client_certificate.cloned(), nodes }
    }

    /// The upstream with the nodes that a request found on the table.
    pub(crate) fn at<'l>(&'l self, table: &'l Table) -> Result<&'l Upstream, RejectReason> {
        match &self.nodes {
            Nodes::Written(reachable) => reachable.as_deref().map_err(|reason| *reason),
            Nodes::Discovered(discovered) => table.upstream(discovered.number()),
        }
    }

    /// The upstream with the nodes of this moment, for those who are no requests.
    pub(crate) fn now(&self) -> Reachable {
        match &self.nodes {
            Nodes::Written(reachable) => reachable.clone(),
            Nodes::Discovered(discovered) => discovered.now(),
        }
    }

    /// Where its nodes come from, if they are not written down.
    pub(crate) fn discovered(&self) -> Option<&Discovered> {
        match &self.nodes {
            Nodes::Written(_) => None,
            Nodes::Discovered(discovered) => Some(discovered),
        }
    }

    fn shows(&self, client_certificate: Option<&Arc<GroupObject>>) -> bool {
        self.client_certificate.as_ref().map(Arc::as_ptr) == client_certificate.map(Arc::as_ptr)
    }
}

/// The SSL object whose certificate the nodes of `upstream` are shown; a certificate on its own has its place in front
/// of its id.
fn client_certificate<'o>(
    upstream: &resource::Upstream,
    objects: &'o Objects,
) -> Option<&'o Arc<GroupObject>> {
    let id = upstream.tls.as_ref()?.client_cert_id.as_ref()?;
    let alone = format!("{CERTIFICATE_PLACE}{id}").parse().ok();
    let mut ids = [Some(id.clone()), alone].into_iter().flatten();
    ids.find_map(|id| objects.get(&ObjectKey { kind: ObjectKind::Ssl, consumer: None, id }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn upstream(port: u16) -> Value {
        json!({"nodes": [{"host": "127.0.0.1", "port": port, "weight": 1}]})
    }

    fn service(own: Value, further: Value) -> PublishedService {
        let document = json!({
            "service_id": "s", "name": "s", "type": "http", "routes": [], "strip_path_prefix": true, "status": 1,
            "upstream": own, "upstreams": further
        });
        serde_json::from_value(document).unwrap()
    }

    fn compile(
        published: &PublishedService,
        inline: &[Value],
        known: Option<(&PublishedService, &ServiceUpstreams)>,
    ) -> (ServiceUpstreams, Vec<UpstreamChoice>) {
        let (objects, background) = (Objects::new(), Background::idle(1));
        let written = |value: &Value| Arc::new(serde_json::from_value(value.clone()).unwrap());
        let inline: Vec<Arc<resource::Upstream>> = inline.iter().map(written).collect();
        let choices = inline.iter().cloned().map(UpstreamChoice::Inline).collect();
        let known: Vec<_> = known.into_iter().collect();
        let ground = Ground { objects: &objects, known: &known, background: &background };
        (ServiceUpstreams::compile(published, inline, ground), choices)
    }

    fn id(id: &str) -> UpstreamChoice {
        UpstreamChoice::Id(id.into())
    }

    fn address(live: &LiveUpstream) -> *const Upstream {
        Arc::as_ptr(&live.now().unwrap())
    }

    #[test]
    fn a_choice_is_served_by_what_it_names_and_nothing_is_missed() {
        let published = service(upstream(1), json!({"canary": upstream(2), "empty": {}}));
        let (upstreams, inline) = compile(&published, &[upstream(3)], None);
        let port = |live: &LiveUpstream| live.now().unwrap().nodes[0].written.port;
        assert_eq!(port(upstreams.own()), 1);
        assert_eq!(upstreams.chosen(&id("canary")).map(port), Some(2));
        assert_eq!(upstreams.chosen(&inline[0]).map(port), Some(3));
        let unusable = upstreams.chosen(&id("empty")).unwrap().now().err();
        assert_eq!(unusable, Some(RejectReason::NoNodes), "what is there and unusable is not passed over");
        assert!(upstreams.chosen(&id("absent")).is_none());
    }

    #[test]
    fn what_did_not_change_is_taken_over_whatever_it_becomes() {
        let first = service(upstream(1), json!({"canary": upstream(2), "other": upstream(4)}));
        let (before, inline) = compile(&first, &[upstream(3)], None);
        // The canary is promoted, the other one edited, and the plugin built anew with the same upstream in it.
        let second = service(upstream(2), json!({"other": upstream(5)}));
        let (after, again) = compile(&second, &[upstream(3)], Some((&first, &before)));
        assert_eq!(address(after.own()), address(before.chosen(&id("canary")).unwrap()));
        assert_eq!(address(after.chosen(&again[0]).unwrap()), address(before.chosen(&inline[0]).unwrap()));
        let other = |upstreams: &ServiceUpstreams| address(upstreams.chosen(&id("other")).unwrap());
        assert_ne!(other(&after), other(&before));
        assert!(after.chosen(&id("canary")).is_none());
    }
}
