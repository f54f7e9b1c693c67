//! What queries have found lately, so that a condition need not look that far back again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::KnownVersion;
use crate::payload::CompiledQuery;

/// Contexts remembered, and the longest filters worth remembering, in bytes.
const MOST_CONTEXTS: usize = 8_192;
const LONGEST_TEXT: usize = 1_024;

/// The versions of contexts as of a head. They stay true for ever, because the log only grows.
#[derive(Debug, Default)]
pub(crate) struct ContextVersions {
    by_filters: Mutex<HashMap<Box<str>, KnownVersion>>,
}

impl ContextVersions {
    /// Remembers the version that a query found at a head.
    pub(crate) fn remember(&self, query: &CompiledQuery, version: Option<u64>, head: u64) {
        let filters = query.text();
        let found = KnownVersion { version, head };
        if filters.len() > LONGEST_TEXT {
            return;
        }
        let mut known = self
            .by_filters
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_CONTEXTS && !known.contains_key(filters) {
            known.clear();
        }
        match known.get_mut(filters) {
            Some(before) if before.head > found.head => {}
            Some(before) => *before = found,
            None => drop(known.insert(filters.into(), found)),
        }
    }

    /// Forgets all: the log may not be the one that it was.
    pub(crate) fn clear(&self) {
        self.by_filters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    pub(crate) fn known(&self, query: &CompiledQuery) -> Option<KnownVersion> {
        self.by_filters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(query.text())
            .copied()
    }
}
