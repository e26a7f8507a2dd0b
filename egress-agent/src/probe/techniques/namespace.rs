//! The network namespace at the other end of the pod's interface, which is the node's: rtnetlink acts there
//! for whoever names it by its id and has `CAP_NET_ADMIN` in the user namespace that owns it. A pod without a
//! user namespace of its own has that.

use std::io;

use super::super::{
    attempt::{AttemptResult, RunningAttempt},
    outcome::{Call, Errno, Outcome},
};
use crate::sys::netlink::namespaces::{interfaces_in, other_ends};

/// Asks for the names of the interfaces there, and changes nothing.
pub(crate) fn list(this: &RunningAttempt<'_>) -> AttemptResult {
    let numbers = this.needed("rtnetlink", other_ends())?;
    let mut last = Outcome::NotApplicable("no interface leads into another namespace".into());
    for number in numbers {
        match answer(interfaces_in(number)) {
            Ok(listed) => return Ok(listed),
            Err(outcome) => last = outcome,
        }
    }
    Err(last)
}

/// What the kernel's answer means.
fn answer(listed: io::Result<Vec<String>>) -> AttemptResult {
    match listed {
        Ok(names) if names.is_empty() => {
            Err(Outcome::NotApplicable("the other namespace has no interfaces".into()))
        }
        Ok(names) => Ok(Outcome::Answered(format!(
            "the kernel lists the interfaces at the other end: {}",
            names.join(", ")
        ))),
        Err(error) => Err(Outcome::Refused { call: Call::Netlink, errno: Errno::of(&error).0 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listed_is_out_of_the_pod_and_what_is_refused_is_not() {
        let listed = answer(Ok(vec!["eth0".into(), "pod0".into()])).unwrap();
        assert!(matches!(&listed, Outcome::Answered(text) if text.ends_with("eth0, pod0")));
        let refused = answer(Err(io::Error::from_raw_os_error(libc::EPERM))).unwrap_err();
        assert_eq!(refused.detail(), "asking rtnetlink: EPERM");
        assert!(matches!(answer(Ok(Vec::new())), Err(Outcome::NotApplicable(_))));
    }
}
