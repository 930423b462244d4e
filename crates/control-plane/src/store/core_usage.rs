//! How many cores gateways used, by hour.

use super::database::query;
use super::{Reading, StoreError, Writing};

/// Rows of one answer: more than a year.
const ROWS_MAX: i64 = 10_000;

/// The most cores that were in use at a time within an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CoreUsageRow {
    /// The beginning of the hour, in unix seconds.
    pub(crate) hour: i64,
    pub(crate) cores: i64,
}

impl Reading {
    /// The hours that begin within `begin_at..=end_at`, the oldest first.
    pub(crate) async fn core_usage_list(
        &mut self,
        begin_at: i64,
        end_at: i64,
    ) -> Result<Vec<CoreUsageRow>, StoreError> {
        let some = query(
            "SELECT hour, cores FROM core_usage WHERE hour >= $1 AND hour <= $2 ORDER BY hour LIMIT $3",
        );
        let rows = self.tx.rows(some.bind(begin_at).bind(end_at).bind(ROWS_MAX)).await?;
        rows.iter()
            .map(|row| Ok(CoreUsageRow { hour: row.integer("hour")?, cores: row.integer("cores")? }))
            .collect()
    }
}

impl Writing {
    /// Keeps the number of cores in use, if it is the highest of its hour.
    pub(crate) async fn core_usage_put(&mut self, row: CoreUsageRow) -> Result<(), StoreError> {
        let put = query(
            "INSERT INTO core_usage (hour, cores) VALUES ($1, $2) \
             ON CONFLICT (hour) DO UPDATE SET cores = excluded.cores WHERE core_usage.cores < excluded.cores",
        );
        self.tx.execute(put.bind(row.hour).bind(row.cores)).await?;
        Ok(())
    }

    /// Forgets the hours before `hour`.
    pub(crate) async fn core_usage_expire(&mut self, hour: i64) -> Result<(), StoreError> {
        self.tx.execute(query("DELETE FROM core_usage WHERE hour < $1").bind(hour)).await?;
        Ok(())
    }
}
