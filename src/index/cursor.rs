use crate::payload::{CompiledFilter, CompiledQuery, Facet};

/// A driver this short is rechecked faster than its candidates are looked up elsewhere.
const RECHECK_AT_ONCE: u64 = 16;

/// A contiguous part of the log with postings.
pub(crate) trait Segment {
    /// The postings of one facet.
    type List: PostingList;

    /// Opens the postings of a facet, `None` if no event of the segment has it.
    fn open(&self, facet: Facet) -> Result<Option<Self::List>, <Self::List as PostingList>::Error>;
}

/// The ascending sequence numbers of a segment's events that have one facet.
pub(crate) trait PostingList {
    /// Why postings could not be read.
    type Error;

    /// About how many there are.
    fn estimate(&self) -> u64;
    /// The first one at or after `from`.
    fn next_at_or_after(&mut self, from: u64) -> Result<Option<u64>, Self::Error>;
    /// The last one at or before `from`.
    fn prev_at_or_before(&mut self, from: u64) -> Result<Option<u64>, Self::Error>;
}

/// The candidates of a query in one segment.
pub(crate) enum Cursor<L> {
    /// Every event is one.
    Every,
    Nothing,
    List(L),
    /// At least two, the shortest first.
    And(Vec<Cursor<L>>),
    /// At least two.
    Or(Vec<Cursor<L>>),
}

impl<L: PostingList> Cursor<L> {
    pub(crate) fn open<S: Segment<List = L>>(
        segment: &S,
        query: &CompiledQuery,
    ) -> Result<Self, L::Error> {
        let Some(filters) = query.filters() else {
            return Ok(Self::Every);
        };
        let alternatives = filters
            .iter()
            .map(|filter| Self::open_filter(segment, filter));
        Ok(Self::or(alternatives.collect::<Result<_, _>>()?))
    }

    fn open_filter<S: Segment<List = L>>(
        segment: &S,
        filter: &CompiledFilter,
    ) -> Result<Self, L::Error> {
        let mut parts = Vec::with_capacity(2);
        if let Some(predicates) = filter.predicate_facets() {
            let alternatives = predicates.map(|facets| Self::open_all(segment, facets));
            parts.push(Self::or(alternatives.collect::<Result<_, _>>()?));
        }
        if let (Some(types), false) = (filter.event_type_facets(), Self::is_hopeless(&parts)) {
            let alternatives = types.map(|facet| Self::open_facet(segment, facet));
            parts.push(Self::or(alternatives.collect::<Result<_, _>>()?));
        }
        Ok(Self::and(parts))
    }

    fn open_all<S: Segment<List = L>>(segment: &S, facets: &[Facet]) -> Result<Self, L::Error> {
        let mut parts = Vec::with_capacity(facets.len());
        for &facet in facets {
            parts.push(Self::open_facet(segment, facet)?);
            if Self::is_hopeless(&parts) {
                break;
            }
        }
        Ok(Self::and(parts))
    }

    fn open_facet<S: Segment<List = L>>(segment: &S, facet: Facet) -> Result<Self, L::Error> {
        Ok(segment.open(facet)?.map_or(Self::Nothing, Self::List))
    }

    /// Whether the last of the AND-ed parts already rules out every event.
    fn is_hopeless(parts: &[Self]) -> bool {
        matches!(parts.last(), Some(Self::Nothing))
    }

    fn and(mut parts: Vec<Self>) -> Self {
        if parts.iter().any(|part| matches!(part, Self::Nothing)) {
            return Self::Nothing;
        }
        parts.retain(|part| !matches!(part, Self::Every));
        parts.sort_by_cached_key(Self::estimate);
        if parts.len() > 1 && parts[0].estimate() <= RECHECK_AT_ONCE {
            parts.truncate(1);
        }
        if parts.len() > 1 {
            Self::And(parts)
        } else {
            parts.pop().unwrap_or(Self::Every)
        }
    }

    fn or(mut parts: Vec<Self>) -> Self {
        if parts.iter().any(|part| matches!(part, Self::Every)) {
            return Self::Every;
        }
        parts.retain(|part| !matches!(part, Self::Nothing));
        if parts.len() > 1 {
            Self::Or(parts)
        } else {
            parts.pop().unwrap_or(Self::Nothing)
        }
    }

    fn estimate(&self) -> u64 {
        match self {
            Self::Every => u64::MAX,
            Self::Nothing => 0,
            Self::List(list) => list.estimate(),
            Self::And(parts) => parts.iter().map(Self::estimate).min().unwrap_or(0),
            Self::Or(parts) => parts
                .iter()
                .fold(0, |sum, part| sum.saturating_add(part.estimate())),
        }
    }

    /// The first candidate at or after `from`.
    pub(crate) fn next_at_or_after(&mut self, from: u64) -> Result<Option<u64>, L::Error> {
        match self {
            Self::Every => Ok(Some(from)),
            Self::Nothing => Ok(None),
            Self::List(list) => list.next_at_or_after(from),
            Self::Or(parts) => {
                let mut first: Option<u64> = None;
                for part in parts {
                    let found = part.next_at_or_after(from)?;
                    first = [first, found].into_iter().flatten().min();
                }
                Ok(first)
            }
            Self::And(parts) => leapfrog(parts, from, Self::next_at_or_after),
        }
    }

    /// The last candidate at or before `from`.
    pub(crate) fn prev_at_or_before(&mut self, from: u64) -> Result<Option<u64>, L::Error> {
        match self {
            Self::Every => Ok(Some(from)),
            Self::Nothing => Ok(None),
            Self::List(list) => list.prev_at_or_before(from),
            Self::Or(parts) => {
                let mut last: Option<u64> = None;
                for part in parts {
                    last = last.max(part.prev_at_or_before(from)?);
                }
                Ok(last)
            }
            Self::And(parts) => leapfrog(parts, from, Self::prev_at_or_before),
        }
    }
}

/// Moves all parts to the first position that they share, by steps of `seek` in its direction.
fn leapfrog<C, E>(
    parts: &mut [C],
    from: u64,
    seek: fn(&mut C, u64) -> Result<Option<u64>, E>,
) -> Result<Option<u64>, E> {
    let mut position = from;
    'shortest: loop {
        let Some(candidate) = seek(&mut parts[0], position)? else {
            return Ok(None);
        };
        for part in &mut parts[1..] {
            match seek(part, candidate)? {
                None => return Ok(None),
                Some(found) if found == candidate => {}
                Some(further) => {
                    position = further;
                    continue 'shortest;
                }
            }
        }
        return Ok(Some(candidate));
    }
}
