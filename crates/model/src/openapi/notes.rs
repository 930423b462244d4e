//! Notes as they are gathered: what is said twice is counted.

use std::collections::HashMap;

use super::{Note, NoteKind};
use crate::limits;

#[derive(Debug, Default)]
pub(super) struct Notes {
    notes: Vec<Note>,
    places: HashMap<(NoteKind, String), usize>,
    /// Notes of further kinds than are kept.
    beyond: usize,
}

impl Notes {
    /// Notes `message` about `place`; said before, it is only counted.
    pub(super) fn add(&mut self, kind: NoteKind, place: &str, message: impl Into<String>) {
        let message = message.into();
        match self.places.get(&(kind, message.clone())) {
            Some(at) => self.notes[*at].count += 1,
            None if self.notes.len() >= limits::OPENAPI_NOTES_MAX => self.beyond += 1,
            None => {
                self.places.insert((kind, message.clone()), self.notes.len());
                self.notes.push(Note { kind, place: place.to_owned(), message, count: 1 });
            }
        }
    }

    /// What concerns requests comes first; otherwise as found.
    pub(super) fn finish(mut self) -> Vec<Note> {
        self.notes.sort_by_key(|note| note.kind);
        if self.beyond > 0 {
            let message = format!("more is different than the {} things named", limits::OPENAPI_NOTES_MAX);
            let note = Note { kind: NoteKind::Unused, place: String::new(), message, count: self.beyond };
            self.notes.push(note);
        }
        self.notes
    }
}
