use std::thread;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    runtime,
    sync::oneshot,
    task::LocalSet,
};

use super::*;

/// Runs it as a worker's thread does.
fn on_a_thread<T>(future: impl Future<Output = T>) -> T {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(LocalSet::new().run_until(future))
}

/// One step of work that leaves more to do at once.
async fn step() {
    let mut stepped = false;
    poll_fn(|cx| {
        if stepped {
            return Poll::Ready(());
        }
        stepped = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Until nothing is left of the source's tasks.
async fn all_ended(turns: &FairTurns) {
    while turns.is_driven.get() || !turns.tasks.borrow().is_empty() {
        yield_now().await;
    }
}

/// How many steps 800 tasks without an end make, which belong to as many sources as there are `sources`,
/// while a task of another source makes 20.
fn steps_of_others(sources: usize) -> usize {
    on_a_thread(async {
        let steps = Rc::new(Cell::new(0));
        let sources: Vec<_> = (0..sources).map(|_| Rc::<FairTurns>::default()).collect();
        for source in sources.iter().cycle().take(800) {
            let steps = Rc::clone(&steps);
            source.spawn(async move {
                loop {
                    step().await;
                    steps.set(steps.get() + 1);
                }
            });
        }
        let (told, done) = oneshot::channel();
        Rc::<FairTurns>::default().spawn(async move {
            for _ in 0..20 {
                step().await;
                yield_now().await;
            }
            told.send(()).unwrap();
        });
        done.await.unwrap();
        steps.get()
    })
}

#[test]
fn a_source_has_one_turn_for_one_of_another_whatever_it_has_to_do() {
    let seen = steps_of_others(1);
    assert!(seen <= 50 * TASKS, "{seen}");
    // As it is where every connection is its own source.
    let seen = steps_of_others(800);
    assert!(seen >= 20 * 700, "{seen}");
}

#[test]
fn all_tasks_of_a_source_go_on() {
    let steps = Rc::new(RefCell::new(vec![0; 100]));
    on_a_thread(async {
        let turns = Rc::<FairTurns>::default();
        let (told, done) = oneshot::channel();
        let mut told = Some(told);
        for task in 0..100 {
            let (steps, mut told) = (Rc::clone(&steps), told.take());
            turns.spawn(async move {
                for _ in 0..50 {
                    step().await;
                    steps.borrow_mut()[task] += 1;
                }
                if let Some(told) = told.take() {
                    told.send(()).unwrap();
                }
            });
        }
        done.await.unwrap();
    });
    let (least, most) =
        (*steps.borrow().iter().min().unwrap(), *steps.borrow().iter().max().unwrap());
    assert!(most - least <= 1, "{least} to {most}");
}

#[test]
fn a_panic_ends_its_own_task_alone() {
    on_a_thread(async {
        let turns = Rc::<FairTurns>::default();
        let (told, done) = oneshot::channel();
        turns.spawn(async {
            step().await;
            panic!("on purpose");
        });
        turns.spawn(async move {
            for _ in 0..10 {
                step().await;
            }
            told.send(()).unwrap();
        });
        done.await.unwrap();
        all_ended(&turns).await;
    });
}

#[test]
fn a_task_starts_others_and_another_one_takes_its_place_when_it_has_ended() {
    on_a_thread(async {
        let turns = Rc::<FairTurns>::default();
        let (end, ends) = oneshot::channel::<()>();
        turns.spawn(async move { ends.await.unwrap() });
        for _ in 0..3 {
            let (told, done) = oneshot::channel();
            let inner = Rc::clone(&turns);
            turns.spawn(async move {
                step().await;
                inner.spawn(async move { told.send(()).unwrap() });
            });
            done.await.unwrap();
            while turns.tasks.borrow().free.len() < 2 {
                yield_now().await;
            }
        }
        assert_eq!(turns.tasks.borrow().places.len(), 3);
        end.send(()).unwrap();
        all_ended(&turns).await;
    });
}

#[test]
fn a_task_is_woken_from_another_thread() {
    on_a_thread(async {
        let turns = Rc::<FairTurns>::default();
        let (ask, asked) = oneshot::channel();
        let (told, done) = oneshot::channel();
        turns.spawn(async move {
            let answer: u8 = asked.await.unwrap();
            told.send(answer).unwrap();
        });
        yield_now().await;
        let other = thread::spawn(move || ask.send(7).unwrap());
        assert_eq!(done.await.unwrap(), 7);
        other.join().unwrap();
    });
}

#[test]
fn a_busy_source_keeps_no_other_one_from_its_socket() {
    on_a_thread(async {
        let busy = Rc::<FairTurns>::default();
        for _ in 0..100 {
            busy.spawn(async {
                loop {
                    step().await;
                }
            });
        }
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let (told, done) = oneshot::channel();
        Rc::<FairTurns>::default().spawn(async move {
            for byte in 0..10_u8 {
                assert_eq!(near.read_u8().await.unwrap(), byte);
                near.write_u8(byte).await.unwrap();
            }
            told.send(()).unwrap();
        });
        for byte in 0..10_u8 {
            far.write_u8(byte).await.unwrap();
            assert_eq!(far.read_u8().await.unwrap(), byte);
        }
        done.await.unwrap();
    });
}

#[test]
fn tasks_are_dropped_with_their_runtime() {
    struct Dropped(Rc<Cell<usize>>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    let (dropped, turns) = (Rc::new(Cell::new(0)), Rc::<FairTurns>::default());
    on_a_thread(async {
        for _ in 0..2 {
            let (held, own) = (Dropped(Rc::clone(&dropped)), Rc::clone(&turns));
            turns.spawn(async move {
                std::future::pending::<()>().await;
                drop((held, own));
            });
        }
        yield_now().await;
    });
    assert_eq!(dropped.get(), 2);
    assert_eq!(Rc::strong_count(&turns), 1);
}
