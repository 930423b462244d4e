//! Plugins tried on requests written as text: data in, data out.

mod head;
mod outside;
mod streams;

use std::cell::RefCell;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use gatewright_model::expression::{Value, Variable};
use gatewright_model::message::{Fields, Method, RequestHead, ResponseHead, Span};
use gatewright_model::resource::Plugins;
use gatewright_model::target;
use serde_json::{Value as Json, json};

use crate::chain::{Course, Ground, Layer, Progress};
use crate::consumers::{Consumer, Consumers};
use crate::exchange::{Answer, Body, Client, Counted, Exchange, Flow, Matched, Now, State, Surroundings};
use crate::kind::Outcome;
use crate::outbound::{Destination, Failure, Outbound, Request, Response as Reply};
use crate::protos::{Proto, Protos};
use crate::response::{Origin, Response, ResponseBody, Whole, finish_all, push_all};
use crate::shared::Shared;
use head::head_of;
pub(crate) use outside::Kept;
use outside::{Disk, Door, Outside};

/// One or more plugins of a route, and the world around it.
pub(crate) struct Trial {
    pub(crate) layer: Layer,
    pub(crate) global: Layer,
    pub(crate) consumers: Consumers,
    client: IpAddr,
    tls: bool,
    world: World,
}

struct World {
    outside: Arc<Outside>,
    random: RefCell<fastrand::Rng>,
    counted: RefCell<Vec<String>>,
}

/// What a future comes to that waits for nothing but the outside of a trial.
pub(crate) fn ready<T>(mut future: Pin<Box<dyn Future<Output = T> + '_>>) -> T {
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("nothing that happens in a trial ends this wait"),
    }
}

impl Surroundings for World {
    fn now(&self) -> Now {
        let now = self.outside.now();
        Now { unix: Duration::from_secs(1_700_000_000) + now, uptime: now }
    }

    fn random(&self) -> u64 {
        self.random.borrow_mut().u64(..)
    }

    fn count(&self, counted: &Counted<'_>) {
        let mut text = if counted.by_name { "name" } else { "id" }.to_owned();
        counted.without.iter().for_each(|(metric, label)| text += &format!(" without {metric}.{label}"));
        self.counted.borrow_mut().push(text);
    }

    fn variable<'a>(&'a self, _: &'a RequestHead, _: &'a Body, variable: &Variable) -> Option<Value<'a>> {
        match variable {
            Variable::Hostname => Some(Value::text(b"gateway-1")),
            Variable::Other(name) if **name == *"revision" => Some(Value::text(b"17")),
            Variable::Other(name) if **name == *"protocol" => Some(Value::text(b"TCP")),
            _ => None,
        }
    }
}

/// Builds a layer of `plugins`, an object of configurations by name.
pub(crate) fn layer(plugins: &Json, metadata: &Json) -> Layer {
    layer_in(plugins, metadata, (&Arc::default(), &Protos::default()))
}

fn layer_in(plugins: &Json, metadata: &Json, (outside, protos): (&Arc<Outside>, &Protos)) -> Layer {
    let plugins: Plugins = plugins.as_object().expect("plugins by name").clone();
    let (shared, outbound): (_, Arc<dyn Outbound>) = (Shared::default(), Arc::new(Door(Arc::clone(outside))));
    let metadata = |name: &str| metadata.get(name).and_then(Json::as_object);
    let ground =
        Ground { shared: &shared, outbound: &outbound, metadata: &metadata, protos, owner: "route/r1" };
    Layer::build(&plugins, ground, None).expect("a layer")
}

/// The paths of everything wrong with `config`, sorted.
pub(crate) fn refused(name: &str, config: &Json) -> Vec<String> {
    let mut paths: Vec<String> =
        crate::validate(name, config).iter().map(|violation| violation.path.clone()).collect();
    paths.sort();
    paths.dedup();
    paths
}

impl Trial {
    pub(crate) fn of(name: &str, config: Json) -> Self {
        Self::all(&json!({ name: config }))
    }

    pub(crate) fn all(plugins: &Json) -> Self {
        Self::with_metadata(plugins, &json!({}))
    }

    pub(crate) fn with_metadata(plugins: &Json, metadata: &Json) -> Self {
        Self::with(plugins, metadata, &Protos::default())
    }

    /// In a group with these protos.
    pub(crate) fn with_protos(protos: &[(&str, &str)], plugins: &Json) -> Self {
        let mut known = Protos::default();
        protos.iter().for_each(|(id, text)| known.set(id, Proto::compile(text).expect("a proto")));
        Self::with(plugins, &json!({}), &known)
    }

    fn with(plugins: &Json, metadata: &Json, protos: &Protos) -> Self {
        let outside = Arc::default();
        Self {
            layer: layer_in(plugins, metadata, (&outside, protos)).enabled(),
            global: Layer::default(),
            consumers: Consumers::default(),
            client: [10, 0, 0, 9].into(),
            tls: false,
            world: World {
                outside,
                random: RefCell::new(fastrand::Rng::with_seed(7)),
                counted: RefCell::default(),
            },
        }
    }

    pub(crate) fn global(mut self, plugins: &Json) -> Self {
        self.global = layer_in(plugins, &json!({}), (&self.world.outside, &Protos::default())).enabled();
        self
    }

    pub(crate) fn from(mut self, address: &str) -> Self {
        self.client = address.parse().expect("an address");
        self
    }

    pub(crate) fn over_tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Adds a consumer with these labels and plugins.
    pub(crate) fn consumer(mut self, name: &str, labels: Json, plugins: Json) -> Self {
        let consumer = json!({"username": name, "labels": labels, "plugins": plugins});
        let consumer = serde_json::from_value(consumer).expect("a consumer");
        let plugins = layer_in(&plugins, &json!({}), (&self.world.outside, &Protos::default()));
        self.consumers.add_consumer(&consumer, Ok(plugins));
        self
    }

    /// Adds a credential object.
    pub(crate) fn credential(mut self, consumer: &str, id: &str, plugins: Json) -> Self {
        let credential =
            serde_json::from_value(json!({"name": id, "plugins": plugins})).expect("a credential");
        self.consumers.add_credential(consumer, id, &credential);
        self
    }

    /// What was passed on to those who do not answer, since this was called last.
    pub(crate) fn delivered(&self) -> Vec<(Destination, String)> {
        self.world.outside.work();
        std::mem::take(&mut *self.world.outside.delivered.lock().expect("deliveries"))
    }

    /// Gives the gateway a disk; from now on, as its plugins were built without one.
    pub(crate) fn with_disk(self, plugins: &Json) -> Self {
        *self.world.outside.disk.lock().expect("a disk") = Some(Disk::default());
        self.restarted(plugins)
    }

    /// The same gateway started anew with these plugins: what is outside is as it was.
    pub(crate) fn restarted(mut self, plugins: &Json) -> Self {
        self.layer = layer_in(plugins, &json!({}), (&self.world.outside, &Protos::default())).enabled();
        self
    }

    /// Lets the gateway end.
    pub(crate) fn close(&self) {
        *self.world.outside.closing.lock().expect("the end") = true;
        self.world.outside.work();
    }

    /// How many entries were lost so far.
    pub(crate) fn lost(&self) -> u64 {
        *self.world.outside.lost.lock().expect("losses")
    }

    /// How exchanges were counted since the last look.
    pub(crate) fn counted(&self) -> Vec<String> {
        self.world.counted.take()
    }

    /// Lets time pass, and work beside requests go on.
    pub(crate) fn pass(&self, time: Duration) {
        *self.world.outside.now.lock().expect("the time") += time;
        self.world.outside.work();
    }

    /// Lets `answer` stand for everybody outside.
    pub(crate) fn answering(
        self,
        answer: impl FnMut(&Request) -> Result<Reply, Failure> + Send + 'static,
    ) -> Self {
        *self.world.outside.answer.lock().expect("an answer") = Box::new(answer);
        self
    }

    /// What was asked outside since this was called last.
    pub(crate) fn asked(&self) -> Vec<Request> {
        self.world.outside.work();
        std::mem::take(&mut *self.world.outside.asked.lock().expect("requests"))
    }

    /// Runs the request phases of `METHOD target`, fields on lines of their own, and a body after an empty line.
    pub(crate) fn run(&self, request: &str) -> Run<'_> {
        self.run_with(request, State::default(), true)
    }

    /// As [`Self::run`], up to where the body goes to the upstream.
    pub(crate) fn run_streaming(&self, request: &str) -> Run<'_> {
        self.run_phases(request, State::default(), true)
    }

    /// As [`Self::run`], for a consumer who is known already.
    pub(crate) fn run_as(&self, request: &str, consumer: Arc<Consumer>) -> Run<'_> {
        let mut state = State::default();
        state.consumer = Some(consumer);
        self.run_with(request, state, true)
    }

    /// As [`Self::run`], for a request that no route matches.
    pub(crate) fn run_unmatched(&self, request: &str) -> Run<'_> {
        self.run_with(request, State::default(), false)
    }

    fn run_with(&self, request: &str, state: State, matched: bool) -> Run<'_> {
        let mut run = self.run_phases(request, state, matched);
        let mut observers = std::mem::take(&mut run.state.body_observers);
        if run.answer.is_none() {
            let (_, body) = request.split_once("\n\n").unwrap_or((request, ""));
            let mut out = Vec::new();
            push_all(&mut observers, body.as_bytes(), &mut out);
            finish_all(&mut observers, &mut None, &mut out);
            assert_eq!(out, body.as_bytes(), "who looks at a body does not change it");
        }
        run
    }

    fn run_phases(&self, request: &str, mut state: State, matched: bool) -> Run<'_> {
        let (head, body) = request.split_once("\n\n").unwrap_or((request, ""));
        if body.is_empty() {
            state.body = Body::Read(Bytes::new());
        }
        let mut run = Run { trial: self, head: head_of(head), state, answer: None, paused: Duration::ZERO };
        let course = self.course();
        let mut progress = Progress::start();
        let advance = |exchange: &mut Exchange<'_>, progress: &mut Progress| match matched {
            true => course.advance(progress, exchange),
            false => course.advance_unmatched(progress, exchange),
        };
        let mut flow = run.with_exchange(|exchange| advance(exchange, &mut progress));
        loop {
            flow = match flow {
                Flow::Continue => return run,
                Flow::Respond(answer) => {
                    run.answer = Some(*answer);
                    return run;
                }
                Flow::Pause(time, then) => {
                    run.paused += time;
                    match progress.settle(*then) {
                        Flow::Continue => run.with_exchange(|exchange| advance(exchange, &mut progress)),
                        other => other,
                    }
                }
                Flow::ReadBody(bytes_max) => {
                    let bytes = Bytes::copy_from_slice(body.as_bytes());
                    run.state.body = if body.len() > bytes_max { Body::TooLarge } else { Body::Read(bytes) };
                    run.with_exchange(|exchange| advance(exchange, &mut progress))
                }
                Flow::Wait(future) => {
                    let then = ready(future);
                    match progress.settle(run.with_exchange(then)) {
                        Flow::Continue => run.with_exchange(|exchange| advance(exchange, &mut progress)),
                        other => other,
                    }
                }
            };
        }
    }

    /// How an exchange with this status ended, half a second after it began.
    fn outcome(&self, status: u16, upstream_status: Option<u16>) -> Outcome {
        let total = Duration::from_millis(500);
        Outcome {
            status,
            upstream_status,
            begun: self.world.now().unix.saturating_sub(total),
            total,
            upstream: upstream_status.map(|_| Duration::from_millis(400)),
            node: upstream_status.map(|_| "10.1.1.1:8080".parse().expect("an address")),
            bytes_in: 120,
            bytes_out: 340,
        }
    }

    fn course(&self) -> Course<'_> {
        Course { global: &self.global, route: &self.layer }
    }
}

/// A request whose phases were run.
pub(crate) struct Run<'t> {
    trial: &'t Trial,
    pub(crate) head: RequestHead,
    pub(crate) state: State,
    pub(crate) answer: Option<Answer>,
    pub(crate) paused: Duration,
}

/// How the body of an upstream's answer ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// As the answer says.
    Said,
    /// With the connection, which is all that tells.
    Connection,
    /// Before its time.
    Cut,
}

/// What came of a response.
#[derive(Debug)]
pub(crate) struct Responded {
    pub(crate) head: ResponseHead,
    pub(crate) body: String,
    /// What stands behind the body.
    pub(crate) trailers: Option<Fields>,
}

impl Run<'_> {
    pub(crate) fn with_exchange<T>(&mut self, act: impl FnOnce(&mut Exchange<'_>) -> T) -> T {
        let client = Client {
            peer: SocketAddr::new(self.trial.client, 5000),
            local: "10.0.0.1:9080".parse().expect("an address"),
            tls: self.trial.tls,
        };
        let matched = Matched {
            route_id: "r1",
            route_name: "route",
            path: "/*",
            prefix_length: 0,
            service_id: "s1",
            service_name: "service",
        };
        act(&mut Exchange {
            request: &mut self.head,
            client,
            matched,
            consumers: &self.trial.consumers,
            surroundings: &self.trial.world,
            state: &mut self.state,
        })
    }

    /// Status and body of the plugin's answer; empty: there was none.
    pub(crate) fn answered(&self) -> String {
        self.answer.as_ref().map_or(String::new(), |answer| {
            format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body))
        })
    }

    /// A field of the plugin's answer.
    pub(crate) fn answer_field(&self, name: &str) -> String {
        let fields = self.answer.iter().flat_map(|answer| &answer.fields).chain(&self.state.answer_fields);
        let named = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
        named.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect::<Vec<_>>().join(", ")
    }

    /// A field as it goes to the upstream.
    pub(crate) fn sent(&self, name: &str) -> String {
        let values = self.head.fields.named(name.as_bytes());
        values.map(String::from_utf8_lossy).collect::<Vec<_>>().join(", ")
    }

    /// Method, path and query as they go to the upstream.
    pub(crate) fn forwarded(&self) -> String {
        let text = |span: Span| String::from_utf8_lossy(self.head.bytes(span)).into_owned();
        let mut path = Vec::new();
        target::encode_path(self.head.bytes(self.head.path), &mut path);
        let query = self.head.query.map_or(String::new(), |query| format!("?{}", text(query)));
        format!("{} {}{query}", text(self.head.method_text), String::from_utf8_lossy(&path))
    }

    /// Runs the response phase on the answer of the plugin, or of an upstream: status, fields, empty line, body.
    pub(crate) fn respond(self, upstream: &str) -> Responded {
        self.respond_fully(upstream, &[], Ending::Said)
    }

    /// The same for an upstream that sends trailers.
    pub(crate) fn respond_before(self, upstream: &str, trailers: &[(&str, &str)]) -> Responded {
        self.respond_fully(upstream, trailers, Ending::Said)
    }

    /// The same, with a body that ends like this.
    pub(crate) fn respond_as(self, upstream: &str, ending: Ending) -> Responded {
        self.respond_fully(upstream, &[], ending)
    }

    fn respond_fully(mut self, upstream: &str, trailers: &[(&str, &str)], ending: Ending) -> Responded {
        let (top, body) = upstream.split_once("\n\n").unwrap_or((upstream, ""));
        let mut lines = top.lines();
        let status: u16 = lines.next().expect("a status").parse().expect("a status");
        let mut head = ResponseHead { status, ..ResponseHead::default() };
        let mut body = body.as_bytes().to_vec();
        let origin = match self.answer.take() {
            None => {
                for line in lines {
                    let (name, value) = line.split_once(':').expect("a field");
                    head.fields.append(name, value.trim().as_bytes());
                }
                Origin::Upstream(status)
            }
            Some(answer) => {
                head.status = answer.status;
                answer.fields.iter().for_each(|(name, value)| head.fields.append(name, value));
                body = answer.body.to_vec();
                Origin::Gateway
            }
        };
        let received = self.state.keeps_received.then(|| head.fields.clone());
        for (name, value) in std::mem::take(&mut self.state.answer_fields) {
            head.fields.append(&name, &value);
        }
        let mut passed = Fields::default();
        trailers.iter().for_each(|(name, value)| passed.append(name, value.as_bytes()));
        let is_read_first = self.state.answer_bytes_max.is_some() && matches!(origin, Origin::Upstream(_));
        let whole = is_read_first.then(|| Whole { body: body.clone().into(), trailers: passed.clone() });
        let mut trailers = Some(passed).filter(|_| !trailers.is_empty());
        let has_body = self.head.client_method() != Method::Head && !matches!(status, 204 | 304);
        let is_delimited = ending != Ending::Connection;
        let course = self.trial.course();
        let (plan, upstream_status) = self.with_exchange(|exchange| {
            let (head, body) = (&mut head, ResponseBody::Pass);
            let mut response = Response { head, origin, has_body, is_delimited, received, body, whole };
            course.response(exchange, &mut response);
            let upstream_status = match origin {
                Origin::Upstream(status) => Some(status),
                Origin::Gateway => None,
            };
            (response.body, upstream_status)
        });
        let body = match plan {
            ResponseBody::Pass => body,
            ResponseBody::Replaced(bytes) => bytes.to_vec(),
            ResponseBody::Filtered(_) if !has_body => body,
            ResponseBody::Filtered(mut filters) => {
                let mut out = Vec::new();
                body.chunks(3).for_each(|piece| push_all(&mut filters, piece, &mut out));
                if ending != Ending::Cut {
                    finish_all(&mut filters, &mut trailers, &mut out);
                }
                out
            }
        };
        let outcome = self.trial.outcome(head.status, upstream_status);
        self.with_exchange(|exchange| course.log(exchange, &outcome));
        self.trial.world.outside.work();
        Responded { head, body: String::from_utf8_lossy(&body).into_owned(), trailers }
    }
}

impl Responded {
    pub(crate) fn field(&self, name: &str) -> String {
        let values = self.head.fields.named(name.as_bytes());
        values.map(String::from_utf8_lossy).collect::<Vec<_>>().join(", ")
    }
}
