//! `rateLimit` to the limits of a gateway.

use std::sync::Arc;

use super::super::{
    annotations::{Annotations, RATE_LIMIT},
    decode::{Cx, Spanned},
    egress_policy::EgressProtocol,
    rate_limit::{RateLimit as Mirror, RateOf},
};
use crate::policy::{Protocol, Rate, RateLimit};

/// The greatest rate, so that an API server's `int32` holds it.
pub(in crate::config) const MAX_RATE: u32 = 2_147_483_647;

/// A limit that `label` sets, on ports of these protocols.
pub(super) fn rate_limit(
    mirror: &Mirror,
    label: &str,
    protocols: &[Protocol],
    cx: &mut Cx<'_>,
) -> Arc<RateLimit> {
    let Mirror { at, requests, connections, bytes } = mirror;
    let http = protocols.contains(&Protocol::Http);
    let other = protocols.iter().any(|protocol| *protocol != Protocol::Http);
    for (field, given, counted, expected) in [
        ("requests", requests.is_some(), http, "a port of HTTP"),
        ("connections", connections.is_some(), other, "a port of TLS or TCP"),
    ] {
        if given && !counted && !protocols.is_empty() {
            let message = format!("{field} are not counted on any of the ports here");
            cx.wrong(&at.field(field), "none", expected, message);
        }
    }
    if requests.is_none() && connections.is_none() && bytes.is_none() {
        let expected = "requests, connections or bytes";
        cx.wrong(at, "nothing", expected, "a limit that limits nothing");
    }
    let [requests, connections, bytes] =
        [requests, connections, bytes].map(|of| of.as_ref().and_then(|of| rate(of, cx)));
    Arc::new(RateLimit { label: label.into(), requests, connections, bytes })
}

/// The limit of a service entry's annotation.
pub(super) fn annotated(
    annotations: &Annotations,
    label: &str,
    protocols: &[Protocol],
    cx: &mut Cx<'_>,
) -> Option<Arc<RateLimit>> {
    let mirror = annotations.record::<Mirror>(RATE_LIMIT, cx)?;
    Some(rate_limit(&mirror, label, protocols, cx))
}

fn rate(RateOf { at: _, per_second, burst }: &RateOf, cx: &mut Cx<'_>) -> Option<Rate> {
    let per_second = number(per_second.as_ref()?, cx);
    let burst = burst.as_ref().map_or(per_second, |burst| number(burst, cx));
    Some(Rate { per_second, burst })
}

fn number(given: &Spanned<u32>, cx: &mut Cx<'_>) -> u32 {
    if !(1..=MAX_RATE).contains(&given.value) {
        let expected = format!("1 to {MAX_RATE}");
        let message =
            "a rate of 0 would refuse everything; leave the host out of the rules for that";
        cx.wrong(&given.at, given.value.to_string(), expected, message);
    }
    given.value.clamp(1, MAX_RATE)
}

impl From<EgressProtocol> for Protocol {
    fn from(protocol: EgressProtocol) -> Self {
        match protocol {
            EgressProtocol::Http => Self::Http,
            EgressProtocol::Tls => Self::Tls,
            EgressProtocol::Tcp => Self::Tcp,
        }
    }
}
