//! The statements of a store, with the name of its schema in them.

/// Leaves the planner no choice, as the functions' own settings do.
pub(super) const NO_CHOICE: &str = "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off;
  SET enable_mergejoin = off; SET enable_material = off; SET plan_cache_mode = force_generic_plan; SET jit = off";

pub(super) struct Statements {
    pub(super) name: String,
    /// The quoted name of the schema.
    pub(super) schema: String,
    pub(super) append: String,
    pub(super) settle: String,
    pub(super) page: String,
    /// In sessions with [`NO_CHOICE`].
    pub(super) few: String,
    pub(super) events: String,
    pub(super) batches: String,
    pub(super) batches_of: String,
    pub(super) head: String,
    pub(super) notify: String,
    pub(super) take_lease: String,
    pub(super) touch: String,
    pub(super) store_cursors: String,
    pub(super) release: String,
    pub(super) lost_leases: String,
    pub(super) list_streams: String,
    pub(super) change_stream: String,
    pub(super) forget_store: String,
}

impl Statements {
    pub(super) fn new(name: &str) -> Self {
        let schema = quoted(name);
        let call = |function: &str, arguments: usize| {
            let places: Vec<String> = (1..=arguments).map(|place| format!("${place}")).collect();
            let places = places.join(",");
            format!("SELECT * FROM {schema}.{function}({places})")
        };
        Self {
            name: name.to_owned(),
            append: call("factstr_append", 21),
            settle: call("factstr_settle", 2),
            page: call("factstr_page", 9),
            few: call("factstr_few", 4),
            events: call("factstr_events", 5),
            batches: call("factstr_batches", 2),
            batches_of: call("factstr_batches_of", 1),
            head: format!("SELECT coalesce(max(sequence_number), 0) FROM {schema}.events"),
            notify: call("factstr_notify", 0),
            take_lease: call("factstr_take_lease", 5),
            touch: call("factstr_touch", 1),
            store_cursors: call("factstr_store_cursors", 4),
            release: call("factstr_release", 4),
            lost_leases: call("factstr_lost_leases", 3),
            list_streams: format!(
                "SELECT s.name, s.filters, s.position, s.owner, {schema}.factstr_is_alive(s.owner),
                   (SELECT max(e.sequence_number) FROM {schema}.events e)
                 FROM {schema}.durable_streams s ORDER BY s.name"
            ),
            change_stream: call("factstr_change_stream", 4),
            forget_store: call("factstr_forget_store", 1),
            schema,
        }
    }

    /// A text of SQL with the schema in its places, of which those in strings are `{literal}`.
    pub(super) fn with_schema(&self, sql: &str) -> String {
        let literal = self.schema.replace('\'', "''");
        let parts = sql.split("{literal}");
        let parts: Vec<String> = parts
            .map(|part| part.replace("{schema}", &self.schema))
            .collect();
        parts.join(&literal)
    }
}

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
