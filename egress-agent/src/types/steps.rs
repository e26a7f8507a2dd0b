//! Steps of work that has to stay in proportion to its input. Tests count them, so that growth is
//! asserted without a clock; everywhere else counting costs nothing.

#[cfg(test)]
thread_local! {
    static TAKEN: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Counts steps: items that were looked at, patterns that were compared.
#[inline]
pub(crate) fn count(steps: usize) {
    #[cfg(test)]
    TAKEN.with(|taken| taken.set(taken.get() + u64::try_from(steps).unwrap_or(u64::MAX)));
    #[cfg(not(test))]
    let _ = steps;
}

/// What the work yields, and the steps that this thread took for it.
#[cfg(test)]
pub(crate) fn of<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before = TAKEN.with(std::cell::Cell::get);
    let result = work();
    (result, TAKEN.with(std::cell::Cell::get) - before)
}
