//! Why no rule is for a request: the rule that comes nearest, and what it asks for in vain. Asked only
//! for a refusal's sentence, never for a decision.

use super::{
    HttpMatch, HttpRequest, HttpRule, ResourcePath, SourceMatch, TcpRule, TextMatch, TlsRule,
    matching::{has_header, has_parameter},
    path,
    trace::{self, Step},
};
use crate::types::{Host, Port, Source};

/// Of several rules for HTTP.
pub(super) fn http<'r>(
    rules: impl IntoIterator<Item = &'r HttpRule>,
    request: &HttpRequest<'_>,
    port: Port,
) -> String {
    let matches = rules.into_iter().flat_map(|rule| rule.matches.iter().map(|m| (&rule.place, m)));
    nearest(matches.map(|(place, wanted)| (place, of_http(wanted, request, port))))
}

/// Of several rules for TLS.
pub(super) fn tls<'r>(
    rules: impl IntoIterator<Item = &'r TlsRule>,
    server_name: &Host,
    port: Port,
    source: &Source,
) -> String {
    let matches = rules.into_iter().flat_map(|rule| rule.matches.iter().map(|m| (&rule.place, m)));
    nearest(matches.map(|(place, wanted)| {
        let mut unmet = Vec::new();
        of_port(wanted.port, port, &mut unmet);
        if !wanted.server_names.iter().any(|pattern| pattern.rules_host(server_name)) {
            let names: Vec<_> = wanted.server_names.iter().map(ToString::to_string).collect();
            unmet.push(format!("sniHosts {}", names.join(", ")));
        }
        of_source(&wanted.source, source, &mut unmet);
        (place, unmet)
    }))
}

/// Of several rules for TCP.
pub(super) fn tcp<'r>(
    rules: impl IntoIterator<Item = &'r TcpRule>,
    port: Port,
    source: &Source,
) -> String {
    let matches = rules.into_iter().flat_map(|rule| rule.matches.iter().map(|m| (&rule.place, m)));
    nearest(matches.map(|(place, wanted)| {
        let mut unmet = Vec::new();
        of_port(wanted.port, port, &mut unmet);
        of_source(&wanted.source, source, &mut unmet);
        (place, unmet)
    }))
}

/// The one with the fewest; the first of several. Empty where there is none. So that a refusal costs no
/// more than a few rules, the others are not looked at.
fn nearest<'r>(all: impl Iterator<Item = (&'r ResourcePath, Vec<String>)>) -> String {
    const EXAMINED: usize = 64;
    let failed = all.take(EXAMINED).filter(|(_, unmet)| !unmet.is_empty());
    let Some((place, unmet)) = failed.min_by_key(|(_, unmet)| unmet.len()) else {
        return String::new();
    };
    trace::note(|| Step::Nearest { place: place.clone(), unmet: unmet.clone() });
    let rule = place.field.strip_prefix("spec.").unwrap_or(&place.field);
    format!("; the nearest one, {rule}, asks for {}", unmet.join(", and for "))
}

fn of_http(wanted: &HttpMatch, request: &HttpRequest<'_>, port: Port) -> Vec<String> {
    let HttpMatch {
        port: wanted_port,
        path,
        ignore_case,
        method,
        authority,
        scheme,
        headers,
        without_headers,
        query,
        source,
    } = wanted;
    let mut unmet = Vec::new();
    of_port(*wanted_port, port, &mut unmet);
    let texts = [
        ("method", method, request.method.as_str()),
        ("authority", authority, request.authority),
        ("scheme", scheme, request.scheme),
    ];
    for (name, wanted, found) in texts {
        if let Some(wanted) = wanted.as_ref().filter(|wanted| !wanted.matches(found)) {
            unmet.push(format!("{name} {}", shown(wanted)));
        }
    }
    let (uri, parameters) = path::split_query(request.path_and_query);
    if let Some(wanted) = path
        && !path::matches(wanted, uri, *ignore_case).unwrap_or(false)
    {
        unmet.push(format!("uri {}", shown(wanted)));
    }
    for (name, wanted) in headers {
        if !has_header(request, name, wanted) {
            // Its value may be a secret, and the sentence goes to the client.
            unmet.push(format!("header {name}"));
        }
    }
    for (name, wanted) in without_headers {
        if has_header(request, name, wanted) {
            unmet.push(format!("another header {name}"));
        }
    }
    for (name, wanted) in query {
        if !has_parameter(parameters.unwrap_or_default(), name, wanted) {
            unmet.push(format!("query parameter {name}"));
        }
    }
    of_source(source, request.source, &mut unmet);
    unmet
}

fn of_port(wanted: Option<Port>, port: Port, unmet: &mut Vec<String>) {
    if let Some(wanted) = wanted.filter(|wanted| *wanted != port) {
        unmet.push(format!("port {wanted}"));
    }
}

fn of_source(wanted: &SourceMatch, source: &Source, unmet: &mut Vec<String>) {
    if wanted.matches(source) {
        return;
    }
    let found = match &source.workload {
        Some(workload) => {
            let labels: Vec<_> =
                workload.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let labels = if labels.is_empty() { "no labels".into() } else { labels.join(", ") };
            format!("{}/{} has {labels}", workload.namespace.0, workload.name)
        }
        None => format!("no workload is known at {}", source.addr),
    };
    let field = match (wanted.labels.is_empty(), &wanted.namespace) {
        (false, _) => "sourceLabels",
        (true, Some(_)) => "sourceNamespace",
        (true, None) => "sourceSubnet",
    };
    unmet.push(format!("{field} {wanted} ({found})"));
}

fn shown(text: &TextMatch) -> String {
    match text {
        TextMatch::Present => "at all".into(),
        TextMatch::Exact(exact) => format!("{exact:?}"),
        TextMatch::Prefix(prefix) => format!("{prefix:?} at its start"),
        TextMatch::Regex(regex) => {
            // As it is written: a match is of the whole text, for which compilation adds this.
            let text = regex.as_str();
            let inner = text.strip_prefix("^(?:").and_then(|text| text.strip_suffix(")$"));
            format!("/{}/", inner.unwrap_or(text))
        }
    }
}
