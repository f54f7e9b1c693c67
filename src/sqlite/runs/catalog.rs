//! Which runs there are: the rows of `facet_runs` and `index_state`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, params};

use super::builder::RunImage;
use crate::sqlite::failure::{Result, damaged_index, shortened_log};

/// A builder that gave no sign of life for this long is gone: 60 seconds.
const ABANDONED_AFTER_SECONDS: i64 = 60;
const BLOCK_BITS: u32 = 24;

/// A run's place and the first rank of each of its blocks. Runs never change.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) id: i64,
    /// Inclusive.
    pub(crate) first: u64,
    /// Inclusive.
    pub(crate) last: u64,
    pub(super) fences: Vec<u64>,
}

impl Run {
    pub(super) fn block_id(&self, number: usize) -> i64 {
        block_id(self.id, number)
    }

    pub(super) fn block_count(&self) -> usize {
        self.fences.len()
    }
}

fn block_id(run: i64, number: usize) -> i64 {
    run << BLOCK_BITS | number as i64
}

/// The live runs as of one state of the database.
#[derive(Debug, Default)]
pub(crate) struct RunSet {
    generation: i64,
    /// Everything up to here is covered.
    pub(crate) indexed_through: u64,
    /// Ascending.
    pub(crate) runs: Vec<Arc<Run>>,
}

/// The runs that this process has seen, shared by its connections.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    known: Mutex<Arc<RunSet>>,
}

impl Catalog {
    /// Returns the live runs as the connection's transaction sees them, and the head.
    pub(crate) fn load(&self, connection: &Connection) -> Result<(Arc<RunSet>, u64)> {
        let (generation, indexed_through, head) = load_state(connection)?;
        let known = self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if known.generation == generation {
            return Ok((known, head));
        }
        let reusable: HashMap<i64, &Arc<Run>> =
            known.runs.iter().map(|run| (run.id, run)).collect();
        let runs = live_runs(connection, |id| reusable.get(&id).map(|&run| run.clone()))?;
        if runs.last().map_or(0, |run| run.last) != indexed_through {
            return Err(damaged_index(
                "the runs end elsewhere than index_state says",
            ));
        }
        let loaded = Arc::new(RunSet {
            generation,
            indexed_through,
            runs,
        });
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // A connection on an older snapshot must not take the cache back.
        if known.generation < generation {
            *known = loaded.clone();
        }
        Ok((loaded, head))
    }
}

/// Returns the generation, where the index ends and where the log ends.
pub(crate) fn load_state(connection: &Connection) -> Result<(i64, u64, u64)> {
    let state = connection
        .prepare_cached(include_str!("../sql/state.sql"))?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let (generation, indexed_through, head) =
        state.ok_or_else(|| damaged_index("index_state has no row"))?;
    if head < indexed_through {
        return Err(shortened_log(head, indexed_through));
    }
    Ok((generation, indexed_through, head))
}

fn live_runs(
    connection: &Connection,
    known: impl Fn(i64) -> Option<Arc<Run>>,
) -> Result<Vec<Arc<Run>>> {
    let mut statement = connection.prepare_cached(
        "SELECT run_id, first_sequence_number, last_sequence_number FROM facet_runs
         WHERE state = 'live' ORDER BY first_sequence_number",
    )?;
    let rows: Vec<(i64, u64, u64)> = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut fences = connection
        .prepare_cached("SELECT fences, block_count FROM facet_runs WHERE run_id = ?1")?;
    let mut runs = Vec::with_capacity(rows.len());
    let mut covered = 0;
    for (id, first, last) in rows {
        if first != covered + 1 || last < first {
            return Err(damaged_index("the runs don't follow one another"));
        }
        covered = last;
        let run = if let Some(run) = known(id) {
            run
        } else {
            let (fences, blocks): (_, usize) = fences.query_row([id], |row| {
                Ok((decode_fences(row.get_ref(0)?.as_blob()?), row.get(1)?))
            })?;
            if fences.len() != blocks {
                return Err(damaged_index("a run's fences don't fit its blocks"));
            }
            Arc::new(Run {
                id,
                first,
                last,
                fences,
            })
        };
        runs.push(run);
    }
    Ok(runs)
}

fn encode_fences(fences: &[u64]) -> Vec<u8> {
    fences
        .iter()
        .flat_map(|fence| fence.to_le_bytes())
        .collect()
}

fn decode_fences(bytes: &[u8]) -> Vec<u64> {
    bytes
        .chunks_exact(8)
        .map(|bytes| {
            bytes
                .iter()
                .rev()
                .fold(0, |fence, &byte| fence << 8 | u64::from(byte))
        })
        .collect()
}

fn next_run_id(connection: &Connection) -> Result<i64> {
    let sql = "SELECT coalesce(max(run_id), 0) + 1 FROM facet_runs";
    Ok(connection
        .prepare_cached(sql)?
        .query_row([], |row| row.get(0))?)
}

fn now_in_seconds() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as i64)
}

/// Stores a run that goes on where the index ended. `false`: it ended elsewhere, so another process
/// was faster, and nothing was done. Call it in a write transaction.
pub(crate) fn install_new(connection: &Connection, image: &RunImage) -> Result<bool> {
    let sql = "UPDATE index_state SET generation = generation + 1, indexed_through = ?1
               WHERE indexed_through = ?2";
    let moved = connection
        .prepare_cached(sql)?
        .execute([image.last, image.first - 1])?;
    if moved == 0 {
        return Ok(false);
    }
    let id = next_run_id(connection)?;
    insert_blocks(connection, id, 0, &image.blocks)?;
    connection
        .prepare_cached(include_str!("../sql/insert_run.sql"))?
        .execute(params![
            id,
            "live",
            image.first,
            image.last,
            image.blocks.len(),
            encode_fences(&image.fences),
            now_in_seconds(),
        ])?;
    Ok(true)
}

/// Stores some blocks of a run that is being built, and gives a sign of life.
pub(crate) fn insert_blocks(
    connection: &Connection,
    run: i64,
    first_number: usize,
    blocks: &[Vec<u8>],
) -> Result<()> {
    let mut statement = connection
        .prepare_cached("INSERT INTO facet_blocks (block_id, entries) VALUES (?1, ?2)")?;
    for (number, block) in (first_number..).zip(blocks) {
        statement.execute(params![block_id(run, number), block])?;
    }
    let sql = "UPDATE facet_runs SET touched_at = ?2, block_count = ?3
               WHERE run_id = ?1 AND state = 'building'";
    connection.prepare_cached(sql)?.execute(params![
        run,
        now_in_seconds(),
        first_number + blocks.len()
    ])?;
    Ok(())
}

/// Reserves the merge of `inputs` for this process, and returns the new run's id; `None` if another
/// process is at work on any of them. Call it in a write transaction.
pub(crate) fn claim_merge(connection: &Connection, inputs: &[Arc<Run>]) -> Result<Option<i64>> {
    let (Some(first), Some(last)) = (inputs.first(), inputs.last()) else {
        return Ok(None);
    };
    let (first, last) = (first.first, last.last);
    let sql = "SELECT count(*) FILTER (WHERE state = 'live'),
                      count(*) FILTER (WHERE state = 'building')
               FROM facet_runs WHERE state <> 'dead'
               AND first_sequence_number <= ?2 AND last_sequence_number >= ?1";
    let (live, building): (usize, usize) = connection
        .prepare_cached(sql)?
        .query_row([first, last], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if live != inputs.len() || building > 0 {
        return Ok(None);
    }
    let id = next_run_id(connection)?;
    connection
        .prepare_cached(include_str!("../sql/insert_run.sql"))?
        .execute(params![
            id,
            "building",
            first,
            last,
            0,
            [0_u8; 0],
            now_in_seconds(),
        ])?;
    Ok(Some(id))
}

/// Puts a merged run in the place of its inputs. `false`: it was given up as abandoned meanwhile.
/// Call it in a write transaction.
pub(crate) fn install_merged(
    connection: &Connection,
    id: i64,
    fences: &[u64],
    inputs: &[Arc<Run>],
) -> Result<bool> {
    let sql = "UPDATE facet_runs SET state = 'live', fences = ?2
               WHERE run_id = ?1 AND state = 'building' AND block_count = ?3";
    let installed = connection.prepare_cached(sql)?.execute(params![
        id,
        encode_fences(fences),
        fences.len()
    ])?;
    if installed == 0 {
        return Ok(false);
    }
    let mut retire = connection.prepare_cached(
        "UPDATE facet_runs SET state = 'dead', fences = x'' WHERE run_id = ?1 AND state = 'live'",
    )?;
    for input in inputs {
        if retire.execute([input.id])? == 0 {
            return Err(damaged_index("a run was merged twice"));
        }
    }
    connection
        .prepare_cached("UPDATE index_state SET generation = generation + 1")?
        .execute([])?;
    Ok(true)
}

/// Gives up a merge, so that another one need not wait until its claim expires. Call it in a write
/// transaction.
pub(crate) fn give_up_merge(connection: &Connection, id: i64) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE facet_runs SET state = 'dead' WHERE run_id = ?1 AND state = 'building'",
        )?
        .execute([id])?;
    Ok(())
}

/// Returns a run whose blocks are to be removed, with their number: a dead one, or one whose builder
/// is gone, which is dead from now on. Call it in a write transaction.
pub(crate) fn find_doomed(connection: &Connection) -> Result<Option<(i64, usize)>> {
    connection
        .prepare_cached(
            "UPDATE facet_runs SET state = 'dead' WHERE state = 'building' AND touched_at < ?1",
        )?
        .execute([now_in_seconds() - ABANDONED_AFTER_SECONDS])?;
    let mut statement = connection.prepare_cached(
        "SELECT run_id, block_count FROM facet_runs WHERE state = 'dead' ORDER BY run_id LIMIT 1",
    )?;
    let mut rows = statement.query([])?;
    Ok(match rows.next()? {
        Some(row) => Some((row.get(0)?, row.get(1)?)),
        None => None,
    })
}

/// Removes some blocks of a dead run.
pub(crate) fn drop_blocks(
    connection: &Connection,
    run: i64,
    numbers: std::ops::Range<usize>,
) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM facet_blocks WHERE block_id >= ?1 AND block_id < ?2")?
        .execute([block_id(run, numbers.start), block_id(run, numbers.end)])?;
    Ok(())
}

/// Removes a dead run whose blocks are gone.
pub(crate) fn forget_run(connection: &Connection, run: i64) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM facet_runs WHERE run_id = ?1")?
        .execute([run])?;
    Ok(())
}
