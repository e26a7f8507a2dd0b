//! Whether what a rule sends to a destination is what is spoken there.

use super::lookup::Traffic;
use crate::policy::Protocol;

/// Why it is not, as a sentence. `tls` is what the gateway starts, `connect` a proxy's `tunnel`.
pub(super) fn misfit(
    traffic: Traffic,
    spoken: Protocol,
    tls: bool,
    connect: bool,
    name: &str,
) -> Option<String> {
    match traffic {
        Traffic::Http if spoken == Protocol::Tls && !tls => {
            Some(format!("plain HTTP must not be sent to {name}, which is declared to speak TLS"))
        }
        Traffic::Http if connect => Some(format!(
            "the DestinationRule for {name} has a tunnel, which is for TLS and TCP: a request of HTTP \
             would be the proxy's own"
        )),
        // A proxy is spoken to in TLS, and what the application encrypts is inside of that.
        Traffic::Tls if tls && !connect => {
            Some(format!("TLS to {name} would be wrapped in TLS again"))
        }
        Traffic::Http | Traffic::Tls | Traffic::Tcp => None,
    }
}
