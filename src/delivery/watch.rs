use std::collections::HashMap;
use std::sync::Arc;

use super::batch::CommittedBatch;
use super::subscription::Subscription;
use crate::payload::{CompiledQuery, Facet, FacetHash};

type Ids = Vec<u64>;

/// Which streams a batch may concern, found by its facets: what it costs an append does not depend
/// on the number of streams.
#[derive(Default)]
pub(super) struct Watch {
    streams: HashMap<u64, Arc<Subscription>>,
    /// Streams without filters, or with a predicate that no facet selects.
    every: Ids,
    /// Each alternative of a query is found by one of its facets.
    by_facet: HashMap<Facet, Ids, FacetHash>,
}

impl Watch {
    pub(super) fn insert(&mut self, id: u64, stream: Arc<Subscription>) {
        match watched_facets(stream.query()) {
            None => self.every.push(id),
            Some(facets) => {
                for facet in facets {
                    self.by_facet.entry(facet).or_default().push(id);
                }
            }
        }
        self.streams.insert(id, stream);
    }

    pub(super) fn remove(&mut self, id: u64) {
        let Some(stream) = self.streams.remove(&id) else {
            return;
        };
        let Some(facets) = watched_facets(stream.query()) else {
            self.every.retain(|&other| other != id);
            return;
        };
        for facet in facets {
            if let Some(ids) = self.by_facet.get_mut(&facet) {
                ids.retain(|&other| other != id);
                if ids.is_empty() {
                    self.by_facet.remove(&facet);
                }
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }

    pub(super) fn streams(&self) -> impl Iterator<Item = &Arc<Subscription>> {
        self.streams.values()
    }

    /// The streams of which an event of the batch may be a match.
    pub(super) fn candidates(&self, batch: &CommittedBatch) -> Vec<Arc<Subscription>> {
        let mut ids = self.every.clone();
        if !self.by_facet.is_empty() {
            let facets = batch.batch.events().flat_map(|event| event.facets);
            for found in facets.filter_map(|facet| self.by_facet.get(facet)) {
                ids.extend_from_slice(found);
            }
            ids.sort_unstable();
            ids.dedup();
        }
        let streams = ids.iter().filter_map(|id| self.streams.get(id));
        streams.cloned().collect()
    }
}

/// Facets of which every matching event has at least one; `None`: there is no such set.
fn watched_facets(query: &CompiledQuery) -> Option<Vec<Facet>> {
    let mut watched = Vec::new();
    for filter in query.filters()? {
        let types = || filter.event_type_facets().map(Iterator::collect::<Vec<_>>);
        let chosen = match filter.predicate_facets() {
            // A predicate says more than a type does.
            Some(predicates) => {
                let one_each: Option<Vec<Facet>> =
                    predicates.map(|facets| facets.first().copied()).collect();
                one_each.or_else(types)
            }
            None => types(),
        };
        watched.extend(chosen?);
    }
    watched.sort_unstable();
    watched.dedup();
    Some(watched)
}
