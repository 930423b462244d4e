//! A set of statuses, asked about for every answer.

/// One past the highest status there is.
const END: usize = 600;

/// The set, a bit for each status.
pub(crate) struct Statuses([u64; END.div_ceil(64)]);

impl Statuses {
    /// What is not a status is left out.
    pub(crate) fn new(statuses: &[u16]) -> Self {
        let mut bits = [0; END.div_ceil(64)];
        for status in statuses.iter().map(|status| usize::from(*status)).filter(|status| *status < END) {
            bits[status / 64] |= 1 << (status % 64);
        }
        Self(bits)
    }

    pub(crate) fn contains(&self, status: u16) -> bool {
        let status = usize::from(status);
        self.0.get(status / 64).is_some_and(|bits| bits & (1 << (status % 64)) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_what_it_was_given() {
        let statuses = Statuses::new(&[200, 302, 599, 700]);
        let held: Vec<u16> = (0..=1000).filter(|status| statuses.contains(*status)).collect();
        assert_eq!(held, [200, 302, 599]);
    }
}
