//! Keeps `openapi.json` equal to the admin API's code.
//!
//! The file is generated and committed, so that a change of the API shows in the diff of a pull request and clients
//! can be generated without building Gatewright. A test refuses a stale file.

use std::path::Path;

use anyhow::Context;

use crate::documented_operations;

const FILE: &str = "openapi.json";

/// Writes the file.
pub(crate) fn write(repository: &Path) -> anyhow::Result<()> {
    let (path, document) = (repository.join(FILE), document());
    std::fs::write(&path, &document).with_context(|| format!("cannot write {}", path.display()))?;
    documented_operations::write(repository, &document)
}

/// What the file must contain: the document as the code describes it, ending in a newline.
fn document() -> String {
    let mut document = gatewright_control_plane::openapi();
    if !document.ends_with('\n') {
        document.push('\n');
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openapi_json_says_what_the_code_says() {
        let committed = std::fs::read_to_string(crate::repository().join(FILE)).unwrap_or_default();
        assert!(committed == document(), "{FILE} is stale: run `cargo xtask openapi` and commit the file");
    }

    #[test]
    fn the_document_is_json_and_names_its_format() {
        let document: serde_json::Value = serde_json::from_str(&document()).expect("JSON");
        let format = document["openapi"].as_str().expect("the member `openapi`");
        assert!(format.starts_with("3.1."), "OpenAPI 3.1 was promised, this is {format}");
    }
}
