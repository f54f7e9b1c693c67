use serde_json::Value;

/// Selects the facts that matter to a decision: its context.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EventQuery {
    /// OR-ed. `None` and an empty list match every event.
    pub filters: Option<Vec<EventFilter>>,
    /// An exclusive read cursor: only rows after it are returned. It never changes the context
    /// version, and [`append_if`](crate::EventStore::append_if) ignores it.
    pub min_sequence_number: Option<u64>,
}

/// One alternative of a query: its event types and its payload predicates are AND-ed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EventFilter {
    /// OR-ed. `None` is unconstrained, an empty list matches nothing.
    pub event_types: Option<Vec<String>>,
    /// OR-ed. `None` is unconstrained, an empty list matches nothing. A predicate matches by
    /// recursive subset: every member of a predicate object is present in the payload and matches,
    /// every element of a predicate array matches some element of the payload's, scalars are equal
    /// (numbers by exact numeric value).
    pub payload_predicates: Option<Vec<Value>>,
}

impl EventQuery {
    /// Matches every event.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Matches events of any of the given types.
    pub fn for_event_types<T: Into<String>>(event_types: impl IntoIterator<Item = T>) -> Self {
        Self::all().with_filters([EventFilter::for_event_types(event_types)])
    }

    /// Replaces the filters.
    #[must_use]
    pub fn with_filters(mut self, filters: impl IntoIterator<Item = EventFilter>) -> Self {
        self.filters = Some(filters.into_iter().collect());
        self
    }

    /// Replaces the exclusive read cursor.
    #[must_use]
    pub fn with_min_sequence_number(mut self, min_sequence_number: u64) -> Self {
        self.min_sequence_number = Some(min_sequence_number);
        self
    }
}

impl EventFilter {
    /// Matches events of any of the given types.
    pub fn for_event_types<T: Into<String>>(event_types: impl IntoIterator<Item = T>) -> Self {
        Self {
            event_types: Some(event_types.into_iter().map(Into::into).collect()),
            payload_predicates: None,
        }
    }

    /// Replaces the payload predicates.
    #[must_use]
    pub fn with_payload_predicates(mut self, predicates: impl IntoIterator<Item = Value>) -> Self {
        self.payload_predicates = Some(predicates.into_iter().collect());
        self
    }
}
