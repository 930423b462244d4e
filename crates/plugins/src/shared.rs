//! State that instances share by name, across services and across configurations.
//!
//! An instance owns its state, and an instance whose configuration did not change is taken over when its service is
//! compiled again. What lives longer, or belongs to several instances (a limit that routes share as a group), is
//! found here by a name. It lives as long as one instance holds it.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Named state. It is only asked while configurations are compiled, never by a request.
#[derive(Default)]
pub struct Shared(Mutex<HashMap<String, Weak<dyn Any + Send + Sync>>>);

impl Shared {
    /// The state called `name`, made by `make` if no instance holds it.
    pub fn get<T: Any + Send + Sync>(&self, name: &str, make: impl FnOnce() -> T) -> Arc<T> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = held.get(name).and_then(Weak::upgrade).and_then(|state| state.downcast().ok());
        known.unwrap_or_else(|| {
            held.retain(|_, state| state.strong_count() > 0);
            let state = Arc::new(make());
            let erased: Arc<dyn Any + Send + Sync> = Arc::clone(&state) as _;
            held.insert(name.to_owned(), Arc::downgrade(&erased));
            state
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_lives_as_long_as_somebody_holds_it() {
        let shared = Shared::default();
        let first = shared.get("a", || 1);
        assert_eq!(*shared.get("a", || 2), 1);
        assert_eq!(*shared.get("b", || 3), 3);
        drop(first);
        assert_eq!(*shared.get("a", || 4), 4);
    }
}
