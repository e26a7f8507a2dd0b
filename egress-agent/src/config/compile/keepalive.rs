//! `tcpKeepalive`, of a destination rule or of `mesh.yaml`.

use std::time::Duration;

use super::super::{
    decode::{Cx, Spanned},
    destination_rule::TcpKeepalive,
};
use crate::policy::Keepalive;

/// Linux takes whole seconds up to 32767, and up to 127 probes (`tcp(7)`).
pub(super) fn keepalive(settings: &TcpKeepalive, cx: &mut Cx<'_>) -> Keepalive {
    const MOST: Duration = Duration::from_secs(32_767);
    let TcpKeepalive { at: _, probes, time, interval } = settings;
    let default = Keepalive::default();
    let whole = |duration: &Option<Spanned<Duration>>, default: Duration, cx: &mut Cx<'_>| {
        let Some(Spanned { at, value }) = duration else { return default };
        if !(Duration::from_secs(1)..=MOST).contains(value) {
            let found = format!("{}s", value.as_secs_f64());
            cx.wrong(at, found, "1s to 32767s", "the kernel has no such time between probes");
        }
        Duration::from_secs(value.as_secs())
    };
    if let Some(probes) = probes.as_ref().filter(|probes| !(1..=127).contains(&probes.value)) {
        cx.wrong(&probes.at, probes.value.to_string(), "1 to 127", "not a number of probes");
    }
    Keepalive {
        time: whole(time, default.time, cx),
        interval: whole(interval, default.interval, cx),
        probes: probes.as_ref().map_or(default.probes, |probes| probes.value),
    }
}
