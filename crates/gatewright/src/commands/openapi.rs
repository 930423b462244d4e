//! `gatewright import openapi` and `gatewright export openapi`: documents in and out of a control plane.
//!
//! What the document and the service do not have in common goes to stderr, so that stdout holds the document alone.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use gatewright_model::diff::ServiceDiff;
use gatewright_model::limits;
use gatewright_model::openapi::{Note, NoteKind, Suggestion};
use serde::Deserialize;
use serde_json::json;

use super::Failure;
use super::diff::{Place, State, state};
use crate::announce;
use crate::arguments::AdminAccess;

/// Flags of `gatewright import`.
#[derive(Debug, Args)]
pub(crate) struct Import {
    #[command(subcommand)]
    what: ImportCommand,
}

/// What can be imported.
#[derive(Debug, Subcommand)]
enum ImportCommand {
    /// Make a service template of an OpenAPI document, or bring one up to date with it.
    Openapi(ImportOpenapi),
}

/// Flags of `gatewright import openapi`.
#[derive(Debug, Args)]
struct ImportOpenapi {
    /// The document, 3.0 or 3.1, as JSON or YAML; `-` is stdin.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The service template, by id or name; without: the one that is called like the document.
    #[arg(long, env = "GATEWRIGHT_SERVICE", value_name = "SERVICE", value_parser = NonEmptyStringValueParser::new())]
    service: Option<String>,
    /// Configure the suggested plugins that the document says enough about.
    #[arg(long, env = "GATEWRIGHT_FOLLOW_SUGGESTIONS", value_parser = clap::builder::BoolishValueParser::new())]
    #[arg(num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    follow_suggestions: bool,
    /// Delete the routes that the document does not have.
    #[arg(long, env = "GATEWRIGHT_REMOVE_MISSING", value_parser = clap::builder::BoolishValueParser::new())]
    #[arg(num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    remove_missing: bool,
    /// Say what would change, and change nothing.
    #[arg(long, env = "GATEWRIGHT_DRY_RUN", value_parser = clap::builder::BoolishValueParser::new())]
    #[arg(num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    dry_run: bool,
    #[command(flatten)]
    access: AdminAccess,
}

/// Flags of `gatewright export`.
#[derive(Debug, Args)]
pub(crate) struct Export {
    #[command(subcommand)]
    what: ExportCommand,
}

/// What can be exported to.
#[derive(Debug, Subcommand)]
enum ExportCommand {
    /// Write a service as an OpenAPI document.
    Openapi(ExportOpenapi),
}

/// Flags of `gatewright export openapi`.
#[derive(Debug, Args)]
struct ExportOpenapi {
    /// `SERVICE` for the template, `SERVICE@VERSION`, or `SERVICE@group:GROUP` for what a gateway group has.
    #[arg(value_name = "SERVICE", value_parser = state)]
    service: State,
    /// The title of the document; without: the name of the service.
    #[arg(long, env = "GATEWRIGHT_TITLE", value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    title: Option<String>,
    /// A server that the document names; repeat it for several. Without: the hosts of the service.
    #[arg(long, env = "GATEWRIGHT_SERVER", value_name = "URL", value_delimiter = ',')]
    server: Vec<String>,
    #[command(flatten)]
    access: AdminAccess,
}

/// Why a document was not imported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The file is larger than the admin API takes.
    #[error("{path} is larger than {} bytes, the most that is imported", limits::OPENAPI_BYTES_MAX, path = path.display())]
    TooLarge { path: PathBuf },
    /// The answer has another form than the admin API's.
    #[error("the control plane's answer to the import cannot be read: {0}; is it of another release?")]
    Answer(serde_json::Error),
}

/// What an import is answered.
#[derive(Deserialize)]
struct Imported {
    service: Named,
    #[serde(default)]
    diff: Option<ServiceDiff>,
    suggestions: Vec<Suggestion>,
    notes: Vec<Note>,
}

#[derive(Deserialize)]
struct Named {
    id: String,
    name: String,
}

/// Imports.
pub(crate) fn import(arguments: &Import) -> Result<(), Failure> {
    let ImportCommand::Openapi(arguments) = &arguments.what;
    let client = super::admin_client(&arguments.access)?;
    let raw = read(&arguments.file)?;
    let id = match &arguments.service {
        Some(service) => client.service_template_id(service)?,
        None => {
            let converted = client.openapi_convert(&json!({ "raw_openapi": raw }))?;
            let name = converted["name"].as_str().unwrap_or_default();
            let known = client.service_template_named(name)?;
            known.map_or_else(|| super::quick::id_of(name), Ok)?
        }
    };
    let wish = json!({
        "raw_openapi": raw,
        "follow_suggestions": arguments.follow_suggestions,
        "remove_missing": arguments.remove_missing,
    });
    let answer = client.openapi_import(&id, &wish, arguments.dry_run)?;
    if let Some(warning) = answer["warning_msg"].as_str() {
        tracing::warn!("{warning}");
    }
    let imported = Imported::deserialize(&answer["value"]).map_err(Refusal::Answer)?;
    announce::line(told(&imported, arguments.dry_run).trim_end());
    for note in &imported.notes {
        eprintln!("{}", noted(note));
    }
    Ok(())
}

/// Exports.
pub(crate) fn export(arguments: &Export) -> Result<(), Failure> {
    let ExportCommand::Openapi(arguments) = &arguments.what;
    let client = super::admin_client(&arguments.access)?;
    let State { service, place } = &arguments.service;
    let id = client.service_template_id(service)?;
    let title = arguments.title.as_ref().unwrap_or(service);
    let mut wish = json!({ "service_ids": [id], "info": { "title": title, "version": "draft" } });
    match place {
        Place::Template => {}
        Place::Version(number) => {
            wish["version"] = number.as_str().into();
            wish["info"]["version"] = number.as_str().into();
        }
        Place::Group(group) => {
            let published = client.published_service_find(group, &id)?;
            let number = published.as_ref().and_then(|service| service["version"].as_str());
            wish["info"]["version"] = number.unwrap_or("none").into();
            wish["gateway_group_id"] = group.as_str().into();
        }
    }
    wish["servers"] = arguments.server.iter().map(|url| json!({ "url": url })).collect();
    let answer = client.service_export(&wish)?;
    announce::line(serde_json::to_string_pretty(&answer["value"]).unwrap_or_default());
    for note in answer["warning_msg"].as_str().into_iter().flat_map(|notes| notes.split(" | ")) {
        eprintln!("{note}");
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, Refusal> {
    let failed = |source| Refusal::Read { path: path.to_owned(), source };
    let most = u64::try_from(limits::OPENAPI_BYTES_MAX).unwrap_or(u64::MAX) + 1;
    let mut text = String::new();
    let reading = if path == Path::new("-") {
        io::stdin().lock().take(most).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).map_err(failed)?.take(most).read_to_string(&mut text)
    };
    reading.map_err(failed)?;
    if text.len() > limits::OPENAPI_BYTES_MAX {
        return Err(Refusal::TooLarge { path: path.to_owned() });
    }
    Ok(text)
}

fn told(imported: &Imported, is_dry_run: bool) -> String {
    let Imported { service: Named { id, name }, diff, suggestions, .. } = imported;
    let done = match (diff, is_dry_run) {
        (None, false) => "made",
        (None, true) => "would make",
        (Some(_), false) => "brought up to date",
        (Some(_), true) => "would bring up to date",
    };
    let mut text = format!("{done} service template `{name}` ({id})\n");
    text.extend(diff.iter().map(ToString::to_string));
    for Suggestion { plugin, config, missing, routes, .. } in suggestions {
        let place = if routes.is_empty() { "all routes".to_owned() } else { routes.join(", ") };
        text.push_str(&format!("suggested for {place}: {plugin} {config}"));
        if !missing.is_empty() {
            text.push_str(&format!(", which still needs {}", missing.join(", ")));
        }
        text.push('\n');
    }
    text
}

fn noted(note: &Note) -> String {
    let Note { kind, place, message, count } = note;
    let kind = match kind {
        NoteKind::Skipped => "skipped",
        NoteKind::Adapted => "adapted",
        NoteKind::Unused => "unused ",
    };
    let times = if *count > 1 { format!(" and {} more places", count - 1) } else { String::new() };
    format!("{kind}  {message} ({place}{times})")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn an_import_is_told_with_its_difference_and_its_suggestions() {
        let imported = |diff: Value| {
            let mut imported = json!({
                "service": { "id": "pets", "name": "Pets" }, "notes": [],
                "suggestions": [
                    { "plugin": "key-auth", "config": {}, "schemes": ["key"] },
                    { "plugin": "openid-connect", "config": {}, "missing": ["client_id"], "routes": ["a", "b"], "schemes": ["id"] },
                ],
            });
            if !diff.is_null() {
                imported["diff"] = diff;
            }
            serde_json::from_value::<Imported>(imported).unwrap()
        };
        let suggestions = "suggested for all routes: key-auth {}\nsuggested for a, b: openid-connect {}, which still needs client_id\n";
        let made = told(&imported(Value::Null), false);
        assert_eq!(made, format!("made service template `Pets` (pets)\n{suggestions}"));
        let changed = told(&imported(json!({})), true);
        assert_eq!(
            changed,
            format!("would bring up to date service template `Pets` (pets)\nno differences\n{suggestions}")
        );
    }

    #[test]
    fn a_note_says_where_and_how_often() {
        let note =
            |count| Note { kind: NoteKind::Unused, place: "/a".to_owned(), message: "`x`".to_owned(), count };
        assert_eq!(noted(&note(1)), "unused   `x` (/a)");
        assert_eq!(noted(&note(3)), "unused   `x` (/a and 2 more places)");
    }
}
