//! How a program is spoken to that keeps a store and measures it: by lines of JSON.

use std::any::Any;
use std::io::{self, BufRead, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::work::Command;
use crate::{Outcome, Store, measure, work};

/// How long a step may go on that was begun before the input ended.
const GRACE: Duration = Duration::from_secs(10);

/// Opens the store that the arguments name, and does what it is told until the input ends.
pub(crate) fn serve(open: impl FnOnce(&[&str]) -> Outcome<Store>) -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let store = match guarded(|| open(&arguments)) {
        Ok(store) => store,
        Err(error) => {
            answer(&json!({ "error": error }))?;
            std::process::exit(1);
        }
    };
    answer(&json!({ "ready": true }))?;
    for line in lines() {
        let done = guarded(|| {
            let command: Command =
                serde_json::from_str(&line).map_err(|error| error.to_string())?;
            work::run(&store, &command)
        });
        answer(&done.unwrap_or_else(|error| json!({ "error": error })))?;
    }
    Ok(())
}

/// Lines are read beside the work, so that the end of the input is seen while it runs.
fn lines() -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if !line.trim().is_empty() && sender.send(line).is_err() {
                return;
            }
        }
        measure::stop();
        drop(sender);
        thread::sleep(GRACE);
        std::process::exit(1);
    });
    receiver
}

fn answer(value: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()
}

/// A panic is an error like any other.
fn guarded<T>(work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(told(&*panic)))
}

/// What a panic said.
pub(crate) fn told(panic: &(dyn Any + Send)) -> String {
    let said = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", said.unwrap_or("nothing was said"))
}
