//! `headers`: what a rule changes of them.

use crate::{
    config::{
        decode::{Cx, Dict, Spanned},
        log_format::{Place, header_segments},
        names,
        virtual_service::{HeaderChanges, Headers},
    },
    policy::{HeaderOps, HeaderText},
    types::log::Segment,
};

/// Changes that come after those of a rule.
pub(super) fn append(ops: &mut HeaderOps, more: HeaderOps) {
    let HeaderOps { set, add, remove } = more;
    ops.set.extend(set);
    ops.add.extend(add);
    ops.remove.extend(remove);
}

/// Changes that come before those of a rule, so that it undoes what it sets or removes itself.
pub(super) fn prepend(ops: &mut HeaderOps, first: HeaderOps) {
    let HeaderOps { mut set, mut add, mut remove } = first;
    let undone = |name: &http::HeaderName| {
        ops.remove.contains(name) || ops.set.iter().any(|(own, _)| own == name)
    };
    set.retain(|(name, _)| !undone(name));
    add.retain(|(name, _)| !undone(name));
    set.append(&mut ops.set);
    add.append(&mut ops.add);
    remove.append(&mut ops.remove);
    *ops = HeaderOps { set, add, remove };
}

/// `Host` or `:authority` among the headers of the request that are set or added: it takes the
/// place of the request's.
pub(super) fn authority(headers: Option<&Headers>) -> Option<&Spanned<String>> {
    let HeaderChanges { at: _, set, add, remove: _ } = headers?.request.as_ref()?;
    let mut all = set.0.iter().chain(&add.0);
    all.find(|(name, _)| is_authority(name)).map(|(_, value)| value)
}

fn is_authority(name: &Spanned<String>) -> bool {
    name.value.eq_ignore_ascii_case("host") || name.value == ":authority"
}

pub(super) fn header_ops(headers: Option<&Headers>, cx: &mut Cx<'_>) -> (HeaderOps, HeaderOps) {
    let Some(Headers { at: _, request, response }) = headers else {
        return (HeaderOps::default(), HeaderOps::default());
    };
    let mut one = |changes: &Option<HeaderChanges>, is_request: bool| {
        let Some(HeaderChanges { at: _, set, add, remove }) = changes else {
            return HeaderOps::default();
        };
        let place = if is_request { Place::Request } else { Place::Response };
        let mut read = |all: &Dict<Spanned<String>>| -> Vec<_> {
            let own = all.0.iter().filter(|(name, _)| !(is_request && is_authority(name)));
            own.filter_map(|(name, value)| header(name, value, place, cx)).collect()
        };
        let (set, add) = (read(set), read(add));
        HeaderOps {
            set,
            add,
            remove: remove.iter().filter_map(|name| changeable(name, cx)).collect(),
        }
    };
    (one(request, true), one(response, false))
}

fn header(
    name: &Spanned<String>,
    value: &Spanned<String>,
    place: Place,
    cx: &mut Cx<'_>,
) -> Option<(http::HeaderName, HeaderText)> {
    let name = changeable(name, cx)?;
    if http::HeaderValue::from_str(&value.value).is_err() {
        cx.wrong(
            &value.at,
            format!("{:?}", value.value),
            "visible ASCII characters",
            "not a header value",
        );
        return None;
    }
    let segments = match header_segments(&value.value, place) {
        Ok(segments) => segments,
        Err(error) => {
            cx.error(&value.at, error.to_string());
            return None;
        }
    };
    let fixed = match segments.as_slice() {
        [] => Some(String::new()),
        [Segment::Literal(text)] => Some(text.clone()),
        _ => None,
    };
    let text = match fixed {
        Some(text) => HeaderText::Fixed(http::HeaderValue::from_str(&text).ok()?),
        None => HeaderText::Format(segments.into()),
    };
    Some((name, text))
}

/// Headers that frame a message are the proxy's own.
fn changeable(text: &Spanned<String>, cx: &mut Cx<'_>) -> Option<http::HeaderName> {
    let name = names::header_name(text, cx)?;
    const FRAMING: [&str; 7] = [
        "host",
        "connection",
        "content-length",
        "transfer-encoding",
        "upgrade",
        "te",
        "keep-alive",
    ];
    if FRAMING.contains(&name.as_str()) {
        let hint = if name == "host" { "; use rewrite.authority" } else { "" };
        cx.error(
            &text.at,
            format!("the header {name} can't be changed: it frames the message{hint}"),
        );
        return None;
    }
    Some(name)
}
