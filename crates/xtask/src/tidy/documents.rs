//! What every document has to look like.

use super::{File, files, refuse};

/// The lines that are `#` titles, fenced code left out.
fn titles(text: &str) -> Vec<&str> {
    let mut fenced = false;
    let is_title = |line: &&str| {
        fenced ^= line.trim_start().starts_with("```");
        !fenced && line.starts_with("# ")
    };
    text.lines().filter(is_title).collect()
}

fn title_violation(file: &File) -> Option<String> {
    let found = titles(&file.text);
    let begins = file.text.starts_with("# ");
    (found.len() != 1 || !begins).then(|| format!("{}: {} titles", file.path, found.len()))
}

/// The relative targets of links in a document, without fragments.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    let paths = targets.map(|target| target.split_once('#').map_or(target, |(path, _)| path));
    paths.filter(|path| !path.is_empty() && !path.contains("://") && !path.starts_with("mailto:")).collect()
}

#[test]
fn every_document_has_one_title_and_begins_with_it() {
    let found: Vec<String> = files("md").iter().filter_map(title_violation).collect();
    refuse(&found, "Begin the document with its only `# ` line; sections below it use `## `.");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let root = crate::repository();
    let mut found = Vec::new();
    for file in files("md") {
        let document = root.join(&file.path);
        let folder = document.parent().expect("a document stands in a folder");
        let broken = links(&file.text).into_iter().filter(|link| !folder.join(link).exists());
        found.extend(broken.map(|link| format!("{}: {link}", file.path)));
    }
    refuse(&found, "Write the link relative to the document, to a file that exists.");
}

#[test]
fn titles_in_code_do_not_count() {
    let violation = |text: &str| title_violation(&File { path: "a.md".to_owned(), text: text.to_owned() });
    assert_eq!(violation("# One\n\n## Section\n\n```sh\n# a comment\n```\n"), None);
    assert!(violation("# One\n\n# Two\n").is_some());
    assert!(violation("Text\n\n# One\n").is_some());
    assert!(violation("").is_some());
}

#[test]
fn only_relative_links_are_followed() {
    let text = "[a](docs/a.md#part) [b](https://example.com) [c](#here) [d](../b.md)";
    assert_eq!(links(text), ["docs/a.md", "../b.md"]);
}
