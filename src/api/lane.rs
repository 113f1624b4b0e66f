//! A thread for imports.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;

use super::error::ApiError;

type Job = Box<dyn FnOnce() + Send>;

/// One thread that writes all batches, one after the other, once there is one.
///
/// They wait for each other in the store anyway. And what a store keeps in memory of what it was
/// given lies in the part of the heap that belongs to the thread which gave it: an import that
/// came from many threads would keep a third more.
#[derive(Default)]
pub(super) struct Lane(Mutex<Option<Running>>);

struct Running {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
}

impl Lane {
    /// Does the work, which must not hold the lane itself, when its turn comes.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (done, answer) = oneshot::channel();
        let job: Job = Box::new(move || {
            // whoever asked may have gone away
            let _ = done.send(work());
        });
        self.push(job)?;
        answer.await.unwrap_or(Err(ApiError::Fallen))
    }

    fn push(&self, job: Job) -> Result<(), ApiError> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if running.as_ref().is_none_or(|running| running.thread.is_finished()) {
            let (jobs, queue) = channel::<Job>();
            let work = move || queue.into_iter().for_each(|job| job());
            let thread = thread::Builder::new().name("selfsame-import".into()).spawn(work);
            let thread = thread.map_err(|_| ApiError::Fallen)?;
            *running = Some(Running { jobs, thread });
        }
        let jobs = running.as_ref().map(|running| &running.jobs);
        jobs.and_then(|jobs| jobs.send(job).ok()).ok_or(ApiError::Fallen)
    }
}

impl Drop for Lane {
    /// Waits for what is being written: after it nobody here holds the store.
    fn drop(&mut self) {
        let running = self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Running { jobs, thread }) = running {
            drop(jobs);
            let _ = thread.join();
        }
    }
}
