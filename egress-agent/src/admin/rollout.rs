//! What an agent and a gateway tell each other along with a request for the gateway's health: which revisions of
//! policies they have in force.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;

use crate::source::{NODE_HEADER, REVISIONS_HEADER, Rollout};

/// Takes what the agent says, and adds what this gateway has.
pub(super) fn exchange(
    rollout: &Rollout,
    from: IpAddr,
    request: &HeaderMap,
    response: &mut HeaderMap,
) {
    let text = |name| request.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if let (Some(node), Some(digest)) = (text(NODE_HEADER), text(REVISIONS_HEADER)) {
        rollout.hear_node(Instant::now(), from, node, digest);
    }
    let own = rollout.digest().and_then(|digest| HeaderValue::from_str(&digest).ok());
    if let Some(own) = own {
        response.insert(REVISIONS_HEADER, own);
    }
}
