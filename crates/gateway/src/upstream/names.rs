//! Names of nodes, resolved off the request path.
//!
//! Each name that an upstream uses has a task on the background runtime, which looks it up again when the answer's
//! time to live is over and leaves the addresses where requests read them without waiting.
//! When DNS fails, the last good addresses stay; only a name that never resolved has none.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, watch};
use tokio::task::AbortHandle;

use crate::config::DeniedNetworks;

/// Addresses kept of one name.
const ADDRESSES_MAX: usize = 256;

/// How long one lookup may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// The shortest and the longest time an answer is believed: a time to live of zero must not become a storm of
/// lookups, and one of days (such as that of the hosts file) must not hide a change for ever.
const VALID_MIN: Duration = Duration::from_secs(1);
const VALID_MAX: Duration = Duration::from_secs(300);

/// Pauses after a failed lookup; each failure doubles it.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What a lookup found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) addresses: Vec<IpAddr>,
    /// How long this holds.
    pub(crate) valid: Duration,
}

/// A lookup on its way.
pub(crate) type Looking<'l> = Pin<Box<dyn Future<Output = Result<Found, String>> + Send + 'l>>;

/// Finds the addresses of a name.
pub(crate) trait Lookup: Send + Sync + 'static {
    /// Looks `host` up once.
    fn lookup<'l>(&'l self, host: &'l str) -> Looking<'l>;
}

/// A lookup that does not find addresses which are denied.
struct Allowed {
    lookup: Arc<dyn Lookup>,
    denied: DeniedNetworks,
}

impl Lookup for Allowed {
    fn lookup<'l>(&'l self, host: &'l str) -> Looking<'l> {
        Box::pin(async move {
            let Found { addresses, valid } = self.lookup.lookup(host).await?;
            Ok(Found { addresses: self.denied.allowed(addresses, |address| *address)?, valid })
        })
    }
}

/// The names the process watches.
pub(crate) struct Names {
    runtime: Handle,
    lookup: Arc<dyn Lookup>,
    denied: DeniedNetworks,
    watched: Watched,
}

type Watched = Arc<Mutex<HashMap<Box<str>, Weak<Name>>>>;

/// One name and its addresses.
pub(crate) struct Name {
    host: Box<str>,
    addresses: Arc<ArcSwapOption<Known>>,
    /// Whether the first lookup has ended.
    settled: watch::Receiver<bool>,
    watched: Weak<Mutex<HashMap<Box<str>, Weak<Name>>>>,
    task: AbortHandle,
}

/// What the last good lookup found.
struct Known {
    addresses: Vec<IpAddr>,
    since: Instant,
}

impl Names {
    /// Names that `lookup` finds, on `runtime`, without addresses that are `denied`.
    pub(crate) fn new(runtime: Handle, lookup: Arc<dyn Lookup>, denied: DeniedNetworks) -> Self {
        let lookup = Arc::new(Allowed { lookup, denied: denied.clone() });
        Self { runtime, lookup, denied, watched: Watched::default() }
    }

    /// Whether nothing may be asked at this address; as a name, it has none.
    pub(crate) fn deny(&self, address: IpAddr) -> bool {
        self.denied.cover(address)
    }

    /// The name `host`, looked up from now on if it was not before.
    pub(crate) fn name(&self, host: &str) -> Arc<Name> {
        let host: Box<str> = host.to_ascii_lowercase().into();
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = watched.get(&host).and_then(Weak::upgrade) {
            return name;
        }
        let addresses = Arc::new(ArcSwapOption::empty());
        let (settle, settled) = watch::channel(false);
        let watching = watching(host.clone(), Arc::clone(&self.lookup), Arc::clone(&addresses), settle);
        let name = Arc::new(Name {
            host: host.clone(),
            addresses,
            settled,
            watched: Arc::downgrade(&self.watched),
            task: self.runtime.spawn(watching).abort_handle(),
        });
        watched.insert(host, Arc::downgrade(&name));
        name
    }
}

impl Name {
    /// The address whose turn it is, if any is known. Never waits.
    pub(crate) fn address(&self, turn: usize) -> Option<IpAddr> {
        let known = self.addresses.load();
        let addresses = &known.as_ref()?.addresses;
        addresses.get(turn % addresses.len().max(1)).copied()
    }

    /// Every address known.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.addresses.load().as_ref().map(|known| known.addresses.clone()).unwrap_or_default()
    }

    /// The name itself.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// How long ago it was last looked up with success.
    pub(crate) fn age(&self) -> Option<Duration> {
        self.addresses.load().as_ref().map(|known| known.since.elapsed())
    }

    /// Waits until the first lookup has ended, which is the only one a request ever waits for.
    pub(crate) async fn settled(&self) {
        // An error means that the task ended with its runtime: nothing more will come.
        let _ = self.settled.clone().wait_for(|settled| *settled).await;
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        self.task.abort();
        let Some(watched) = self.watched.upgrade() else { return };
        let mut watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
        if watched.get(&self.host).is_some_and(|name| name.strong_count() == 0) {
            watched.remove(&self.host);
        }
    }
}

/// Keeps `addresses` true to what `lookup` finds, for ever.
async fn watching(
    host: Box<str>,
    lookup: Arc<dyn Lookup>,
    addresses: Arc<ArcSwapOption<Known>>,
    settle: watch::Sender<bool>,
) {
    let mut pause = PAUSE_MIN;
    loop {
        let found = match tokio::time::timeout(LOOKUP_TIMEOUT, lookup.lookup(&host)).await {
            Ok(Ok(found)) if found.addresses.is_empty() => Err("it has no addresses".to_owned()),
            Ok(found) => found,
            Err(_) => Err(format!("no answer for {} seconds", LOOKUP_TIMEOUT.as_secs())),
        };
        let wait = match found {
            Ok(mut found) => {
                found.addresses.sort_unstable();
                found.addresses.dedup();
                found.addresses.truncate(ADDRESSES_MAX);
                addresses.store(Some(Arc::new(Known { addresses: found.addresses, since: Instant::now() })));
                pause = PAUSE_MIN;
                found.valid.clamp(VALID_MIN, VALID_MAX)
            }
            Err(reason) => {
                let kept = addresses.load().is_some();
                tracing::warn!(%host, %reason, kept, "cannot resolve the name of a node, its last good addresses stay");
                let wait = pause;
                pause = (pause * 2).min(PAUSE_MAX);
                wait
            }
        };
        settle.send_replace(true);
        tokio::time::sleep(wait).await;
    }
}

/// DNS as the system is configured (resolv.conf with its search domains, then the hosts file before any query).
#[derive(Default)]
pub(crate) struct SystemDns(OnceCell<TokioResolver>);

impl SystemDns {
    async fn resolver(&self) -> Result<&TokioResolver, String> {
        let build = || async {
            let mut builder = TokioResolver::builder_tokio().map_err(|error| error.to_string())?;
            let options = builder.options_mut();
            // IPv6 only where there is no IPv4: half of all hosts cannot reach it.
            options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
            // Each name is kept by its task; a second cache would only make answers older.
            options.cache_size = 0;
            builder.build().map_err(|error| error.to_string())
        };
        self.0.get_or_try_init(build).await
    }
}

impl Lookup for SystemDns {
    fn lookup<'l>(&'l self, host: &'l str) -> Looking<'l> {
        Box::pin(async move {
            let found = self.resolver().await?.lookup_ip(host).await.map_err(|error| error.to_string())?;
            let valid = found.valid_until().saturating_duration_since(std::time::Instant::now());
            Ok(Found { addresses: found.iter().collect(), valid })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// Answers one after the other; the last one for ever. Says when each was asked for.
    struct Script {
        answers: Mutex<VecDeque<Result<Found, String>>>,
        asked: tokio::sync::mpsc::UnboundedSender<tokio::time::Instant>,
    }

    impl Lookup for Script {
        fn lookup<'l>(&'l self, _: &'l str) -> Looking<'l> {
            let _ = self.asked.send(tokio::time::Instant::now());
            let mut answers = self.answers.lock().unwrap();
            let next = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
            Box::pin(async move { next.unwrap() })
        }
    }

    fn found(addresses: &[&str], seconds: u64) -> Result<Found, String> {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Ok(Found { addresses, valid: Duration::from_secs(seconds) })
    }

    type Asked = tokio::sync::mpsc::UnboundedReceiver<tokio::time::Instant>;

    fn names(answers: Vec<Result<Found, String>>) -> (Names, Asked) {
        let (asked, was_asked) = tokio::sync::mpsc::unbounded_channel();
        let script = Script { answers: Mutex::new(answers.into()), asked };
        let denied = DeniedNetworks::new(["10.9.0.0/16".parse().unwrap()]);
        (Names::new(Handle::current(), Arc::new(script), denied), was_asked)
    }

    /// The time between two lookups in a row, for each such pair.
    async fn gaps(asked: &mut Asked, count: usize) -> Vec<u64> {
        let mut times = Vec::new();
        while times.len() <= count {
            times.push(asked.recv().await.unwrap());
        }
        times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn p25_a_name_never_has_an_address_that_is_denied_even_if_it_changes_to_one() {
        let (names, mut asked) = names(vec![found(&["10.0.0.1", "10.9.0.1"], 30), found(&["10.9.0.2"], 30)]);
        let name = names.name("a.example");
        name.settled().await;
        let good: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap()];
        assert_eq!(name.addresses(), good);
        gaps(&mut asked, 2).await;
        assert_eq!(name.addresses(), good, "the last good address stays");
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_looked_up_again_when_its_time_to_live_is_over() {
        let (names, mut asked) = names(vec![
            found(&["10.0.0.1"], 30),
            found(&["10.0.0.2"], 0),
            found(&["10.0.0.3"], 1_000_000),
            found(&["10.0.0.4"], 60),
        ]);
        let name = names.name("Backend.internal");
        assert_eq!(gaps(&mut asked, 3).await, [30, VALID_MIN.as_secs(), VALID_MAX.as_secs()]);
        tokio::task::yield_now().await;
        assert_eq!(name.address(0), Some("10.0.0.4".parse().unwrap()));
    }

    #[tokio::test(start_paused = true)]
    async fn d8_the_last_good_addresses_stay_while_dns_fails() {
        let failure = || Err("server failure".to_owned());
        let (names, mut asked) =
            names(vec![found(&["10.0.0.1"], 5), failure(), failure(), found(&[], 5), failure()]);
        let name = names.name("backend.internal");
        assert_eq!(gaps(&mut asked, 8).await, [5, 1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(name.addresses(), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_never_resolved_has_no_address_but_is_settled() {
        let (names, _asked) = names(vec![Err("no such name".to_owned())]);
        let name = names.name("backend.internal");
        name.settled().await;
        assert_eq!(name.address(0), None);
    }

    #[tokio::test(start_paused = true)]
    async fn all_addresses_of_a_name_take_turns_and_order_does_not_matter() {
        let (names, _asked) = names(vec![found(&["10.0.0.2", "10.0.0.1", "10.0.0.2"], 60)]);
        let name = names.name("backend.internal");
        name.settled().await;
        let turns: Vec<String> =
            (0..4).filter_map(|turn| name.address(turn)).map(|ip| ip.to_string()).collect();
        assert_eq!(turns, ["10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.2"]);
    }

    #[tokio::test(start_paused = true)]
    async fn upstreams_share_a_name_and_the_last_one_ends_it() {
        let (names, mut asked) = names(vec![found(&["10.0.0.1"], 60)]);
        let (one, other) = (names.name("a"), names.name("A"));
        assert!(Arc::ptr_eq(&one, &other));
        one.settled().await;
        drop((one, other));
        assert!(names.watched.lock().unwrap().is_empty());
        let again = names.name("a");
        again.settled().await;
        drop(again);
        drop(names);
        let mut lookups = 0;
        while asked.recv().await.is_some() {
            lookups += 1;
        }
        assert_eq!(lookups, 2, "nothing is looked up after the last upstream let go");
    }
}
