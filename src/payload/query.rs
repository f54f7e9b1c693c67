//! A query on its way in: checked once, its predicates ready to match, its facets known.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::batch::PreparedEvent;
use super::culprit::{NUL_REFUSED, find_culprit, reason};
use super::facet::{Facet, Path, event_type_facet, required_facets};
use super::matching::Predicate;
use super::value::parse_value;
use super::{MAX_DEPTH, MAX_PAYLOAD_BYTES, refuse_arbitrary_precision};
use crate::contract::{EventFilter, EventQuery, EventStoreError};

/// The filters of a query, without its cursor.
#[derive(Debug, Clone)]
pub(crate) struct CompiledQuery {
    /// OR-ed; `None` matches every event.
    filters: Option<Vec<CompiledFilter>>,
    /// The filters as text: equal texts select equal contexts.
    text: Box<str>,
}

/// One alternative of a query.
#[derive(Debug, Clone)]
pub(crate) struct CompiledFilter {
    /// OR-ed, sorted.
    event_types: Option<Vec<String>>,
    /// OR-ed.
    predicates: Option<Vec<CompiledPredicate>>,
}

#[derive(Debug, Clone)]
struct CompiledPredicate {
    exact: Predicate,
    /// Sorted and distinct; what every matching event has.
    facets: Vec<Facet>,
}

impl CompiledQuery {
    /// Matches every event.
    pub(crate) fn everything() -> Self {
        Self {
            filters: None,
            text: "null".into(),
        }
    }

    /// Checks a query of the Rust API.
    pub(crate) fn from_query(query: &EventQuery) -> Result<Self, EventStoreError> {
        refuse_arbitrary_precision()?;
        let filters = query.filters.as_deref().unwrap_or_default();
        let text = serde_json::to_string(&filters.iter().map(filter_to_json).collect::<Vec<_>>())
            .map_err(|error| EventStoreError::InvalidQuery(error.to_string()))?;
        Self::from_json(&text)
    }

    /// Checks the JSON text of a query's `filters`.
    pub(crate) fn from_json(text: &str) -> Result<Self, EventStoreError> {
        let invalid = EventStoreError::InvalidQuery;
        if text.len() > MAX_PAYLOAD_BYTES {
            let most = MAX_PAYLOAD_BYTES;
            return Err(invalid(format!(
                "query: has {} bytes, the most is {most}",
                text.len()
            )));
        }
        // A predicate stands three levels below the filters: in a list, in a filter, in the list.
        let filters = match parse_value(text) {
            Ok(filters) if !text.contains("\\u0000") && nested_within(&filters, MAX_DEPTH + 3) => {
                filters
            }
            Ok(filters) => match find_culprit(text, "query.filters", 3) {
                Some(message) => return Err(invalid(message)),
                None => filters,
            },
            Err(error) => {
                let message = find_culprit(text, "query.filters", 3)
                    .unwrap_or_else(|| format!("query.filters: {}", reason(&error)));
                return Err(invalid(message));
            }
        };
        let filters = match &filters {
            Value::Null => None,
            Value::Array(filters) if filters.is_empty() => None,
            Value::Array(filters) => Some(
                filters
                    .iter()
                    .enumerate()
                    .map(|(index, filter)| {
                        CompiledFilter::compile(filter).map_err(|(member, reason)| {
                            invalid(format!("query.filters[{index}]{member}: {reason}"))
                        })
                    })
                    .collect::<Result<_, _>>()?,
            ),
            _ => {
                return Err(invalid(
                    "query.filters: must be an array, null or absent".to_owned(),
                ));
            }
        };
        Ok(Self {
            filters,
            text: text.into(),
        })
    }

    /// The filters as JSON text.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The filters in a form that is the same for all ways to write them.
    pub(crate) fn canonical_text(&self) -> String {
        super::canonical::canonical_filters(&self.text)
    }

    /// The filters as the public type.
    pub(crate) fn to_query(&self) -> EventQuery {
        filters_to_query(&self.text)
    }

    /// The OR-ed alternatives, `None` if every event matches.
    pub(crate) fn filters(&self) -> Option<&[CompiledFilter]> {
        self.filters.as_deref()
    }

    /// How often a payload may have to be gone through to be matched, at most.
    #[cfg(feature = "postgres")]
    pub(crate) fn effort(&self) -> usize {
        let filters = self.filters.iter().flatten();
        let predicates = filters
            .filter_map(|filter| filter.predicates.as_ref())
            .flatten();
        predicates.map(|predicate| predicate.exact.effort()).sum()
    }

    /// Tells exactly whether an event of a batch belongs to the context; mostly by its facets.
    pub(crate) fn matches_prepared(&self, event: &PreparedEvent) -> bool {
        self.filters.as_ref().is_none_or(|filters| {
            filters.iter().any(|filter| {
                filter.has_type(event.event_type)
                    && filter.predicates.as_ref().is_none_or(|predicates| {
                        predicates.iter().any(|predicate| {
                            predicate.may_match(event.facets)
                                && predicate.exact.matches(event.payload)
                        })
                    })
            })
        })
    }

    /// Tells exactly whether an event belongs to the context.
    pub(crate) fn matches(&self, event_type: &str, payload: &str) -> bool {
        self.filters.as_ref().is_none_or(|filters| {
            filters
                .iter()
                .any(|filter| filter.matches(event_type, payload))
        })
    }
}

impl CompiledFilter {
    fn compile(filter: &Value) -> Result<Self, (String, Cow<'static, str>)> {
        let Value::Object(members) = filter else {
            return Err((String::new(), "must be an object".into()));
        };
        if let Some(unknown) = members
            .keys()
            .find(|key| !matches!(key.as_str(), "event_types" | "payload_predicates"))
        {
            let shown: String = unknown.chars().take(64).collect();
            let reason = "unknown member (a filter has event_types and payload_predicates)";
            return Err((format!(".{shown}"), reason.into()));
        }
        let event_types = list(members, "event_types")?
            .map(|types| {
                types
                    .iter()
                    .enumerate()
                    .map(|(index, event_type)| match event_type {
                        Value::String(event_type) if event_type.contains('\0') => {
                            Err((format!(".event_types[{index}]"), NUL_REFUSED.into()))
                        }
                        Value::String(event_type) => Ok(event_type.clone()),
                        _ => Err((format!(".event_types[{index}]"), "must be a string".into())),
                    })
                    .collect::<Result<Vec<_>, _>>()
            })
            .transpose()?
            .map(|mut types| {
                types.sort_unstable();
                types.dedup();
                types
            });
        let predicates = list(members, "payload_predicates")?
            .map(|predicates| predicates.iter().map(CompiledPredicate::compile).collect());
        Ok(Self {
            event_types,
            predicates,
        })
    }

    /// The facets of the OR-ed event types, `None` if unconstrained.
    pub(crate) fn event_type_facets(&self) -> Option<impl Iterator<Item = Facet>> {
        self.event_types
            .as_ref()
            .map(|types| types.iter().map(|name| event_type_facet(name)))
    }

    /// The AND-ed facets of each of the OR-ed predicates, `None` if unconstrained.
    pub(crate) fn predicate_facets(&self) -> Option<impl Iterator<Item = &[Facet]>> {
        self.predicates.as_ref().map(|predicates| {
            predicates
                .iter()
                .map(|predicate| predicate.facets.as_slice())
        })
    }

    fn has_type(&self, event_type: &str) -> bool {
        self.event_types.as_ref().is_none_or(|types| {
            types
                .binary_search_by(|expected| expected.as_str().cmp(event_type))
                .is_ok()
        })
    }

    fn matches(&self, event_type: &str, payload: &str) -> bool {
        self.has_type(event_type)
            && self.predicates.as_ref().is_none_or(|predicates| {
                predicates
                    .iter()
                    .any(|predicate| predicate.exact.matches(payload))
            })
    }
}

impl CompiledPredicate {
    fn compile(value: &Value) -> Self {
        let mut facets = Vec::new();
        required_facets(value, Path::ROOT, &mut facets);
        facets.sort_unstable();
        facets.dedup();
        Self {
            exact: Predicate::compile(value),
            facets,
        }
    }

    /// `facets`: sorted.
    fn may_match(&self, facets: &[Facet]) -> bool {
        self.facets
            .iter()
            .all(|facet| facets.binary_search(facet).is_ok())
    }
}

type Refusal = (String, Cow<'static, str>);

fn list<'v>(members: &'v Map<String, Value>, key: &str) -> Result<Option<&'v [Value]>, Refusal> {
    match members.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(elements)) => Ok(Some(elements)),
        Some(_) => Err((format!(".{key}"), "must be an array, null or absent".into())),
    }
}

fn filter_to_json(filter: &EventFilter) -> Value {
    let mut members = Map::new();
    if let Some(types) = &filter.event_types {
        members.insert("event_types".to_owned(), types.as_slice().into());
    }
    if let Some(predicates) = &filter.payload_predicates {
        members.insert(
            "payload_predicates".to_owned(),
            Value::Array(predicates.clone()),
        );
    }
    Value::Object(members)
}

/// Filters as the public type, from their text.
pub(crate) fn filters_to_query(text: &str) -> EventQuery {
    let list = |filter: &Value, key: &str| filter.get(key).and_then(Value::as_array).cloned();
    let filters = parse_value(text).unwrap_or_default();
    let filters = filters.as_array().filter(|filters| !filters.is_empty());
    let filters = filters.map(|filters| {
        let filters = filters.iter().map(|filter| EventFilter {
            event_types: list(filter, "event_types").map(|types| {
                let names = types.iter().filter_map(Value::as_str);
                names.map(str::to_owned).collect()
            }),
            payload_predicates: list(filter, "payload_predicates"),
        });
        filters.collect()
    });
    EventQuery {
        filters,
        min_sequence_number: None,
    }
}

/// The filters in a query as release 0.5.2 stored it: `{"filters": …, "min_sequence_number": …}`.
pub(crate) fn filters_of_stored_query(query: &str) -> Option<String> {
    let query = parse_value(query).ok()?;
    match query.get("filters")? {
        filters @ (Value::Null | Value::Array(_)) => Some(filters.to_string()),
        _ => None,
    }
}

fn nested_within(value: &Value, levels: u32) -> bool {
    match value {
        Value::Array(elements) => {
            levels > 0
                && elements
                    .iter()
                    .all(|element| nested_within(element, levels - 1))
        }
        Value::Object(members) => {
            levels > 0
                && members
                    .values()
                    .all(|member| nested_within(member, levels - 1))
        }
        _ => true,
    }
}
