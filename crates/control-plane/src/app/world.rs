//! Time and chance, as parameters: the composition root passes the real ones, a test passes its own.

/// What is different on every call.
pub(crate) struct World {
    clock: Box<dyn Fn() -> i64 + Send + Sync>,
    random: Box<dyn Fn() -> [u8; 32] + Send + Sync>,
}

impl World {
    /// A world whose `clock` answers unix seconds and whose `random` bytes nobody can guess.
    pub(crate) fn new(
        clock: impl Fn() -> i64 + Send + Sync + 'static,
        random: impl Fn() -> [u8; 32] + Send + Sync + 'static,
    ) -> Self {
        Self { clock: Box::new(clock), random: Box::new(random) }
    }

    /// Unix seconds.
    pub(crate) fn now(&self) -> i64 {
        (self.clock)()
    }

    /// 256 bits nobody can guess.
    pub(crate) fn random(&self) -> [u8; 32] {
        (self.random)()
    }

    /// A new id of any kind: a random UUID.
    pub(crate) fn id<T: TryFrom<String>>(&self) -> T {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.random()[..16]);
        let text = uuid::Builder::from_random_bytes(bytes).into_uuid().to_string();
        T::try_from(text).unwrap_or_else(|_| unreachable!("a UUID is made of characters every id allows"))
    }
}
