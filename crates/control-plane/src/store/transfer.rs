//! Whole stores: backed up to a file, or moved to another database.
//!
//! Moving keeps everything as it is, ids, versions, history and numbers, and is one transaction of the target: it is
//! all there afterwards or nothing is.

use std::path::Path;

use super::database::{Parameter, Query, Row, Transaction, query};
use super::schema::{self, ColumnKind, Table};
use super::{Store, StoreError, sqlite};

/// Rows that are read and written at once.
const ROWS_PER_STEP: usize = 200;

/// What triggers keep in step with the other tables.
const KEPT: [&str; 4] = ["object_count", "named", "label", "labelled"];

/// Why a store was not moved. The target is as it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransferError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the target is not empty: its store has been used; name a database that holds nothing")]
    TargetInUse,
    #[error("source and target do not have the same tables; use the same release for both")]
    SchemaDiffers,
}

/// Writes one moment of the SQLite database at `path` to the empty file `to`.
pub(crate) async fn backup(path: &Path, to: &str) -> Result<(), StoreError> {
    sqlite::copy(path, to).await
}

/// Copies everything in `source` to `target`, and says how many rows that were.
pub(crate) async fn transfer(source: &Store, target: &Store) -> Result<u64, TransferError> {
    let mut from = source.read().await?.tx;
    let mut to = target.write().await?.reading.tx;
    let tables = schema::tables(&mut from).await?;
    if schema::tables(&mut to).await? != tables {
        return Err(TransferError::SchemaDiffers);
    }
    // Every change raises it, so nothing was ever changed.
    let counter = query("SELECT value FROM change_counter WHERE id = 1");
    if to.row(counter).await?.ok_or(StoreError::NotFound)?.integer("value")? != 0 {
        return Err(TransferError::TargetInUse);
    }
    let mut ordered = schema::in_order(&tables);
    // The target keeps it itself while the others come in.
    ordered.retain(|name| !KEPT.contains(name));
    // What migrations put in is in the source as well, perhaps changed since.
    for name in ordered.iter().rev() {
        to.execute(query(format!("DELETE FROM \"{name}\""))).await?;
    }
    let mut rows = 0;
    for name in ordered {
        rows += copy(&mut from, &mut to, name, &tables[name]).await?;
    }
    to.commit().await?;
    Ok(rows)
}

async fn copy(
    from: &mut Transaction,
    to: &mut Transaction,
    name: &str,
    table: &Table,
) -> Result<u64, StoreError> {
    let mut count = 0;
    let mut last: Option<Vec<Parameter>> = None;
    loop {
        let rows = from.rows(page(name, table, last.take())).await?;
        let Some(row) = rows.last() else { return Ok(count) };
        let key = table.key.iter().map(|column| value(row, column, table.columns[column].kind));
        last = Some(key.collect::<Result<_, _>>()?);
        count += to.execute(insert(name, table, &rows)?).await?;
    }
}

/// The rows whose key comes after `last`.
fn page(name: &str, table: &Table, last: Option<Vec<Parameter>>) -> Query {
    let columns = quoted(table.columns.keys());
    let key = quoted(table.key.iter());
    let condition = match &last {
        Some(last) => format!("({key}) > ({})", parameters(1, last.len())),
        None => "1 = 1".to_owned(),
    };
    let select =
        format!("SELECT {columns} FROM \"{name}\" WHERE {condition} ORDER BY {key} LIMIT {ROWS_PER_STEP}");
    last.into_iter().flatten().fold(query(select), Query::bind)
}

fn insert(name: &str, table: &Table, rows: &[Row]) -> Result<Query, StoreError> {
    let width = table.columns.len();
    let tuples: Vec<String> =
        (0..rows.len()).map(|row| format!("({})", parameters(1 + row * width, width))).collect();
    let columns = quoted(table.columns.keys());
    let mut insert = query(format!("INSERT INTO \"{name}\" ({columns}) VALUES {}", tuples.join(", ")));
    for row in rows {
        for (column, described) in &table.columns {
            insert = insert.bind(value(row, column, described.kind)?);
        }
    }
    Ok(insert)
}

fn value(row: &Row, column: &str, kind: ColumnKind) -> Result<Parameter, StoreError> {
    Ok(match kind {
        ColumnKind::Text => Parameter::Text(row.optional_text(column)?),
        ColumnKind::Integer => Parameter::Integer(row.optional_integer(column)?),
    })
}

fn quoted<'a>(columns: impl Iterator<Item = &'a String>) -> String {
    columns.map(|column| format!("\"{column}\"")).collect::<Vec<_>>().join(", ")
}

/// `count` parameters from number `first` on.
fn parameters(first: usize, count: usize) -> String {
    (first..first + count).map(|number| format!("${number}")).collect::<Vec<_>>().join(", ")
}
