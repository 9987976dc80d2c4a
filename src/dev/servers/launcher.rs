//! Starts child processes from one thread that never ends.
//!
//! The kernel sends the parent-death signal when the *thread* that forked the child ends. A child of a worker thread, or of
//! the thread of one test, would get the signal when that thread ends. So this thread starts all children.

use std::io;
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::process::POLL;

type Job = (Command, Sender<io::Result<Child>>);

static LAUNCHER: OnceLock<Option<Sender<Job>>> = OnceLock::new();

/// Starts `command` from the thread that never ends.
pub(super) fn spawn(command: Command) -> io::Result<Child> {
    let gone = || io::Error::other("the thread that starts servers has ended");
    let launcher = LAUNCHER.get_or_init(start_thread).as_ref().ok_or_else(gone)?;
    let (reply, answer) = channel();
    launcher.send((command, reply)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

fn start_thread() -> Option<Sender<Job>> {
    let (sender, jobs) = channel::<Job>();
    let serve = move || {
        // The loop never ends, because the static sender is never dropped.
        for (mut command, reply) in jobs {
            let _ = reply.send(command.spawn());
        }
    };
    thread::Builder::new().name("server-launcher".to_owned()).spawn(serve).ok()?;
    Some(sender)
}

/// Runs a tool and returns its output. Kills it after `limit`. The output must be smaller than a pipe's buffer.
pub(super) fn run(mut command: Command, limit: Duration) -> io::Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(command)?;
    let deadline = Instant::now() + limit;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("not finished after {} s", limit.as_secs())));
        }
        thread::sleep(POLL);
    }
    child.wait_with_output()
}
