//! The gateway's own part in a trace.

use aws_lc_rs::rand;

use super::Sampler;
use crate::wire::TraceParent;

/// The span of one request, and what its trace is called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Span {
    /// The trace: the client's, or a new one.
    pub trace_id: [u8; 16],
    /// The gateway's span.
    pub span_id: [u8; 8],
    /// The client's, if it sent one that could be read.
    pub parent_id: Option<[u8; 8]>,
    /// Whether it is exported.
    pub sampled: bool,
    /// `tracestate`, as far as it is kept.
    pub state: String,
}

impl Span {
    /// In the trace of `parent`, or in a new one. `None` where the system has no random numbers.
    #[must_use]
    pub fn begin(sampler: &Sampler, parent: Option<TraceParent>, state: String) -> Option<Self> {
        let trace_id = match &parent {
            Some(parent) => parent.trace_id,
            None => random()?,
        };
        Some(Self {
            trace_id,
            span_id: random()?,
            parent_id: parent.map(|parent| parent.parent_id),
            sampled: sampler.samples(parent.map(|parent| parent.sampled), trace_id),
            state,
        })
    }

    /// What the upstream is sent as `traceparent`.
    #[must_use]
    pub fn traceparent(&self) -> [u8; TraceParent::LENGTH] {
        let (trace_id, parent_id) = (self.trace_id, self.span_id);
        TraceParent { trace_id, parent_id, sampled: self.sampled }.text()
    }
}

/// Random bytes; all zero is no id.
fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).ok()?;
    (bytes != [0; N]).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::otlp::Root;

    #[test]
    fn a_span_continues_its_clients_trace_or_begins_one() {
        let sampler = Sampler { root: Root::AlwaysOn, parent_based: true };
        let text = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        let parent = TraceParent::parse(text);
        let span = Span::begin(&sampler, parent, "a=1".into()).unwrap();
        let sent = TraceParent::parse(&span.traceparent()).unwrap();
        assert_eq!(sent.trace_id, parent.unwrap().trace_id);
        assert_eq!(span.parent_id, parent.map(|parent| parent.parent_id));
        assert_ne!(Some(sent.parent_id), span.parent_id);
        assert!(!sent.sampled, "the client's choice counts");
        let other = Span::begin(&sampler, None, String::new()).unwrap();
        assert_ne!(other.trace_id, span.trace_id);
        assert_eq!(other.parent_id, None);
        assert!(TraceParent::parse(&other.traceparent()).unwrap().sampled);
    }
}
