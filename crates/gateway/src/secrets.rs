//! The values that references of configurations stand for: looked up once, refreshed in the background.
//!
//! A configuration is compiled once its references were looked up, or when that took too long. What is known stays
//! known: a provider that is away costs newer values, not the ones in use. A value that changes, or becomes known
//! late, is a reason to compile again, which whoever follows configurations learns from [`Secrets::changes`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gatewright_plugins::outbound::Outbound;
use gatewright_plugins::secrets::{self as plugins, Provider, Reference};
use serde_json::{Map, Value};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// How old a value becomes before it is looked up again.
const VALUE_AGE_MAX: Duration = Duration::from_secs(300);

/// The same for a reference that leads to nothing.
const FAILURE_AGE_MAX: Duration = Duration::from_secs(60);

/// How often ages are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// How long a configuration waits for its references. A change of many new ones is worth the wait; beyond it, what is
/// missing is refused and compiled again once it is there.
const PATIENCE: Duration = Duration::from_secs(5);

/// References of one gateway group. Beyond that they count as leading to nothing: each costs a request every few
/// minutes.
const REFERENCES_MAX: usize = 10_000;

/// Bytes of the longest value.
const VALUE_BYTES_MAX: usize = 64 * 1024;

/// What a reference stands for, or why it does not.
pub(crate) type Found = Result<Arc<str>, String>;

/// The values of references, shared by everybody who compiles.
#[derive(Clone)]
pub(crate) struct Secrets(Option<Arc<Inner>>);

struct Inner {
    runtime: Handle,
    outbound: Arc<dyn Outbound>,
    known: Mutex<Known>,
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct Known {
    values: HashMap<String, (Found, Instant)>,
    providers: BTreeMap<String, Opened>,
}

#[derive(Clone)]
struct Opened {
    settings: Map<String, Value>,
    provider: Result<Arc<dyn Provider>, String>,
}

impl Secrets {
    /// Looks references up on `runtime`, and keeps their values new.
    pub(crate) fn new(runtime: Handle, outbound: Arc<dyn Outbound>) -> Self {
        let (known, changes) = (Mutex::default(), watch::Sender::new(0));
        let inner = Arc::new(Inner { runtime: runtime.clone(), outbound, known, changes });
        let kept = Arc::downgrade(&inner);
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(LOOK_INTERVAL).await;
                let Some(inner) = kept.upgrade() else { return };
                inner.refresh().await;
            }
        });
        Self(Some(inner))
    }

    /// Looks nothing up: for where configurations are only checked.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Whether references are looked up at all.
    pub(crate) fn are_looked_up(&self) -> bool {
        self.0.is_some()
    }

    /// Wakes whenever compiling again would lead to something else.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        match &self.0 {
            Some(inner) => inner.changes.subscribe(),
            None => watch::Sender::new(0).subscribe(),
        }
    }

    /// What `references` stand for, with these settings of providers by name. Waits for those that were never looked
    /// up, and forgets all others. Not to be called by an async task.
    pub(crate) fn look_up(
        &self,
        references: &BTreeSet<String>,
        providers: BTreeMap<String, Map<String, Value>>,
    ) -> HashMap<String, Found> {
        let Some(inner) = &self.0 else { return HashMap::new() };
        let fresh = inner.expect(references, providers);
        if !fresh.is_empty() {
            let (tell, told) = mpsc::channel();
            for reference in fresh {
                let (inner, tell) = (Arc::clone(inner), tell.clone());
                inner.runtime.clone().spawn(async move {
                    inner.settle(&reference).await;
                    // Nobody may be waiting any more.
                    let _ = tell.send(());
                });
            }
            drop(tell);
            let deadline = Instant::now() + PATIENCE;
            while told.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok() {}
        }
        let known = inner.known();
        let found = |reference: &String| {
            let missing = || Err("there was no answer in time".to_owned());
            let value = known.values.get(reference).map_or_else(missing, |(found, _)| found.clone());
            (reference.clone(), value)
        };
        references.iter().map(found).collect()
    }
}

impl Inner {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `references` the ones that are wanted; gives those that nothing is known of.
    fn expect(
        &self,
        references: &BTreeSet<String>,
        providers: BTreeMap<String, Map<String, Value>>,
    ) -> Vec<String> {
        let mut known = self.known();
        known.values.retain(|reference, _| references.contains(reference));
        let mut before = std::mem::take(&mut known.providers);
        for (name, settings) in providers {
            let settings = with_environment(settings);
            let same = before.remove(&name).filter(|opened| opened.settings == settings);
            let opened = same.unwrap_or_else(|| {
                // What other settings led to says nothing any more.
                known.values.retain(|reference, _| !is_of(reference, &name));
                let provider =
                    readable(&settings).and_then(|readable| plugins::open(&name, &readable, &self.outbound));
                Opened { settings, provider }
            });
            known.providers.insert(name, opened);
        }
        for name in before.keys() {
            known.values.retain(|reference, _| !is_of(reference, name));
        }
        let fresh = references.iter().filter(|reference| !known.values.contains_key(*reference));
        fresh.take(REFERENCES_MAX).cloned().collect()
    }

    /// Looks `reference` up, and tells if that made a difference.
    async fn settle(&self, reference: &str) {
        let found = self.read(reference).await;
        let mut known = self.known();
        let before = known.values.get(reference).map(|(found, _)| found.clone());
        // What is in use stays in use.
        let found = match (&found, before.clone()) {
            (Err(reason), Some(Ok(value))) => {
                tracing::warn!(%reference, %reason, "a secret cannot be refreshed; its last value stays in use");
                Ok(value)
            }
            _ => found,
        };
        let is_news = before.as_ref() != Some(&found);
        if let (Err(reason), true) = (&found, is_news) {
            tracing::error!(%reference, %reason, "a secret cannot be resolved; what needs it is refused");
        }
        known.values.insert(reference.to_owned(), (found, Instant::now()));
        drop(known);
        if is_news {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    async fn read(&self, reference: &str) -> Found {
        let value = match Reference::parse(reference)? {
            Reference::Env { name, key } => {
                let value = std::env::var(&name);
                let value = value.map_err(|_| format!("the gateway has no environment variable `{name}`"))?;
                plugins::member(&value, key.as_deref())?
            }
            Reference::Secret { provider: name, path } => {
                let opened = self.known().providers.get(&name).cloned();
                let absent =
                    || format!("the gateway group has no secret provider `{}`", name.replace('.', "/"));
                let provider = opened.ok_or_else(absent)?.provider?;
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                provider.read(&path, now).await?
            }
        };
        match value.len() > VALUE_BYTES_MAX {
            true => Err(format!("the secret is longer than {VALUE_BYTES_MAX} bytes")),
            false => Ok(value.into()),
        }
    }

    async fn refresh(&self) {
        let is_old = |(found, at): &(Found, Instant)| {
            at.elapsed() > if found.is_ok() { VALUE_AGE_MAX } else { FAILURE_AGE_MAX }
        };
        let old: Vec<String> = {
            let known = self.known();
            let old = known.values.iter().filter(|(_, value)| is_old(value));
            old.map(|(reference, _)| reference.clone()).collect()
        };
        // One after the other: nobody waits, and a provider is not to be flooded.
        for reference in old {
            self.settle(&reference).await;
        }
    }
}

fn is_of(reference: &str, provider: &str) -> bool {
    matches!(Reference::parse(reference), Ok(Reference::Secret { provider: named, .. }) if named == provider)
}

/// The settings of a provider may refer to the environment, and to nothing else: that would be a circle.
fn with_environment(settings: Map<String, Value>) -> Map<String, Value> {
    let mut settings = Value::Object(settings);
    plugins::replace(&mut settings, &|reference| match Reference::parse(reference) {
        Ok(Reference::Env { name, key }) => {
            plugins::member(&std::env::var(name).ok()?, key.as_deref()).ok().map(Into::into)
        }
        _ => None,
    });
    match settings {
        Value::Object(settings) => settings,
        _ => Map::new(),
    }
}

/// The settings with what stands in a file written out.
fn readable(settings: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    let mut settings = settings.clone();
    if let Some(path) = settings.get("auth_file").and_then(Value::as_str).map(str::to_owned) {
        let text = std::fs::read_to_string(&path).map_err(|error| format!("auth_file `{path}`: {error}"))?;
        let account = serde_json::from_str(&text).map_err(|error| format!("auth_file `{path}`: {error}"))?;
        settings.insert("auth_config".to_owned(), account);
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use gatewright_plugins::outbound::{Failure, Request, Response, Waiting};
    use serde_json::json;

    use super::*;

    /// A vault whose secrets all have the value `value-N`, where N is how often it was asked; or that is away.
    struct Vault {
        asked: AtomicUsize,
        is_away: bool,
    }

    impl Outbound for Vault {
        fn send(&self, _: Request) -> Waiting<Result<Response, Failure>> {
            let asked = self.asked.fetch_add(1, Ordering::Relaxed);
            let body = json!({"data": {"key": format!("value-{asked}")}}).to_string().into();
            let answer = match self.is_away {
                true => Err(Failure::TimedOut),
                false => Ok(Response { status: 200, body, ..Response::default() }),
            };
            Box::pin(std::future::ready(answer))
        }

        fn spawn(&self, _: Waiting<()>) {}

        fn sleep(&self, _: Duration) -> Waiting<()> {
            Box::pin(std::future::pending())
        }
    }

    fn world(is_away: bool) -> (tokio::runtime::Runtime, Secrets) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let vault = Arc::new(Vault { asked: AtomicUsize::new(0), is_away });
        let secrets = Secrets::new(runtime.handle().clone(), vault);
        (runtime, secrets)
    }

    fn look_up(secrets: &Secrets, references: &[&str], token: &str) -> Vec<Result<String, String>> {
        let wanted = references.iter().map(|text| (*text).to_owned()).collect();
        let settings = json!({"uri": "http://vault", "prefix": "kv", "token": token});
        let providers = [("vault.1".to_owned(), settings.as_object().unwrap().clone())].into();
        let found = secrets.look_up(&wanted, providers);
        references.iter().map(|text| found[*text].clone().map(|value| value.to_string())).collect()
    }

    const JACK: &str = "$secret://vault/1/jack/key";

    #[test]
    fn a_reference_is_looked_up_once_and_again_with_other_settings() {
        let (_runtime, secrets) = world(false);
        assert_eq!(look_up(&secrets, &[JACK], "t"), [Ok("value-0".to_owned())]);
        assert_eq!(look_up(&secrets, &[JACK], "t"), [Ok("value-0".to_owned())]);
        assert_eq!(look_up(&secrets, &[JACK], "other"), [Ok("value-1".to_owned())]);
        assert_eq!(look_up(&secrets, &[], "other"), []);
        assert_eq!(look_up(&secrets, &[JACK], "other"), [Ok("value-2".to_owned())], "it was forgotten");
    }

    #[test]
    fn what_leads_to_nothing_says_why() {
        let (_runtime, secrets) = world(true);
        let wrong: Vec<String> = look_up(
            &secrets,
            &[JACK, "$secret://vault/2/jack/key", "$env://GATEWRIGHT_NO_SUCH_VARIABLE", "$secret://vault"],
            "t",
        )
        .into_iter()
        .map(Result::unwrap_err)
        .collect();
        assert_eq!(
            wrong,
            [
                "vault: no answer in time",
                "the gateway group has no secret provider `vault/2`",
                "the gateway has no environment variable `GATEWRIGHT_NO_SUCH_VARIABLE`",
                "`$secret://vault` must be like `$secret://manager/id/path/key`",
            ]
        );
    }

    #[test]
    fn the_environment_is_read() {
        let (_runtime, secrets) = world(true);
        let path = std::env::var("PATH").unwrap();
        assert_eq!(look_up(&secrets, &["$ENV://PATH"], "t"), [Ok(path)]);
    }

    #[test]
    fn a_value_that_changes_is_told_and_one_that_cannot_be_refreshed_stays() {
        let (runtime, secrets) = world(false);
        assert_eq!(look_up(&secrets, &[JACK], "t"), [Ok("value-0".to_owned())]);
        let mut changes = secrets.changes();
        let inner = secrets.0.clone().unwrap();
        runtime.block_on(inner.settle(JACK));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert_eq!(look_up(&secrets, &[JACK], "t"), [Ok("value-1".to_owned())]);
        let gone = Opened { settings: Map::new(), provider: Err("gone".to_owned()) };
        inner.known().providers.insert("vault.1".to_owned(), gone);
        runtime.block_on(inner.settle(JACK));
        assert!(!changes.has_changed().unwrap());
        let found = inner.known().values[JACK].0.clone();
        assert_eq!(found.map(|value| value.to_string()), Ok("value-1".to_owned()));
    }
}
