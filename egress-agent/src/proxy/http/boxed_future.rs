//! The memory of the future that serves a request: large while a request is under way, and used again by the
//! next one, whichever connection that is of.

use std::{
    any::{Any, TypeId},
    cell::RefCell,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

/// Futures of each kind whose memory a thread keeps.
const KEPT: usize = 64;

/// By the kind of future: there are as many as there are kinds of connections.
type FreeBoxes = Vec<(TypeId, Vec<Box<dyn Any>>)>;

thread_local!(static KEPT_PLACES: RefCell<FreeBoxes> = RefCell::default());

/// A future, in a place that was another one's before.
#[derive(Debug)]
pub(super) struct BoxedFuture<F: Future + 'static>(Option<Box<Pin<Box<Option<F>>>>>);

impl<F: Future + 'static> BoxedFuture<F> {
    pub(super) fn new(future: F) -> Self {
        let mut place = take().unwrap_or_else(|| Box::new(Box::pin(None)));
        Pin::as_mut(&mut *place).set(Some(future));
        Self(Some(place))
    }
}

fn take<F: 'static>() -> Option<Box<Pin<Box<Option<F>>>>> {
    let place = KEPT_PLACES.try_with(|kept| {
        let mut kept = kept.borrow_mut();
        let (_, places) = kept.iter_mut().find(|(kind, _)| *kind == TypeId::of::<F>())?;
        places.pop()
    });
    place.ok().flatten()?.downcast().ok()
}

fn give_back<F: 'static>(place: Box<Pin<Box<Option<F>>>>) {
    let place: Box<dyn Any> = place;
    let kept = KEPT_PLACES.try_with(|kept| {
        let (mut kept, kind) = (kept.borrow_mut(), TypeId::of::<F>());
        match kept.iter_mut().find(|(its, _)| *its == kind) {
            Some((_, places)) if places.len() < KEPT => places.push(place),
            Some(_) => {}
            None => kept.push((kind, vec![place])),
        }
    });
    // A thread that ends keeps nothing.
    kept.unwrap_or_default();
}

impl<F: Future + 'static> Future for BoxedFuture<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let future = self.0.as_mut().and_then(|place| Pin::as_mut(&mut **place).as_pin_mut());
        match future {
            Some(future) => future.poll(cx),
            // Only once it is dropped.
            None => Poll::Pending,
        }
    }
}

impl<F: Future + 'static> Drop for BoxedFuture<F> {
    fn drop(&mut self) {
        if let Some(mut place) = self.0.take() {
            Pin::as_mut(&mut *place).set(None);
            give_back(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        panic::{AssertUnwindSafe, catch_unwind},
        rc::Rc,
    };

    use futures_util::FutureExt as _;

    use super::*;
    use crate::sys::allocations::Allocations;

    #[test]
    fn the_next_one_of_a_kind_asks_for_no_memory() {
        let one = |number: [u64; 100]| async move { number.iter().sum::<u64>() };
        assert_eq!(BoxedFuture::new(one([1; 100])).now_or_never(), Some(100));
        let before = Allocations::here();
        for number in 0..100 {
            assert_eq!(BoxedFuture::new(one([number; 100])).now_or_never(), Some(100 * number));
        }
        assert_eq!((Allocations::here() - before).made, 0);
        // Others have places of their own.
        assert_eq!(BoxedFuture::new(ready("else")).now_or_never(), Some("else"));
    }

    #[test]
    fn what_a_future_holds_goes_with_it() {
        let held = Rc::new(());
        let its = Rc::clone(&held);
        let waiting = async move {
            pending::<()>().await;
            drop(its);
        };
        drop(BoxedFuture::new(waiting));
        assert_eq!(Rc::strong_count(&held), 1);
        let its = Rc::clone(&held);
        let failing = async move {
            let _its = its;
            panic!("a fault that a test asked for");
        };
        let failed = catch_unwind(AssertUnwindSafe(|| BoxedFuture::new(failing).now_or_never()));
        assert!(failed.is_err());
        assert_eq!(Rc::strong_count(&held), 1);
    }
}
