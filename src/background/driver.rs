//! The one driver of periodic tasks.
//!
//! Each task runs at an interval with jitter, earlier when its `Notify` is notified, and never twice at once. A panic is
//! caught, logged and counted, and the task starts again from a fresh state. Of each task the metrics hold the last success
//! and the duration.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// What any task may fail with: logged where it is caught, and tried again at the next interval.
pub type TaskError = Box<dyn std::error::Error + Send + Sync>;

/// A periodic task.
pub trait Task: Send + 'static {
    /// Does the work once. What it has to remember until the next time is kept in `self`.
    fn run(&mut self) -> impl Future<Output = Result<(), TaskError>> + Send;
}

/// When a task runs.
#[derive(Clone)]
pub struct Schedule {
    /// From the end of one run to the start of the next.
    pub every: Duration,
    /// How much sooner or later, as a fraction of `every`, so that nodes do not run in step.
    pub jitter: f64,
    /// Whether the first run comes at once, and not after an interval.
    pub is_first_at_once: bool,
    /// Starts the next run early.
    pub wake_up: Arc<Notify>,
}

impl Schedule {
    /// Every so often, ±15 %, for the first time at once.
    pub fn every(every: Duration) -> Self {
        Self { every, jitter: 0.15, is_first_at_once: true, wake_up: Arc::default() }
    }

    /// As [`Self::every`], for the first time after an interval.
    pub fn after(every: Duration) -> Self {
        Self { is_first_at_once: false, ..Self::every(every) }
    }

    /// With the `Notify` that starts a run early.
    pub fn woken_by(self, wake_up: Arc<Notify>) -> Self {
        Self { wake_up, ..self }
    }
}

/// The running tasks, in the order in which they were started.
pub struct BackgroundTasks {
    runtime: Handle,
    stop: watch::Sender<bool>,
    running: Vec<(&'static str, JoinHandle<()>)>,
}

impl BackgroundTasks {
    /// Tasks run on `runtime`.
    pub fn new(runtime: Handle) -> Self {
        Self { runtime, stop: watch::Sender::new(false), running: Vec::new() }
    }

    /// Starts a task; `make` makes its state, now and after a panic.
    pub fn start<T: Task>(
        &mut self,
        name: &'static str,
        schedule: Schedule,
        make: impl Fn() -> T + Send + Sync + 'static,
    ) {
        let stop = self.stop.subscribe();
        self.running.push((name, self.runtime.spawn(drive(name, schedule, make, stop))));
    }

    /// Stops the tasks, the last started first; each ends its present run, all of them within `limit`.
    pub async fn stop(self, limit: Duration) {
        self.stop.send_replace(true);
        let deadline = Instant::now() + limit;
        for (name, mut task) in self.running.into_iter().rev() {
            let left = deadline.saturating_duration_since(Instant::now());
            if tokio::time::timeout(left, &mut task).await.is_err() {
                tracing::warn!(task = name, "a background task did not end in time and is aborted");
                task.abort();
            }
        }
    }
}

async fn drive<T: Task>(name: &'static str, schedule: Schedule, make: impl Fn() -> T, mut stop: watch::Receiver<bool>) {
    let mut task = make();
    let mut is_due = schedule.is_first_at_once;
    loop {
        if !is_due {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(jittered(&schedule)) => {}
                () = schedule.wake_up.notified() => {}
            }
        }
        if *stop.borrow() {
            return;
        }
        is_due = false;
        let began = Instant::now();
        match AssertUnwindSafe(task.run()).catch_unwind().await {
            Ok(Ok(())) => note_success(name),
            Ok(Err(error)) => tracing::debug!(task = name, error = %error, "a background task failed; it runs again"),
            Err(_) => {
                tracing::error!(task = name, "a background task panicked and is restarted");
                metrics::counter!("driver_tracker_actor_restarts_total", "actor" => name).increment(1);
                task = make();
            }
        }
        metrics::gauge!("driver_tracker_background_task_duration_seconds", "task" => name)
            .set(began.elapsed().as_secs_f64());
    }
}

fn jittered(schedule: &Schedule) -> Duration {
    schedule.every.mul_f64(rand::random_range(1.0 - schedule.jitter..=1.0 + schedule.jitter))
}

fn note_success(name: &'static str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    metrics::gauge!("driver_tracker_background_task_last_success_seconds", "task" => name).set(now.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    #[derive(Default)]
    struct Seen {
        runs: AtomicU32,
        made: AtomicU32,
        is_running: AtomicBool,
        overlapped: AtomicBool,
    }

    struct Fragile {
        seen: Arc<Seen>,
        panics_at: u32,
    }

    impl Task for Fragile {
        async fn run(&mut self) -> Result<(), TaskError> {
            let overlaps = self.seen.is_running.swap(true, Ordering::SeqCst);
            self.seen.overlapped.fetch_or(overlaps, Ordering::SeqCst);
            let run = self.seen.runs.fetch_add(1, Ordering::SeqCst) + 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
            self.seen.is_running.store(false, Ordering::SeqCst);
            assert_ne!(run, self.panics_at, "as a bug would");
            if run.is_multiple_of(2) { Err("failed".into()) } else { Ok(()) }
        }
    }

    fn start(schedule: Schedule, panics_at: u32) -> (BackgroundTasks, Arc<Seen>) {
        let seen = Arc::<Seen>::default();
        let mut tasks = BackgroundTasks::new(Handle::current());
        let shared = seen.clone();
        tasks.start("fragile", schedule, move || {
            shared.made.fetch_add(1, Ordering::SeqCst);
            Fragile { seen: shared.clone(), panics_at }
        });
        (tasks, seen)
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_made_again_and_goes_on() {
        let (tasks, seen) = start(Schedule::every(Duration::from_secs(1)), 2);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(seen.made.load(Ordering::SeqCst), 2);
        assert!(seen.runs.load(Ordering::SeqCst) >= 6, "it ran on after the panic");
        tasks.stop(Duration::from_secs(1)).await;
        let runs = seen.runs.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(seen.runs.load(Ordering::SeqCst), runs, "nothing runs after the stop");
    }

    #[tokio::test(start_paused = true)]
    async fn wake_ups_run_a_task_early_and_never_twice_at_once() {
        let wake_up = Arc::<Notify>::default();
        let (tasks, seen) = start(Schedule::after(Duration::from_secs(3600)).woken_by(wake_up.clone()), 0);
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(seen.runs.load(Ordering::SeqCst), 0, "the first run is not due yet");
        for _ in 0..100 {
            wake_up.notify_one();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let runs = seen.runs.load(Ordering::SeqCst);
        assert!((2..=6).contains(&runs), "one run at a time, and one that waits: {runs}");
        assert!(!seen.overlapped.load(Ordering::SeqCst));
        tasks.stop(Duration::from_secs(1)).await;
    }
}
