//! What the operator adds to refusals.

use std::sync::Arc;

use super::super::{
    decode::{Cx, Spanned},
    mesh::Refusals,
};

/// The longest message, in bytes: it is in every refusal.
const LONGEST: usize = 500;

/// The lines after the gateway's own, each with its end; `None` where there is nothing to add.
pub(super) fn note(refusals: &Refusals, cx: &mut Cx<'_>) -> Option<Arc<str>> {
    let Refusals { at: _, message, link } = refusals;
    let message = message.as_ref().and_then(|message| checked(message, cx));
    let link = link.as_ref().and_then(|link| url(link, cx));
    let lines: String = message.into_iter().chain(link).map(|line| format!("{line}\n")).collect();
    (!lines.is_empty()).then(|| lines.into())
}

fn checked<'a>(message: &'a Spanned<String>, cx: &mut Cx<'_>) -> Option<&'a str> {
    let text = message.value.trim();
    if text.len() > LONGEST || text.chars().any(char::is_control) {
        let expected = format!("one line of at most {LONGEST} bytes");
        let found = format!("{} bytes", text.len());
        cx.wrong(&message.at, found, expected, "the message is added to every refusal");
        return None;
    }
    (!text.is_empty()).then_some(text)
}

fn url<'a>(link: &'a Spanned<String>, cx: &mut Cx<'_>) -> Option<&'a str> {
    let text = link.value.as_str();
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    let known = ["https://", "http://"].iter().any(|scheme| text.starts_with(scheme));
    if !visible || !known || text.len() > LONGEST {
        let expected = "a URL such as https://wiki.example.com/egress";
        cx.wrong(&link.at, format!("{text:?}"), expected, "the link is added to every refusal");
        return None;
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use crate::config::testing::{compile_with, compiled};

    fn note(settings: &str) -> Option<String> {
        let mesh = compiled(&[], &format!("refusals: {settings}\n")).snapshot.mesh;
        mesh.refusal_note.as_deref().map(str::to_owned)
    }

    #[test]
    fn message_and_link_are_lines_of_their_own() {
        assert_eq!(note("{}"), None);
        assert_eq!(
            note("{message: ' Ask the platform team. '}"),
            Some("Ask the platform team.\n".into())
        );
        assert_eq!(
            note("{message: Ask us., link: 'https://wiki.example.com/egress?a=b#c'}"),
            Some("Ask us.\nhttps://wiki.example.com/egress?a=b#c\n".into())
        );
    }

    #[test]
    fn what_could_be_taken_for_more_than_a_line_is_refused() {
        let long = format!("{{message: '{}'}}", "x".repeat(501));
        for settings in [
            "{message: \"a\\r\\nb\"}",
            "{link: 'javascript:alert(1)'}",
            "{link: 'https://a b'}",
            &long,
        ] {
            let problems = compile_with(&[], &format!("refusals: {settings}\n")).unwrap_err();
            assert!(problems.to_string().contains("is added to every refusal"), "{problems}");
        }
    }
}
