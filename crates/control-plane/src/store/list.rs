//! Lists: search, filters, order and pages, said once for every kind of object.
//!
//! The default order is "last changed first", by change number, because several changes fall into one second.

use super::StoreError;
use super::database::{Parameter, Row, Transaction, query};
use super::object_count::{self, Counted};

/// Which objects of a list are wanted, and in which order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListFilter {
    /// A part of the name, in any case.
    pub(crate) search: Option<String>,
    /// The exact name.
    pub(crate) name: Option<String>,
    /// Labels that must all be there.
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) order: Order,
    pub(crate) direction: Direction,
    /// None: everything.
    pub(crate) page: Option<Page>,
}

impl ListFilter {
    /// Whether nothing is left out but by the page.
    fn is_everything(&self) -> bool {
        self.search.is_none() && self.name.is_none() && self.labels.is_empty()
    }
}

/// What a list is ordered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Order {
    CreatedAt,
    #[default]
    UpdatedAt,
    Name,
    /// Published services only.
    PublishTime,
    /// Service templates only.
    LastPublished,
}

/// Which end of a list comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Direction {
    Ascending,
    #[default]
    Descending,
}

/// A part of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) offset: i64,
    pub(crate) limit: i64,
}

/// A list, or a page of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Listed<T> {
    pub(crate) rows: Vec<T>,
    /// How many there are on all pages.
    pub(crate) total: i64,
}

impl<T> Listed<T> {
    pub(crate) fn map<U>(self, view: impl FnMut(T) -> U) -> Listed<U> {
        Listed { rows: self.rows.into_iter().map(view).collect(), total: self.total }
    }
}

/// Where the objects of a list come from.
pub(super) struct Source {
    /// What is selected, after `SELECT`.
    pub(super) columns: &'static str,
    /// Tables and joins, after `FROM`.
    pub(super) tables: &'static str,
    /// The alias of the table with the times and numbers of the object.
    pub(super) object: &'static str,
    /// The alias of the table with its name and labels.
    pub(super) named: &'static str,
    /// The column that tells objects apart which were written under one change number.
    pub(super) id: &'static str,
}

/// Which objects of a source a list is about.
pub(super) struct Scope<'a> {
    /// Columns and what they equal.
    pub(super) fixed: &'a [(&'static str, &'a str)],
    /// What just these are counted as; none: they are few.
    pub(super) counted: Option<Counted<'a>>,
}

/// The objects of `source` that are in `scope` and pass `filter`.
///
/// Without a search a page reads what it shows and what comes before it; a search, a name or labels are looked for in
/// the whole scope.
pub(super) async fn select<T>(
    tx: &mut Transaction,
    source: &Source,
    scope: Scope<'_>,
    filter: &ListFilter,
    read: impl Fn(&Row) -> Result<T, StoreError>,
) -> Result<Listed<T>, StoreError> {
    let (condition, parameters) = condition(tx, source, scope.fixed, filter);
    let bind = |sql: String| parameters.iter().cloned().fold(query(sql), super::database::Query::bind);
    let Source { columns, tables, .. } = source;
    let order = order(source, filter);
    let page =
        filter.page.map_or_else(String::new, |page| format!(" LIMIT {} OFFSET {}", page.limit, page.offset));
    let select = format!("SELECT {columns} FROM {tables} WHERE {condition} ORDER BY {order}{page}");
    let rows = tx.rows(bind(select)).await?.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let total = match (filter.page, scope.counted) {
        (None, _) => i64::try_from(rows.len()).unwrap_or(i64::MAX),
        (Some(_), Some(counted)) if filter.is_everything() => object_count::total(tx, counted).await?,
        (Some(_), _) => {
            let count = bind(format!("SELECT COUNT(*) AS total FROM {tables} WHERE {condition}"));
            tx.row(count).await?.ok_or(StoreError::NotFound)?.integer("total")?
        }
    };
    Ok(Listed { rows, total })
}

fn condition(
    tx: &Transaction,
    source: &Source,
    fixed: &[(&'static str, &str)],
    filter: &ListFilter,
) -> (String, Vec<Parameter>) {
    let named = source.named;
    let mut parameters: Vec<Parameter> = Vec::new();
    let mut conditions = vec!["1 = 1".to_owned()];
    for (column, value) in fixed {
        parameters.push((*value).into());
        conditions.push(format!("{column} = ${}", parameters.len()));
    }
    if let Some(name) = &filter.name {
        parameters.push(name.as_str().into());
        conditions.push(format!("{named}.name = ${}", parameters.len()));
    }
    if let Some(search) = &filter.search {
        // Not lowered by the database: PostgreSQL would lower a parameter by other rules than the column.
        parameters.push(format!("%{}%", escape_like(&search.to_ascii_lowercase())).into());
        conditions.push(format!("lower({named}.name) LIKE ${} ESCAPE '\\'", parameters.len()));
    }
    for (key, value) in &filter.labels {
        parameters.push(key.as_str().into());
        parameters.push(value.as_str().into());
        let count = parameters.len();
        conditions.push(tx.label_equals(&format!("{named}.labels"), count - 1, count));
    }
    (conditions.join(" AND "), parameters)
}

fn order(source: &Source, filter: &ListFilter) -> String {
    let (object, named) = (source.object, source.named);
    let direction = match filter.direction {
        Direction::Ascending => "ASC",
        Direction::Descending => "DESC",
    };
    let column = match filter.order {
        Order::CreatedAt => format!("{object}.created_number"),
        Order::UpdatedAt => format!("{object}.change_number"),
        Order::Name => format!("{named}.name"),
        Order::PublishTime => format!("{object}.publish_time"),
        Order::LastPublished => format!("{object}.last_published"),
    };
    // What was never published counts as the oldest; without saying so, databases differ.
    let absent = match (filter.order, filter.direction) {
        (Order::LastPublished, Direction::Ascending) => " NULLS FIRST",
        (Order::LastPublished, Direction::Descending) => " NULLS LAST",
        _ => "",
    };
    // Times are seconds, and many templates were never published: among these the last change decides.
    let then = match filter.order {
        Order::PublishTime | Order::LastPublished => format!("{object}.change_number {direction}, "),
        Order::CreatedAt | Order::UpdatedAt | Order::Name => String::new(),
    };
    // One verb may write several objects under one change number; the id makes pages stable. It goes the same way, so
    // that an index is walked from either end.
    format!("{column} {direction}{absent}, {then}{object}.{id} {direction}", id = source.id)
}

pub(super) fn escape_like(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '%' | '_' | '\\') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}
