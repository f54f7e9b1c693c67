//! How a query finds its candidates by their facets.

use std::fmt::Write;

use crate::payload::{CompiledFilter, CompiledQuery, Facet, with_exact_numbers};

/// The OR-ed alternatives of a query, each AND-ed sets of OR-ed facets: all its matches are among the
/// events that one alternative selects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// `None`: nothing is known of the matches, every event is a candidate.
    pub(super) selection: Option<Selection>,
}

/// See `factstr_candidates` in `functions.sql`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Selection {
    /// All sets, one after the other.
    pub(super) facets: Vec<i64>,
    /// Where each set ends.
    pub(super) sets: Vec<i32>,
    /// Where the sets of each alternative end.
    pub(super) alternatives: Vec<i32>,
}

impl Plan {
    pub(super) fn of(query: &CompiledQuery) -> Self {
        let selection = query.filters().and_then(|filters| {
            let mut selection = Selection::default();
            filters
                .iter()
                .all(|filter| selection.add(filter))
                .then_some(selection)
        });
        Self { selection }
    }

    /// One set of each alternative: every match has a facet of one of them. Empty if there is nothing
    /// to match, `None` if every event is a candidate.
    pub(super) fn watched(&self) -> Option<Vec<i64>> {
        let selection = self.selection.as_ref()?;
        let mut watched = Vec::new();
        let mut first_set = 0;
        for &end in &selection.alternatives {
            watched.extend_from_slice(selection.set(first_set));
            first_set = end as usize;
        }
        watched.sort_unstable();
        watched.dedup();
        Some(watched)
    }

    /// For `factstr_newest`.
    pub(super) fn to_json(&self, query: &CompiledQuery) -> String {
        let filters = with_exact_numbers(query.text());
        let mut json = String::new();
        let _ = match &self.selection {
            None => write!(
                json,
                r#"{{"facets":null,"sets":[],"alternatives":[],"filters":{filters}}}"#
            ),
            Some(Selection {
                facets,
                sets,
                alternatives,
            }) => write!(
                json,
                r#"{{"facets":{facets:?},"sets":{sets:?},"alternatives":{alternatives:?},"filters":{filters}}}"#
            ),
        };
        json
    }
}

impl Selection {
    /// The one facet that all candidates have, if a facet is what the plan begins with; and whether it is all that
    /// makes one.
    pub(super) fn first_facet(&self) -> Option<(i64, bool)> {
        let leads = self.alternatives.len() == 1 && self.sets.first() == Some(&1);
        leads.then(|| (self.facets[0], self.sets.len() == 1))
    }

    /// `false`: every event is a candidate.
    fn add(&mut self, filter: &CompiledFilter) -> bool {
        let types: Option<Vec<Facet>> = filter.event_type_facets().map(Iterator::collect);
        if types.as_ref().is_some_and(Vec::is_empty) {
            return true;
        }
        let Some(predicates) = filter.predicate_facets() else {
            return self.add_alternative(&[], types.as_deref());
        };
        let mut selects = true;
        for facets in predicates {
            selects &= self.add_alternative(facets, types.as_deref());
        }
        selects
    }

    fn add_alternative(&mut self, facets: &[Facet], types: Option<&[Facet]>) -> bool {
        // A predicate mostly says more than a type, so it is tried first.
        for &facet in facets {
            self.add_set(&[facet]);
        }
        if let Some(types) = types {
            self.add_set(types);
        }
        self.alternatives.push(self.sets.len() as i32);
        !facets.is_empty() || types.is_some()
    }

    fn add_set(&mut self, facets: &[Facet]) {
        self.facets.extend(facets.iter().map(|&facet| facet as i64));
        self.sets.push(self.facets.len() as i32);
    }

    fn set(&self, index: usize) -> &[i64] {
        let start = index
            .checked_sub(1)
            .map_or(0, |before| self.sets[before] as usize);
        &self.facets[start..self.sets[index] as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::Plan;
    use crate::payload::CompiledQuery;

    fn plan(filters: &str) -> Plan {
        Plan::of(&CompiledQuery::from_json(filters).unwrap())
    }

    #[test]
    fn what_has_no_facet_selects_every_event() {
        assert_eq!(plan("null").selection, None);
        assert_eq!(plan("[{}]").selection, None);
        assert_eq!(plan(r#"[{"payload_predicates":[{}]}]"#).selection, None);
        let one_of_two = r#"[{"event_types":["a"]},{"payload_predicates":[{}]}]"#;
        assert_eq!(plan(one_of_two).selection, None);
    }

    #[test]
    fn an_empty_list_selects_nothing() {
        for filters in [
            r#"[{"event_types":[]}]"#,
            r#"[{"event_types":["a"],"payload_predicates":[]}]"#,
        ] {
            assert_eq!(plan(filters).watched(), Some(vec![]), "{filters}");
        }
    }

    #[test]
    fn each_predicate_is_an_alternative_of_its_facets_and_the_types() {
        let plan =
            plan(r#"[{"event_types":["a","b"],"payload_predicates":[{"x":1,"y":2},{"z":3}]}]"#);
        let selection = plan.selection.clone().unwrap();
        assert_eq!(selection.sets, [1, 2, 4, 5, 7]);
        assert_eq!(selection.alternatives, [3, 5]);
        assert_eq!(plan.watched().unwrap().len(), 2);
    }
}
