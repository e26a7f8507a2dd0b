//! The gateway's span of a request: begun where tracing is on, and passed on in `traceparent`.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    telemetry::{Span, Traces},
    wire::{TraceParent, kept_state},
};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Begins a span in the client's trace, and names it as the parent of what the upstream does. A client's
/// `traceparent` that is malformed, or that is there twice, begins a new trace, to which its `tracestate` does
/// not belong (W3C Trace Context §3.4).
pub(super) fn begin(traces: &Traces, headers: &mut HeaderMap) -> Option<Box<Span>> {
    let mut given = headers.get_all(TRACEPARENT).iter();
    let parent = match (given.next(), given.next()) {
        (Some(one), None) => TraceParent::parse(one.as_bytes()),
        (Some(_), Some(_)) | (None, _) => None,
    };
    let state = match parent {
        Some(_) => kept_state(headers.get_all(TRACESTATE).iter().map(HeaderValue::as_bytes)),
        None => String::new(),
    };
    let span = Span::begin(&traces.sampler, parent, state)?;
    let sent = HeaderValue::from_bytes(&span.traceparent()).ok()?;
    if parent.is_none() {
        headers.remove(TRACESTATE);
    }
    headers.insert(TRACEPARENT, sent);
    Some(Box::new(span))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::telemetry::{Queue, Sampler, Signal};

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn traces() -> Traces {
        Traces { queue: Arc::new(Queue::new(Signal::Traces)), sampler: Sampler::default() }
    }

    fn headers(fields: &[(HeaderName, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn a_clients_trace_goes_on() {
        let mut map = headers(&[(TRACEPARENT, PARENT), (TRACESTATE, "a=1"), (TRACESTATE, "b=2")]);
        let span = begin(&traces(), &mut map).unwrap();
        let sent = TraceParent::parse(map[TRACEPARENT].as_bytes()).unwrap();
        let given = TraceParent::parse(PARENT.as_bytes()).unwrap();
        assert_eq!((sent.trace_id, sent.sampled), (given.trace_id, true));
        assert_eq!(sent.parent_id, span.span_id);
        assert_eq!(span.parent_id, Some(given.parent_id));
        assert_eq!(span.state, "a=1,b=2");
        let states: Vec<_> = map.get_all(TRACESTATE).iter().collect();
        assert_eq!(states, ["a=1", "b=2"], "passed on as they came");
    }

    #[test]
    fn what_is_not_sampled_is_passed_on_as_such() {
        let not = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        let mut map = headers(&[(TRACEPARENT, not)]);
        assert!(!begin(&traces(), &mut map).unwrap().sampled);
        assert!(!TraceParent::parse(map[TRACEPARENT].as_bytes()).unwrap().sampled);
    }

    #[test]
    fn what_is_malformed_begins_a_new_trace() {
        for fields in [
            &[(TRACESTATE, "a=1")][..],
            &[(TRACEPARENT, "00-0af7651916cd43dd8448eb211c80319c"), (TRACESTATE, "a=1")],
            &[(TRACEPARENT, PARENT), (TRACEPARENT, PARENT), (TRACESTATE, "a=1")],
        ] {
            let mut map = headers(fields);
            let span = begin(&traces(), &mut map).unwrap();
            assert_eq!(span.parent_id, None);
            assert_eq!(map.get_all(TRACEPARENT).iter().count(), 1);
            assert!(!PARENT.as_bytes()[3..35].eq(&map[TRACEPARENT].as_bytes()[3..35]));
            assert!(!map.contains_key(TRACESTATE), "it is of the trace that was not understood");
        }
    }
}
