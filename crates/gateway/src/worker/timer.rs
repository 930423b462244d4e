//! Coarse timers: one clock per worker instead of a timer per await.
//!
//! Setting a limit is writing a number; the worker's clock ticks [`TICK`] apart and wakes whatever is overdue.
//! Limits are therefore met up to one tick late, which is precise enough for timeouts counted in seconds.
//! Everything lives on one thread.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

/// How far apart the clock ticks.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// No limit is set.
const NEVER: u64 = u64::MAX;

/// A limit passed before what it guarded was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Elapsed;

/// The clock of one worker and the timers that wait for it.
#[derive(Default)]
pub(crate) struct Clock {
    now: Cell<u64>,
    slots: RefCell<Vec<Rc<Slot>>>,
    /// Those of `slots` that no timer has. They stay: every stream of HTTP/2 has timers, and few live long.
    free: RefCell<Vec<Rc<Slot>>>,
}

struct Slot {
    deadline: Cell<u64>,
    haste: Cell<Haste>,
    waker: RefCell<Option<Waker>>,
}

/// What a stop makes of a wait.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Haste {
    /// Nothing.
    #[default]
    None,
    /// It has the time of grace left.
    Grace,
    /// It is over.
    AtOnce,
}

impl Slot {
    fn unused() -> Self {
        Self { deadline: Cell::new(NEVER), haste: Cell::default(), waker: RefCell::default() }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

impl Clock {
    /// Ticks passed since the worker started.
    pub(crate) fn now(&self) -> u64 {
        self.now.get()
    }

    /// Lets one tick pass and wakes what is overdue.
    pub(crate) fn tick(&self) {
        let now = self.now.get() + 1;
        self.now.set(now);
        for slot in self.slots.borrow().iter() {
            if slot.deadline.get() <= now {
                slot.wake();
            }
        }
    }

    /// Ends every wait for what need not come: at once, or after `grace` at the latest.
    pub(crate) fn hasten(&self, grace: Duration) {
        let deadline = self.now().saturating_add(ticks(grace));
        for slot in self.slots.borrow().iter() {
            match slot.haste.get() {
                Haste::None => {}
                Haste::Grace => slot.deadline.set(slot.deadline.get().min(deadline)),
                Haste::AtOnce => {
                    slot.deadline.set(slot.deadline.get().min(self.now()));
                    slot.wake();
                }
            }
        }
    }

    /// A new timer of this clock.
    pub(crate) fn timer(self: &Rc<Self>) -> Timer {
        let free = self.free.borrow_mut().pop();
        let slot = free.unwrap_or_else(|| {
            let slot = Rc::new(Slot::unused());
            self.slots.borrow_mut().push(Rc::clone(&slot));
            slot
        });
        Timer { clock: Rc::clone(self), slot }
    }
}

/// How many ticks a limit lasts; at least one, so that no limit is met before its time.
pub(crate) fn ticks(limit: Duration) -> u64 {
    let ticks = limit.as_millis().div_ceil(TICK.as_millis()).saturating_add(1);
    u64::try_from(ticks).unwrap_or(NEVER)
}

pin_project! {
    /// A future that is given up when its limit passes. By hand and not an `async fn`, which would keep what it is
    /// given twice; waits within waits would multiply that, and every connection pays for it.
    pub(crate) struct Limited<'t, F> {
        #[pin]
        future: F,
        timer: &'t Timer,
    }
}

impl<F: Future> Future for Limited<'_, F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = match this.future.poll(context) {
            Poll::Ready(output) => Ok(output),
            Poll::Pending => Err(ready!(this.timer.poll_elapsed(context))),
        };
        this.timer.rest();
        Poll::Ready(result)
    }
}

/// Guards one wait at a time, from when it is asked for.
pub(crate) struct Timer {
    clock: Rc<Clock>,
    slot: Rc<Slot>,
}

impl Timer {
    /// Ticks passed since the worker started.
    pub(crate) fn now(&self) -> u64 {
        self.clock.now()
    }

    /// Runs `future`, but not for longer than `limit`.
    ///
    /// # Errors
    /// [`Elapsed`], when the limit passed first; `future` is dropped.
    pub(crate) fn limit<F: Future>(&self, limit: Duration, future: F) -> Limited<'_, F> {
        self.until(self.clock.now().saturating_add(ticks(limit)), future)
    }

    /// Like [`Timer::limit`] for a wait between requests, which a stopping worker may shorten.
    pub(crate) fn limit_idle<F: Future>(&self, limit: Duration, future: F) -> Limited<'_, F> {
        self.slot.haste.set(Haste::Grace);
        self.limit(limit, future)
    }

    /// Like [`Timer::limit`], but no longer than until the worker stops.
    pub(crate) fn limit_until_stop<F: Future>(&self, limit: Duration, future: F) -> Limited<'_, F> {
        self.slot.haste.set(Haste::AtOnce);
        self.limit(limit, future)
    }

    /// Runs `future`, but not past the tick `deadline`.
    ///
    /// # Errors
    /// [`Elapsed`], when the deadline passed first; `future` is dropped.
    pub(crate) fn until<F: Future>(&self, deadline: u64, future: F) -> Limited<'_, F> {
        self.slot.deadline.set(deadline);
        Limited { future, timer: self }
    }

    /// Guards nothing any more.
    fn rest(&self) {
        self.slot.deadline.set(NEVER);
        self.slot.haste.set(Haste::None);
    }

    /// Whether the tick `deadline` has come; otherwise the task is woken when it does, unless [`Timer::disarm`] comes
    /// first. For those who are polled themselves; not to be mixed with the other waits of one timer.
    pub(crate) fn poll_at(&self, deadline: u64, context: &mut Context<'_>) -> Poll<Elapsed> {
        self.slot.deadline.set(deadline);
        self.poll_elapsed(context)
    }

    /// Wakes nobody any more.
    pub(crate) fn disarm(&self) {
        self.slot.deadline.set(NEVER);
    }

    fn poll_elapsed(&self, context: &mut Context<'_>) -> Poll<Elapsed> {
        if self.clock.now() >= self.slot.deadline.get() {
            return Poll::Ready(Elapsed);
        }
        let mut waker = self.slot.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // A wait may have been given up.
        self.rest();
        self.slot.waker.take();
        self.clock.free.borrow_mut().push(Rc::clone(&self.slot));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    fn run<F: Future>(future: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(future)
    }

    #[test]
    fn what_is_ready_is_not_limited() {
        let clock = Rc::new(Clock::default());
        let timer = clock.timer();
        assert_eq!(run(timer.limit(Duration::ZERO, ready(5))), Ok(5));
    }

    #[test]
    fn a_limit_passes_with_the_ticks_and_never_early() {
        let clock = Rc::new(Clock::default());
        let timer = clock.timer();
        let waited = run(async {
            let guarded = timer.limit(Duration::from_millis(250), pending::<()>());
            let ticking = async {
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                    clock.tick();
                }
            };
            let (result, ()) = tokio::join!(
                async {
                    let result = guarded.await;
                    (result, clock.now())
                },
                ticking
            );
            result
        });
        assert_eq!(waited.0, Err(Elapsed));
        assert!((3..=5).contains(&waited.1), "after {} ticks", waited.1);
    }

    #[test]
    fn idle_waits_are_shortened_when_told_and_others_are_not() {
        let clock = Rc::new(Clock::default());
        let (idle, busy) = (clock.timer(), clock.timer());
        run(async {
            let long = Duration::from_secs(3600);
            let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
            let waiting = async {
                let result = idle.limit_idle(long, pending::<()>()).await;
                let _ = sender.send(());
                result
            };
            let expire = async {
                tokio::task::yield_now().await;
                clock.hasten(Duration::from_millis(200));
                for _ in 0..5 {
                    tokio::task::yield_now().await;
                    clock.tick();
                }
            };
            let (idle_result, busy_result, ()) = tokio::join!(waiting, busy.limit(long, receiver), expire);
            assert_eq!(idle_result, Err(Elapsed));
            assert!(busy_result.is_ok());
        });
    }

    #[test]
    fn what_waits_for_a_stop_ends_with_it() {
        let clock = Rc::new(Clock::default());
        let timer = clock.timer();
        let (waited, ()) = run(async {
            let waiting = timer.limit_until_stop(Duration::from_secs(3600), pending::<()>());
            tokio::join!(waiting, async { clock.hasten(Duration::from_secs(3600)) })
        });
        assert_eq!((waited, clock.now()), (Err(Elapsed), 0));
    }

    #[test]
    fn a_dropped_timer_leaves_its_place_to_the_next() {
        let clock = Rc::new(Clock::default());
        for _ in 0..100 {
            drop(clock.timer());
        }
        assert_eq!(clock.slots.borrow().len(), 1);
    }

    #[test]
    fn a_dropped_timer_wakes_nobody() {
        struct Counted(AtomicUsize);
        impl Wake for Counted {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let (clock, counted) = (Rc::new(Clock::default()), Arc::new(Counted(AtomicUsize::new(0))));
        let waker = Waker::from(Arc::clone(&counted));
        let timer = clock.timer();
        let mut waiting = Box::pin(timer.limit_until_stop(Duration::ZERO, pending::<()>()));
        assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(waiting);
        drop((timer, waker));
        assert_eq!(Arc::strong_count(&counted), 1, "its task is forgotten");
        clock.hasten(Duration::ZERO);
        clock.tick();
        clock.tick();
        assert_eq!(counted.0.load(Ordering::Relaxed), 0);
    }
}
