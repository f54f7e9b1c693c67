//! A group of appends as the arguments of `factstr_append`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write;

use tokio_postgres::types::{ToSql, Type};

use super::plan::Plan;
use crate::appending::{AppendRequest, Condition};
use crate::payload::{PreparedEvent, with_exact_numbers};
use crate::selection::ContextVersions;

/// The most events that one row of postings has, and the distance that they stay below. The functions
/// rely on the latter.
const ROW_EVENTS: usize = 64;
const ROW_SPAN: i32 = 1_024;

/// The arguments but the writer, the number and the look, in the order of the function's.
#[derive(Debug, Default)]
pub(super) struct Group<'r> {
    sizes: Vec<i32>,
    event_types: Vec<&'r str>,
    /// Compared by the server, which has decimals.
    payloads: Vec<Cow<'r, str>>,
    postings: Postings,
    batch_firsts: Vec<i32>,
    batch_lasts: Vec<i32>,
    conditions: Conditions,
}

#[derive(Debug, Default)]
struct Postings {
    facets: Vec<i64>,
    lasts: Vec<i32>,
    befores: Vec<Option<String>>,
}

#[derive(Debug, Default)]
struct Conditions {
    request: Vec<i32>,
    expected: Vec<i64>,
    known: Vec<i64>,
    context: Vec<Option<String>>,
    watch_condition: Vec<i32>,
    watch_facet: Vec<i64>,
    watch_after: Vec<i64>,
    after_condition: Vec<i32>,
    after_request: Vec<i32>,
    after_place: Vec<i32>,
}

/// A facet, and the place among the group's events (from 1) of one that has it.
type Posting = (i64, i32);

impl<'r> Group<'r> {
    pub(super) fn of(requests: &'r [AppendRequest], versions: &ContextVersions) -> Self {
        let mut group = Self::default();
        let mut events = Vec::new();
        let mut request_of = Vec::new();
        let mut postings: Vec<Posting> = Vec::new();
        for (request, index) in requests.iter().zip(1..) {
            let first = events.len() as i32 + 1;
            for event in request.batch.events() {
                let place = events.len() as i32 + 1;
                group.event_types.push(event.event_type);
                group.payloads.push(with_exact_numbers(event.payload));
                postings.extend(event.facets.iter().map(|&facet| (facet as i64, place)));
                events.push(event);
                request_of.push(index);
            }
            let last = events.len() as i32;
            group.sizes.push(last - first + 1);
            if last > first {
                group.batch_firsts.push(first);
                group.batch_lasts.push(last);
            }
        }
        // In the order of the index, so that neighbours are written together.
        postings.sort_unstable();
        for (request, index) in requests.iter().zip(1..) {
            if let Some(condition) = &request.condition {
                let earlier = Earlier {
                    events: &events,
                    request_of: &request_of,
                    postings: &postings,
                };
                group.conditions.add(condition, index, versions, &earlier);
            }
        }
        group.postings.fill(&postings);
        group
    }

    pub(super) fn arguments(&self) -> [(&(dyn ToSql + Sync), Type); 18] {
        let Conditions {
            request,
            expected,
            known,
            context,
            watch_condition,
            watch_facet,
            watch_after,
            after_condition,
            after_request,
            after_place,
        } = &self.conditions;
        [
            (&self.sizes, Type::INT4_ARRAY),
            (&self.event_types, Type::TEXT_ARRAY),
            (&self.payloads, Type::TEXT_ARRAY),
            (&self.postings.facets, Type::INT8_ARRAY),
            (&self.postings.lasts, Type::INT4_ARRAY),
            (&self.postings.befores, Type::TEXT_ARRAY),
            (&self.batch_firsts, Type::INT4_ARRAY),
            (&self.batch_lasts, Type::INT4_ARRAY),
            (request, Type::INT4_ARRAY),
            (expected, Type::INT8_ARRAY),
            (known, Type::INT8_ARRAY),
            (context, Type::TEXT_ARRAY),
            (watch_condition, Type::INT4_ARRAY),
            (watch_facet, Type::INT8_ARRAY),
            (watch_after, Type::INT8_ARRAY),
            (after_condition, Type::INT4_ARRAY),
            (after_request, Type::INT4_ARRAY),
            (after_place, Type::INT4_ARRAY),
        ]
    }
}

impl Postings {
    /// `postings`: sorted.
    fn fill(&mut self, postings: &[Posting]) {
        let mut rest = postings;
        while let Some(&(facet, first)) = rest.first() {
            let row = rest
                .iter()
                .take(ROW_EVENTS)
                .take_while(|&&(other, place)| other == facet && place - first < ROW_SPAN)
                .count();
            let (row, after) = rest.split_at(row);
            rest = after;
            let Some((&(_, last), before)) = row.split_last() else {
                break;
            };
            self.facets.push(facet);
            self.lasts.push(last);
            self.befores.push((!before.is_empty()).then(|| {
                let mut text = String::from("{");
                for (_, place) in before {
                    let _ = write!(text, "{},", last - place);
                }
                text.pop();
                text.push('}');
                text
            }));
        }
    }
}

/// Rows of postings of stored events, for an index that is built anew.
#[derive(Debug, Default)]
pub(super) struct StoredPostings {
    postings: Vec<Posting>,
}

impl StoredPostings {
    /// `place`: how far the event is from where the rows begin.
    pub(super) fn add(&mut self, place: i32, facets: &[u64]) {
        let facets = facets.iter().map(|&facet| (facet as i64, place));
        self.postings.extend(facets);
    }

    /// Facets, places of the last events, and distances of the others.
    pub(super) fn take_rows(&mut self) -> (Vec<i64>, Vec<i32>, Vec<Option<String>>) {
        self.postings.sort_unstable();
        let mut rows = Postings::default();
        rows.fill(&self.postings);
        self.postings.clear();
        (rows.facets, rows.lasts, rows.befores)
    }
}

/// The events of a group.
struct Earlier<'e> {
    events: &'e [PreparedEvent<'e>],
    /// By place.
    request_of: &'e [i32],
    /// Sorted.
    postings: &'e [Posting],
}

impl Conditions {
    fn add(
        &mut self,
        condition: &Condition,
        request: i32,
        versions: &ContextVersions,
        earlier: &Earlier,
    ) {
        let Condition { query, expected } = condition;
        self.request.push(request);
        self.expected.push(match *expected {
            None => 0,
            // No event has this number.
            Some(0) => -1,
            Some(expected) => i64::try_from(expected).unwrap_or(i64::MAX),
        });
        let this = self.request.len() as i32;
        if query.filters().is_none() {
            // Every event belongs to the context.
            self.known.push(-1);
            self.context.push(None);
            return;
        }
        let plan = Plan::of(query);
        self.context.push(Some(plan.to_json(query)));
        let watched = plan.watched();
        let known = match versions.known(query) {
            Some(known) if known.version == *expected => Some(known.head as i64),
            _ if expected.is_none() => Some(0),
            _ => None,
        };
        match (&watched, known) {
            (Some(watched), Some(known)) => {
                self.known.push(known);
                for &facet in watched {
                    self.watch_condition.push(this);
                    self.watch_facet.push(facet);
                    self.watch_after.push(known);
                }
            }
            _ => self.known.push(-1),
        }
        for (after, place) in earlier.newest_matches(condition, watched.as_deref(), request) {
            self.after_condition.push(this);
            self.after_request.push(after);
            self.after_place.push(place);
        }
    }
}

impl Earlier<'_> {
    /// The newest match of each request before `request`, ascending by request.
    fn newest_matches(
        &self,
        condition: &Condition,
        watched: Option<&[i64]>,
        request: i32,
    ) -> Vec<(i32, i32)> {
        let before = self.request_of.partition_point(|&other| other < request) as i32;
        let mut newest: HashMap<i32, i32> = HashMap::new();
        let mut consider = |place: i32| {
            let at = place as usize - 1;
            let other = self.request_of[at];
            if newest.get(&other).is_none_or(|&known| known < place)
                && condition.query.matches_prepared(&self.events[at])
            {
                newest.insert(other, place);
            }
        };
        match watched {
            None => (1..=before).for_each(&mut consider),
            Some(watched) => {
                for &facet in watched {
                    let start = self.postings.partition_point(|&at| at < (facet, 0));
                    self.postings[start..]
                        .iter()
                        .take_while(|&&(other, place)| other == facet && place <= before)
                        .for_each(|&(_, place)| consider(place));
                }
            }
        }
        let mut newest: Vec<(i32, i32)> = newest.into_iter().collect();
        newest.sort_unstable();
        newest
    }
}
