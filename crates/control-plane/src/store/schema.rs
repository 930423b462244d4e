//! What tables there are, asked of the database itself: what copies a whole store cannot forget a table that a later
//! migration adds.

use std::collections::{BTreeMap, BTreeSet};

use super::StoreError;
use super::database::{Transaction, query};

/// A table as both databases can describe it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) columns: BTreeMap<String, Column>,
    /// The columns of the primary key, in its order.
    pub(super) key: Vec<String>,
    /// The tables whose rows must be there before.
    pub(super) references: BTreeSet<String>,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) kind: ColumnKind,
    pub(super) may_be_null: bool,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColumnKind {
    Text,
    Integer,
}

const SQLITE_COLUMNS: &str = "SELECT t.name AS table_name, c.name AS column_name, replace(c.type, 'INTEGER', 'BIGINT') AS kind, \
    c.\"notnull\" AS not_null, c.pk AS key_position \
    FROM sqlite_schema t JOIN pragma_table_info(t.name) c \
    WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND t.name <> '_sqlx_migrations' \
    AND t.name NOT LIKE 'name\\_search%' ESCAPE '\\' \
    ORDER BY t.name, c.pk, c.name";

const SQLITE_REFERENCES: &str = "SELECT t.name AS table_name, r.\"table\" AS referenced \
    FROM sqlite_schema t JOIN pragma_foreign_key_list(t.name) r WHERE t.type = 'table'";

const POSTGRES_COLUMNS: &str = "SELECT t.relname::text AS table_name, c.attname::text AS column_name, \
    upper(format_type(c.atttypid, c.atttypmod)) AS kind, c.attnotnull::int::bigint AS not_null, \
    COALESCE((SELECT array_position(k.conkey, c.attnum) FROM pg_constraint k \
    WHERE k.conrelid = t.oid AND k.contype = 'p'), 0)::bigint AS key_position \
    FROM pg_class t JOIN pg_attribute c ON c.attrelid = t.oid AND c.attnum > 0 AND NOT c.attisdropped \
    WHERE t.relkind IN ('r', 'p') AND t.relnamespace = current_schema()::regnamespace \
    AND t.relname <> '_sqlx_migrations' ORDER BY 1, 5, 2";

const POSTGRES_REFERENCES: &str = "SELECT t.relname::text AS table_name, r.relname::text AS referenced \
    FROM pg_constraint k JOIN pg_class t ON t.oid = k.conrelid JOIN pg_class r ON r.oid = k.confrelid \
    WHERE k.contype = 'f' AND t.relnamespace = current_schema()::regnamespace";

/// Every table of the store.
pub(super) async fn tables(tx: &mut Transaction) -> Result<BTreeMap<String, Table>, StoreError> {
    let (columns, references) = match tx {
        Transaction::Sqlite(_) => (SQLITE_COLUMNS, SQLITE_REFERENCES),
        Transaction::Postgres(_) => (POSTGRES_COLUMNS, POSTGRES_REFERENCES),
    };
    let mut tables: BTreeMap<String, Table> = BTreeMap::new();
    for row in tx.rows(query(columns)).await? {
        let (table, column) = (row.text("table_name")?, row.text("column_name")?);
        let kind = kind(&table, &column, &row.text("kind")?)?;
        let is_key = row.integer("key_position")? > 0;
        let may_be_null = row.integer("not_null")? == 0;
        let table = tables.entry(table).or_default();
        if is_key {
            table.key.push(column.clone());
        }
        table.columns.insert(column, Column { kind, may_be_null });
    }
    for row in tx.rows(query(references)).await? {
        if let Some(table) = tables.get_mut(&row.text("table_name")?) {
            table.references.insert(row.text("referenced")?);
        }
    }
    Ok(tables)
}

fn kind(table: &str, column: &str, name: &str) -> Result<ColumnKind, StoreError> {
    match name {
        "TEXT" => Ok(ColumnKind::Text),
        "BIGINT" => Ok(ColumnKind::Integer),
        other => Err(StoreError::Unavailable {
            reason: format!("column `{column}` of table `{table}` has the type {other}, which is not ours"),
        }),
    }
}

/// The names of `tables`, each after those it refers to.
pub(super) fn in_order(tables: &BTreeMap<String, Table>) -> Vec<&str> {
    let mut ordered: Vec<&str> = Vec::new();
    while ordered.len() < tables.len() {
        let before = ordered.len();
        for (name, table) in tables {
            let is_there = |other: &String| other == name || ordered.contains(&other.as_str());
            if !ordered.contains(&name.as_str()) && table.references.iter().all(is_there) {
                ordered.push(name);
            }
        }
        if ordered.len() == before {
            unreachable!(
                "tables refer to each other in a circle, so none of them could ever get its first row"
            );
        }
    }
    ordered
}
