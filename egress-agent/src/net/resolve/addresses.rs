//! What a look-up found, and the wait for both families. No I/O: questions are futures.

use std::{future::Future, net::IpAddr, pin::pin, time::Duration};

use futures_util::future::{Either, select};
use tokio::time::{sleep, timeout};

use super::{cache::Addresses, error::ResolveError};

/// With addresses of one family at hand, how long the other's are waited for (RFC 8305 §3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);
/// How long they are waited for after that, in the background: for the cache.
const STRAGGLER: Duration = Duration::from_secs(2);

/// The addresses of one family, with their life.
pub(super) type Records = (Vec<IpAddr>, Duration);

/// Addresses of a name; of at least one family.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ResolvedAddresses {
    pub(super) v4: Vec<IpAddr>,
    pub(super) v6: Vec<IpAddr>,
    pub(super) ttl: Duration,
    /// Whether both families were answered, be it that there are none.
    pub(super) is_whole: bool,
}

impl ResolvedAddresses {
    /// All, IPv4 first.
    pub(super) fn addresses(&self) -> Addresses {
        let mut all: Vec<IpAddr> =
            self.v4.iter().chain(&self.v6).map(IpAddr::to_canonical).collect();
        all.dedup();
        all.into()
    }
}

/// Asks for both families at once. As soon as addresses of one are there and the other has had 50 ms
/// more, `early` gets them. The result has both, or what came within two seconds.
pub(super) async fn both(
    v4: impl Future<Output = Result<Records, ResolveError>>,
    v6: impl Future<Output = Result<Records, ResolveError>>,
    early: impl FnOnce(&ResolvedAddresses),
) -> Result<ResolvedAddresses, ResolveError> {
    let v4 = pin!(v4);
    let v6 = pin!(v6);
    match select(v4, v6).await {
        Either::Left((first, second)) => with_other(first, second, merge, early).await,
        Either::Right((first, second)) => {
            with_other(first, second, |v6, v4, is_whole| merge(v4, v6, is_whole), early).await
        }
    }
}

async fn with_other(
    first: Result<Records, ResolveError>,
    second: impl Future<Output = Result<Records, ResolveError>> + Unpin,
    merge: impl Fn(Option<Records>, Option<Records>, bool) -> Option<ResolvedAddresses>,
    early: impl FnOnce(&ResolvedAddresses),
) -> Result<ResolvedAddresses, ResolveError> {
    let first = match first {
        Ok(records) => records,
        // It does not exist with either.
        Err(ResolveError::NoSuchName) => return Err(ResolveError::NoSuchName),
        Err(why) => {
            return match second.await {
                Ok(records) => merge(None, Some(records), why.is_about_the_name())
                    .ok_or(ResolveError::NoAddress),
                // That the other family has nothing doesn't make this one's failure an answer.
                Err(ResolveError::NoAddress) => Err(why),
                Err(other) => Err(other),
            };
        }
    };
    let second = match select(second, pin!(sleep(RESOLUTION_DELAY))).await {
        Either::Left((second, _)) => Some(second),
        Either::Right(((), second)) => {
            if let Some(found) = merge(Some(first.clone()), None, false) {
                early(&found);
            }
            timeout(STRAGGLER, second).await.ok()
        }
    };
    let is_whole = match &second {
        Some(Ok(_)) => true,
        Some(Err(why)) => why.is_about_the_name(),
        None => false,
    };
    merge(Some(first), second.and_then(Result::ok), is_whole).ok_or(ResolveError::NoAddress)
}

fn merge(v4: Option<Records>, v6: Option<Records>, is_whole: bool) -> Option<ResolvedAddresses> {
    let ttl = [&v4, &v6].into_iter().flatten().map(|(_, ttl)| *ttl).min()?;
    let list = |records: Option<Records>| records.map(|(list, _)| list).unwrap_or_default();
    let found = ResolvedAddresses { v4: list(v4), v6: list(v6), ttl, is_whole };
    (!found.v4.is_empty() || !found.v6.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    fn records(ip: &str, seconds: u64) -> Result<Records, ResolveError> {
        Ok((vec![ip.parse().unwrap()], Duration::from_secs(seconds)))
    }

    async fn after<T>(milliseconds: u64, value: T) -> T {
        sleep(Duration::from_millis(milliseconds)).await;
        value
    }

    fn texts(found: &ResolvedAddresses) -> Vec<String> {
        found.addresses().iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn a_family_that_is_never_answered_costs_nothing() {
        for v4_answers in [true, false] {
            let mut seen = Vec::new();
            let early = |found: &ResolvedAddresses| seen = texts(found);
            let (result, expected) = if v4_answers {
                let v4 = after(10, records("198.51.100.7", 60));
                (both(v4, pending(), early).await, "198.51.100.7")
            } else {
                let v6 = after(10, records("2001:db8::7", 60));
                (both(pending(), v6, early).await, "2001:db8::7")
            };
            assert_eq!(seen, [expected]);
            let found = result.unwrap();
            assert_eq!((texts(&found), found.is_whole), (vec![expected.to_owned()], false));
        }
    }

    #[tokio::test]
    async fn a_family_that_is_a_little_late_is_waited_for() {
        let v4 = after(10, records("198.51.100.7", 60));
        let v6 = after(40, records("2001:db8::7", 30));
        let found = both(v4, v6, |_| panic!("both are there")).await.unwrap();
        assert_eq!(texts(&found), ["198.51.100.7", "2001:db8::7"]);
        assert_eq!(found.ttl, Duration::from_secs(30));
        // A later one is added.
        let mut early = None;
        let (v4, v6) = (after(300, records("198.51.100.7", 60)), records("2001:db8::7", 30));
        let found = both(v4, ready(v6), |found| early = Some(texts(found))).await.unwrap();
        assert_eq!(early.unwrap(), ["2001:db8::7"]);
        assert_eq!(texts(&found), ["198.51.100.7", "2001:db8::7"]);
    }

    #[tokio::test]
    async fn only_what_both_say_is_that_there_is_none() {
        use ResolveError as Error;
        let early = |_: &ResolvedAddresses| panic!("nothing is there");
        let none = || ready(Err(Error::NoAddress));
        assert_eq!(both(none(), none(), early).await, Err(Error::NoAddress));
        let absent = ready(Err(Error::NoSuchName));
        assert_eq!(both(absent, pending(), early).await, Err(Error::NoSuchName));
        let late = after(60, Err(Error::Timeout));
        assert_eq!(both(none(), late, early).await, Err(Error::Timeout));
        let late = after(60, Err(Error::NoAddress));
        assert_eq!(both(ready(Err(Error::Timeout)), late, early).await, Err(Error::Timeout));
        let found = both(none(), after(9, records("2001:db8::7", 9)), early).await.unwrap();
        assert_eq!((texts(&found), found.is_whole), (vec!["2001:db8::7".into()], true));
        // A failure is no answer.
        let failed = after(9, Err(Error::Timeout));
        let found = both(ready(records("198.51.100.7", 60)), failed, early).await.unwrap();
        assert_eq!((texts(&found), found.is_whole), (vec!["198.51.100.7".into()], false));
        let failed = ready(Err(Error::Timeout));
        let found = both(failed, after(9, records("2001:db8::7", 9)), early).await.unwrap();
        assert!(!found.is_whole);
    }
}
