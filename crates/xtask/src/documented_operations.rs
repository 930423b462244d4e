//! Keeps the table of documented operations equal to what the admin API serves.
//!
//! `documented-operations.txt` lists the operations of the published interface; which of them are served follows from
//! the OpenAPI document. Like that one, the table is generated and committed, and a test refuses a stale one.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

const LIST: &str = "docs/reference/documented-operations.txt";
const TABLE: &str = "docs/reference/documented-operations.md";

const HEAD: &str = "# Documented operations\n\n\
    The operations of the documented interface, and whether this release serves them.\n\
    Those that are not served answer 404 or 405.\n\
    `cargo xtask openapi` writes this table.\n\n\
    | operation | served |\n|---|---|\n";

/// Writes the table.
pub(crate) fn write(repository: &Path, openapi: &str) -> anyhow::Result<()> {
    let path = repository.join(TABLE);
    std::fs::write(&path, table(repository, openapi)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn table(repository: &Path, openapi: &str) -> anyhow::Result<String> {
    let path = repository.join(LIST);
    let list = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let served = served(&serde_json::from_str(openapi).context("the OpenAPI document is no JSON")?);
    let rows = list.lines().map(|operation| {
        let mark = if served.contains(&without_names(operation)) { "yes" } else { "not yet" };
        format!("| `{operation}` | {mark} |\n")
    });
    Ok(HEAD.to_owned() + &rows.collect::<String>())
}

fn served(openapi: &Value) -> BTreeSet<String> {
    let paths = openapi["paths"].as_object().into_iter().flatten();
    let operations = paths.flat_map(|(path, item)| {
        let methods = item.as_object().into_iter().flatten();
        methods.map(move |(method, _)| without_names(&format!("{} {path}", method.to_uppercase())))
    });
    operations.collect()
}

/// Ids are called differently in different places of the documents.
fn without_names(operation: &str) -> String {
    let mut shape = String::new();
    for (index, part) in operation.split('{').enumerate() {
        if index > 0 {
            shape.push_str("{}");
        }
        shape.push_str(if index > 0 { part.split_once('}').map_or("", |(_, rest)| rest) } else { part });
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_documented_operations_is_true() {
        let repository = crate::repository();
        let expected = table(&repository, &gatewright_control_plane::openapi()).unwrap();
        let committed = std::fs::read_to_string(repository.join(TABLE)).unwrap_or_default();
        assert!(committed == expected, "{TABLE} is stale: run `cargo xtask openapi` and commit the file");
    }

    #[test]
    fn an_operation_is_known_by_its_shape() {
        assert_eq!(without_names("GET /a/{id}/b/{other}"), "GET /a/{}/b/{}");
        assert_eq!(without_names("GET /a"), "GET /a");
    }
}
