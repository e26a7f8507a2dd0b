//! HTTP/1: a strict codec without I/O ([`head`], [`body`], [`encode`]), a connection on top of it,
//! and the two ends of the proxy.

mod body;
mod encode;
mod head;
mod inbound;
mod names;
mod outbound;
mod sender;
mod stream;

pub(super) use self::{
    body::{Decoder, Step},
    encode::{whole_body as encode_body, whole_request as encode_request},
    head::{EndOfHead, HeadLimits, RequestHead, ResponseHead, is_forbidden_trailer, parse_request},
    inbound::H1Inbound,
    outbound::{H1Outbound, UpstreamIo},
    sender::Sender,
    stream::Stream,
};
