//! Callers that take steps for some time, as `sample` of benchmarks/measure.mjs has them: futures of one thread.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use serde_json::{Value, json};

use crate::Outcome;
use crate::usage::Usage;

/// Keeps `callers` at work for some seconds; `step` resolves to how many it did.
pub(crate) async fn run(
    callers: usize,
    seconds: f64,
    step: impl AsyncFn() -> Outcome<u64>,
) -> Outcome<Value> {
    let limit = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    let times = RefCell::new(Vec::new());
    let usage = Usage::now();
    let start = Instant::now();
    let lane = async || {
        let mut count = 0;
        while start.elapsed() < limit {
            let began = Instant::now();
            count += step().await?;
            times.borrow_mut().push(began.elapsed());
        }
        Ok::<u64, String>(count)
    };
    let counts = try_join_all((0..callers).map(|_| lane())).await?;
    let elapsed = start.elapsed().as_secs_f64();
    let usage = usage.told();
    let count: u64 = counts.into_iter().sum();
    let mut times = times.into_inner();
    times.sort_unstable();
    let percentile = |hundredth: usize| {
        let time = times.get(times.len() * hundredth / 100);
        time.map(|time| time.as_secs_f64() * 1e6)
    };
    Ok(json!({
        "rate": count as f64 / elapsed,
        "count": count,
        "latency": { "0.5": percentile(50), "0.99": percentile(99) },
        "usage": usage,
    }))
}
