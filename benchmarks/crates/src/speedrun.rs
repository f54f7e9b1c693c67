//! The course speedrun: in each iteration ten courses and ten students are registered, then every student
//! is enrolled on every course; one caller, one operation after the other.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use factstr::{EventFilter, EventQuery, NewEvent};
use serde_json::{Value, json};

use crate::measure::{Figures, Step, is_stopped};
use crate::work::committed;
use crate::{Outcome, Store};

const COURSES: usize = 10;
const STUDENTS: usize = 10;
/// Students that a course takes, courses that a student may take; their registrations tell.
const LIMIT: u64 = 30;

const ENROLLED: &str = "student-enrolled";

#[derive(Clone, Copy)]
struct Kind {
    registered: &'static str,
    key: &'static str,
    limit: &'static str,
}

const COURSE: Kind = Kind {
    registered: "course-registered",
    key: "course_id",
    limit: "capacity",
};
const STUDENT: Kind = Kind {
    registered: "student-registered",
    key: "student_id",
    limit: "limit",
};

/// Whole iterations, until so many seconds have passed.
pub(crate) fn run(store: &Store, seconds: f64) -> Outcome<Figures> {
    let limit = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    // No two runs have the same ids.
    let run = SystemTime::now().duration_since(UNIX_EPOCH);
    let run = run.unwrap_or_default().as_nanos();
    let mut figures = Figures::default();
    let start = Instant::now();
    for iteration in 0.. {
        if start.elapsed() >= limit || is_stopped() {
            break;
        }
        let name = |kind: &str, which: usize| format!("{kind}-{run:x}-{iteration}-{which}");
        let courses: Vec<_> = (0..COURSES).map(|which| name("course", which)).collect();
        let students: Vec<_> = (0..STUDENTS).map(|which| name("student", which)).collect();
        let mut step = |operation: &dyn Fn() -> Outcome<Step>| {
            let began = Instant::now();
            match operation()? {
                done @ Step::Done(_) => figures.add(done, began.elapsed()),
                _ => return Err("the only caller of a speedrun was refused".to_owned()),
            }
            Ok(())
        };
        for id in &courses {
            step(&|| register(store, COURSE, id))?;
        }
        for id in &students {
            step(&|| register(store, STUDENT, id))?;
        }
        for student in &students {
            for course in &courses {
                step(&|| enrol(store, student, course))?;
            }
        }
    }
    figures.elapsed = start.elapsed();
    Ok(figures)
}

fn register(store: &Store, kind: Kind, id: &str) -> Outcome<Step> {
    let payload = json!({ kind.key: id, kind.limit: LIMIT });
    let same = EventFilter::for_event_types([kind.registered])
        .with_payload_predicates([json!({ kind.key: id })]);
    let context = EventQuery::all().with_filters([same]);
    let found = store.query(&context).map_err(|error| error.to_string())?;
    if !found.event_records.is_empty() {
        return Err(format!("{id} is registered already"));
    }
    let fact = NewEvent::new(kind.registered, payload);
    committed(store.append_if(vec![fact], &context, found.current_context_version))
}

fn enrol(store: &Store, student: &str, course: &str) -> Outcome<Step> {
    let part = |kind: Kind, id: &str| {
        EventFilter::for_event_types([kind.registered, ENROLLED])
            .with_payload_predicates([json!({ kind.key: id })])
    };
    let context = EventQuery::all().with_filters([part(COURSE, course), part(STUDENT, student)]);
    let found = store.query(&context).map_err(|error| error.to_string())?;

    let (mut places, mut limit) = (None, None);
    let (mut taken, mut courses) = (0, 0);
    for fact in &found.event_records {
        let is = |key: &str, id: &str| fact.payload.get(key).and_then(Value::as_str) == Some(id);
        let (of_course, of_student) = (is(COURSE.key, course), is(STUDENT.key, student));
        if fact.event_type == COURSE.registered {
            places = fact.payload.get(COURSE.limit).and_then(Value::as_u64);
        } else if fact.event_type == STUDENT.registered {
            limit = fact.payload.get(STUDENT.limit).and_then(Value::as_u64);
        } else if of_course && of_student {
            return Err(format!("{student} is enrolled on {course} already"));
        } else {
            taken += u64::from(of_course);
            courses += u64::from(of_student);
        }
    }
    let (Some(places), Some(limit)) = (places, limit) else {
        return Err(format!("{student} or {course} is not registered"));
    };
    if taken >= places || courses >= limit {
        return Err(format!("{course} is full, or {student} has enough"));
    }
    let payload = json!({ STUDENT.key: student, COURSE.key: course });
    let fact = NewEvent::new(ENROLLED, payload);
    committed(store.append_if(vec![fact], &context, found.current_context_version))
}
