//! The thread that watches all runs.
//!
//! It takes each [`Course`] from one stage to the next and never waits for one of them: what may
//! block is done by the threads of the [`BlockingPool`], whose answers arrive here.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, Sender, TryRecvError, unbounded};

use crate::blocking::BlockingPool;
use crate::course::{Course, End, News};
use crate::run::{Finished, Run, RunError};

/// How often what is known of a run is brought up to date.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The way to the thread, which ends when this is dropped and no run is left.
pub(crate) struct Watch {
    messages: Sender<Message>,
    courses: AtomicU64,
}

/// Names a run.
type CourseId = u64;

enum Message {
    Begin(CourseId, Box<Course>),
    News(CourseId, News),
}

/// Has things done that may block, and reports their outcome.
pub(crate) struct Reporter {
    course: CourseId,
    messages: Sender<Message>,
    blocking: Arc<BlockingPool>,
}

impl Watch {
    pub(crate) fn start(blocking: Arc<BlockingPool>) -> io::Result<Watch> {
        let (messages, received) = unbounded();
        std::thread::Builder::new()
            .name("runs".to_owned())
            .spawn(move || work(&received, &blocking))?;
        Ok(Watch {
            messages,
            courses: AtomicU64::new(0),
        })
    }

    /// Watches a run from now on. `on_end` is called on a thread that it may block.
    pub(crate) fn add(
        &self,
        run: Run,
        on_end: impl FnOnce(Result<Finished, RunError>) + Send + 'static,
    ) {
        let (course, blocking) = (
            self.courses.fetch_add(1, Ordering::Relaxed),
            run.pools.blocking().clone(),
        );
        let reporter = Reporter {
            course,
            messages: self.messages.clone(),
            blocking,
        };
        // Without a receiver the course is dropped, which reports an internal error.
        let _ = self.messages.send(Message::Begin(
            course,
            Box::new(Course::new(run, Box::new(on_end), reporter)),
        ));
    }
}

impl Reporter {
    /// Does what may block, elsewhere, and reports what came of it.
    pub(crate) fn ask(&self, work: impl FnOnce() -> News + Send + 'static) {
        let (course, messages) = (self.course, self.messages.clone());
        self.blocking.run(move || {
            let news = catch_unwind(AssertUnwindSafe(work)).unwrap_or(News::Panicked);
            // There is no receiver once the process ends.
            let _ = messages.send(Message::News(course, news));
        });
    }
}

type Courses = BTreeMap<CourseId, Box<Course>>;

fn work(messages: &Receiver<Message>, blocking: &BlockingPool) {
    let mut courses = Courses::new();
    let mut next_look = Instant::now() + LOOK_EVERY;
    loop {
        wait(messages, &courses, next_look);
        loop {
            match messages.try_recv() {
                Ok(Message::Begin(id, course)) => {
                    courses.insert(id, course);
                    step(&mut courses, id, blocking, Course::begin);
                }
                // What comes for a run that has ended may take long to be closed.
                Ok(Message::News(id, news)) if !courses.contains_key(&id) => {
                    blocking.run(move || drop(news))
                }
                Ok(Message::News(id, news)) => {
                    step(&mut courses, id, blocking, |course| course.handle(news))
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        let now = Instant::now();
        let is_look_due = now >= next_look;
        if is_look_due {
            next_look = now + LOOK_EVERY;
        }
        for id in courses.keys().copied().collect::<Vec<_>>() {
            step(&mut courses, id, blocking, |course| {
                if is_look_due {
                    course.look();
                }
                course.advance(now)
            });
        }
    }
}

/// Takes a run a step further, and lets it go when that ends it. A panic is its own.
fn step(
    courses: &mut Courses,
    id: CourseId,
    blocking: &BlockingPool,
    step: impl FnOnce(&mut Course) -> End,
) {
    let Some(course) = courses.get_mut(&id) else {
        return;
    };
    let end = catch_unwind(AssertUnwindSafe(|| step(course))).unwrap_or_else(|_| course.abort());
    if let Some(end) = end
        && let Some(course) = courses.remove(&id)
    {
        // Its plan and its state may take long to be closed.
        blocking.run(move || course.end(end));
    }
}

/// Waits until there is something to do.
fn wait(messages: &Receiver<Message>, courses: &Courses, until: Instant) {
    let mut select = Select::new();
    select.recv(messages);
    courses
        .values()
        .for_each(|course| course.listen(&mut select));
    let until = courses
        .values()
        .filter_map(|course| course.due())
        .fold(until, Instant::min);
    // Whether something is ready or the time is up: everything is looked at.
    let _ = select.ready_deadline(until);
}
