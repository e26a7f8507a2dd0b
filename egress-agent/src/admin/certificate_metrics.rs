//! How certificates fare: those of a gateway's servers, and those of a node's tunnels.

use std::{fmt, time::SystemTime};

use super::exposition::Exposition;
use crate::tls::{CredentialState, days_left, unix_seconds};

pub(super) fn write(
    states: &[CredentialState],
    now: SystemTime,
    out: &mut Exposition,
) -> fmt::Result {
    let name = "egress_certificate_days_left";
    out.family(name, "gauge", "Whole days until the certificate in use expires; below 0 it has.")?;
    for state in states {
        let Some(end) = state.not_after else { continue };
        out.sample(name, &[("certificate", &state.name)], days_left(end, now))?;
    }
    let name = "egress_certificate_not_after_timestamp_seconds";
    out.family(name, "gauge", "When the certificate in use expires, in seconds since 1970.")?;
    for state in states {
        let Some(end) = state.not_after else { continue };
        out.sample(name, &[("certificate", &state.name)], unix_seconds(end))?;
    }
    let name = "egress_certificate_current";
    out.family(
        name,
        "gauge",
        "Whether the certificate's files, as last read, are what is in use.",
    )?;
    for state in states {
        out.sample(name, &[("certificate", &state.name)], u8::from(state.current))?;
    }
    Ok(())
}
