//! Lists: search, filters, order and pages, said once for every kind of object.
//!
//! The default order is "last changed first", by change number, because several changes fall into one second.

use super::StoreError;
use super::database::{Parameter, Row, Transaction, query};
use super::object_count::{self, Counted};

/// Names are indexed by parts of so many characters.
const SEARCHED_CHARACTERS_MIN: usize = 3;

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
    /// Service registries and their history only, which are not ordered here.
    ConnectTime,
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
    /// The column with what the object belongs to, where ids are told apart by it only.
    pub(super) owner: Option<&'static str>,
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
/// Without a search a page reads what it shows and what comes before it; a search for three characters or more, a name
/// and labels read what they find. What is shorter is looked for in every name, and in nothing else of an object.
pub(super) async fn select<T>(
    tx: &mut Transaction,
    source: &Source,
    scope: Scope<'_>,
    filter: &ListFilter,
    read: impl Fn(&Row) -> Result<T, StoreError>,
) -> Result<Listed<T>, StoreError> {
    let (condition, parameters) = condition(tx, source, &scope, filter);
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
    scope: &Scope<'_>,
    filter: &ListFilter,
) -> (String, Vec<Parameter>) {
    let named = source.named;
    let mut parameters: Vec<Parameter> = Vec::new();
    let mut conditions = vec!["1 = 1".to_owned()];
    for (column, value) in scope.fixed {
        parameters.push((*value).into());
        conditions.push(format!("{column} = ${}", parameters.len()));
    }
    if let Some(name) = &filter.name {
        parameters.push(name.as_str().into());
        conditions.push(format!("{named}.name = ${}", parameters.len()));
    }
    // Not lowered by the database: PostgreSQL would lower a parameter by other rules than the column.
    let search = filter.search.as_ref().map(|search| search.to_ascii_lowercase());
    match scope.counted {
        Some(counted) => {
            let index = NameIndex { tx, source, counted };
            conditions.extend(search.map(|search| index.search(&search, &mut parameters)));
            let labels = filter.labels.iter().map(|label| index.label(label, &mut parameters));
            conditions.extend(labels);
        }
        None => {
            if let Some(search) = search {
                parameters.push(format!("%{}%", escape_like(&search)).into());
                conditions.push(format!("lower({named}.name) LIKE ${} ESCAPE '\\'", parameters.len()));
            }
            for (key, value) in &filter.labels {
                parameters.push(key.as_str().into());
                parameters.push(value.as_str().into());
                let count = parameters.len();
                conditions.push(tx.label_equals(&format!("{named}.labels"), count - 1, count));
            }
        }
    }
    (conditions.join(" AND "), parameters)
}

/// The conditions of lists that are too long to be looked through: what is looked for is in the tables `named` and
/// `label`, which triggers keep in step with the objects.
struct NameIndex<'a> {
    tx: &'a Transaction,
    source: &'a Source,
    counted: Counted<'a>,
}

impl NameIndex<'_> {
    /// That the name holds `search`, which is in lower case.
    fn search(&self, search: &str, parameters: &mut Vec<Parameter>) -> String {
        parameters.push(format!("%{}%", escape_like(search)).into());
        let like = format!("n.name LIKE ${} ESCAPE '\\'", parameters.len());
        let indexed = (search.chars().count() >= SEARCHED_CHARACTERS_MIN).then(|| {
            parameters.push(format!("\"{}\"", search.replace('"', "\"\"")).into());
            self.tx.name_holds("n.id", parameters.len())
        });
        // PostgreSQL finds by the pattern itself.
        if indexed.as_ref().is_some_and(Option::is_none) {
            parameters.pop();
        }
        let indexed = indexed.flatten().map_or_else(String::new, |indexed| format!(" AND {indexed}"));
        self.among("named n", &format!("{like}{indexed}"), parameters)
    }

    /// That the object has this label.
    fn label(&self, (key, value): &(String, String), parameters: &mut Vec<Parameter>) -> String {
        parameters.push(key.as_str().into());
        parameters.push(value.as_str().into());
        let digest = self.tx.label_digest(parameters.len() - 1, parameters.len());
        let label = self.scoped("label", &format!("label.digest = {digest}"), parameters);
        let condition = format!("l.label_id = (SELECT id FROM label WHERE {label})");
        self.among("labelled l JOIN named n ON n.id = l.named_id", &condition, parameters)
    }

    /// That the object is among those of its noun and group that `condition` is true of.
    fn among(&self, tables: &str, condition: &str, parameters: &mut Vec<Parameter>) -> String {
        let Source { object, id, owner, .. } = self.source;
        let (this, those) = match owner {
            Some(owner) => (format!("({object}.{owner}, {object}.{id})"), "n.owner, n.object_id"),
            None => (format!("{object}.{id}"), "n.object_id"),
        };
        let condition = self.scoped("n", condition, parameters);
        format!("{this} IN (SELECT {those} FROM {tables} WHERE {condition})")
    }

    /// Nouns are words of ours, and written out: PostgreSQL has an index for each of the large ones.
    fn scoped(&self, table: &str, condition: &str, parameters: &mut Vec<Parameter>) -> String {
        let Counted { group, noun } = self.counted;
        parameters.push(group.into());
        let group = parameters.len();
        format!("{table}.noun = '{noun}' AND {table}.gateway_group_id = ${group} AND {condition}")
    }
}

fn order(source: &Source, filter: &ListFilter) -> String {
    let (object, named) = (source.object, source.named);
    let direction = match filter.direction {
        Direction::Ascending => "ASC",
        Direction::Descending => "DESC",
    };
    let column = match filter.order {
        Order::CreatedAt => format!("{object}.created_number"),
        Order::UpdatedAt | Order::ConnectTime => format!("{object}.change_number"),
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
        Order::CreatedAt | Order::UpdatedAt | Order::Name | Order::ConnectTime => String::new(),
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
