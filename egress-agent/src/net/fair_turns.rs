//! Turns of a thread, which its sources share alike.
//!
//! A runtime polls its tasks in the order in which they were woken. A source with a thousand busy connections
//! would so have a thousand turns before another one has its next, and a request takes several. Here one task
//! of the runtime polls all that a source has: a few of them at each turn. Then every other source has its
//! turn, and what has come in meanwhile is noticed. So a request waits for as many turns as there are busy
//! sources, whatever each of them asks for.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    fmt,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use futures_util::future::LocalBoxFuture;
use tokio::task::{coop, spawn_local, yield_now};

use super::now::Polling;

/// Most tasks of a source that are polled at one turn.
const TASKS: usize = 32;
/// How long a turn may have lasted when another task is polled. A task may take longer than many others, as
/// one does whose TLS handshake is signed.
const LONGEST: Duration = Duration::from_micros(200);

/// The tasks of one source, which have their turns together.
#[derive(Default)]
pub struct FairTurns {
    tasks: RefCell<Tasks>,
    ready: Arc<Ready>,
    /// Whether a task of the runtime is there for them.
    is_driven: Cell<bool>,
}

/// Tasks that have not ended.
#[derive(Default)]
struct Tasks {
    places: Vec<Option<Task>>,
    free: Vec<usize>,
}

struct Task {
    /// `None` while it is polled.
    future: Option<LocalBoxFuture<'static, ()>>,
    woken: Arc<TaskWaker>,
}

/// Tasks that wait for their turn, in order. Whoever wakes one may be on another thread.
#[derive(Default)]
struct Ready(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Arc<TaskWaker>>,
    /// Set while nothing waits.
    driver: Option<Waker>,
}

/// What wakes a task.
struct TaskWaker {
    place: usize,
    is_waiting: AtomicBool,
    ready: Arc<Ready>,
}

/// How a turn ended.
enum TurnOutcome {
    /// Others wait for theirs.
    Over,
    /// With the last task.
    Last,
}

impl FairTurns {
    /// Runs a task at the turns of this source. It must be called inside a
    /// [`tokio::task::LocalSet`], and the task is dropped with that.
    pub fn spawn(self: &Rc<Self>, future: impl Future<Output = ()> + 'static) {
        let woken = self.tasks.borrow_mut().insert(Box::pin(future), &self.ready);
        woken.wake();
        if !self.is_driven.replace(true) {
            spawn_local(Driver(Rc::clone(self)).run());
        }
    }

    /// Polls tasks that wait, until the turn is over or none waits.
    fn turn(&self, cx: &mut Context<'_>) -> Poll<TurnOutcome> {
        let began = Instant::now();
        let (mut now, mut polled) = (began, 0);
        while let Some(woken) = self.ready.next(cx.waker()) {
            let polling = Polling::at(now);
            self.poll(&woken);
            drop(polling);
            polled += 1;
            now = Instant::now();
            let is_over = polled >= TASKS || !coop::has_budget_remaining();
            if is_over || now.duration_since(began) >= LONGEST {
                return Poll::Ready(TurnOutcome::Over);
            }
        }
        if self.tasks.borrow().is_empty() { Poll::Ready(TurnOutcome::Last) } else { Poll::Pending }
    }

    /// Polls one. A panic ends that task alone, as it would one of the runtime.
    fn poll(&self, woken: &Arc<TaskWaker>) {
        woken.is_waiting.store(false, Ordering::Release);
        // Taken out: what is polled may start another one.
        let Some(mut future) = self.tasks.borrow_mut().take(woken) else { return };
        let waker = Waker::from(Arc::clone(woken));
        let left = catch_unwind(AssertUnwindSafe(move || {
            let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
            polled.is_pending().then_some(future)
        }));
        self.tasks.borrow_mut().put_back(woken, left.ok().flatten());
    }
}

impl Tasks {
    fn insert(
        &mut self,
        future: LocalBoxFuture<'static, ()>,
        ready: &Arc<Ready>,
    ) -> Arc<TaskWaker> {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        let (is_waiting, ready) = (AtomicBool::new(false), Arc::clone(ready));
        let woken = Arc::new(TaskWaker { place, is_waiting, ready });
        let task = Task { future: Some(future), woken: Arc::clone(&woken) };
        if let Some(at) = self.places.get_mut(place) {
            *at = Some(task);
        }
        woken
    }

    /// `None` if the task has ended.
    fn take(&mut self, woken: &Arc<TaskWaker>) -> Option<LocalBoxFuture<'static, ()>> {
        let task = self.places.get_mut(woken.place)?.as_mut()?;
        if Arc::ptr_eq(&task.woken, woken) { task.future.take() } else { None }
    }

    /// What is left of the task, if anything is.
    fn put_back(&mut self, woken: &TaskWaker, future: Option<LocalBoxFuture<'static, ()>>) {
        let Some(place) = self.places.get_mut(woken.place) else { return };
        match (place, future) {
            (Some(task), Some(future)) => task.future = Some(future),
            (place, _) => {
                *place = None;
                self.free.push(woken.place);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.free.len() == self.places.len()
    }
}

impl Ready {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next task that waits. If none does, the driver is woken with the next one.
    fn next(&self, driver: &Waker) -> Option<Arc<TaskWaker>> {
        let mut queue = self.queue();
        let next = queue.waiting.pop_front();
        if next.is_none() {
            queue.driver = Some(driver.clone());
        }
        next
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if self.is_waiting.swap(true, Ordering::AcqRel) {
            return;
        }
        let ready = Arc::clone(&self.ready);
        let driver = {
            let mut queue = ready.queue();
            queue.waiting.push_back(self);
            queue.driver.take()
        };
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

/// The task of the runtime that polls the others.
struct Driver(Rc<FairTurns>);

impl Driver {
    async fn run(self) {
        while let TurnOutcome::Over = poll_fn(|cx| self.0.turn(cx)).await {
            // All others first, and what sockets and timers have to say.
            yield_now().await;
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.is_driven.set(false);
        // The runtime ends: so do they, although each may hold its source and so these turns.
        let left = self.0.tasks.take();
        drop(left);
    }
}

impl fmt::Debug for FairTurns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").field("is_driven", &self.is_driven).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
