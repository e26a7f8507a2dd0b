//! What a request's path and query ask for.

use std::collections::HashMap;

use super::store::Query;

/// A path and its query.
pub(super) struct Asked {
    pub(super) group: String,
    pub(super) query: Query,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
    pub(super) parameters: HashMap<String, String>,
}

/// `None` for a path that the double doesn't have.
pub(super) fn parse(path: &str, query: &str) -> Option<Asked> {
    let mut parts = path.trim_matches('/').split('/').peekable();
    let (group, version) = match parts.next()? {
        "api" => ("", parts.next()?),
        "apis" => (parts.next()?, parts.next()?),
        _ => return None,
    };
    let rest: Vec<&str> = parts.collect();
    let (namespace, rest) = match &rest[..] {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => {
            (Some((*namespace).to_owned()), rest)
        }
        rest => (None, rest),
    };
    let (plural, name, subresource) = match rest {
        [plural] => (*plural, None, None),
        [plural, name] => (*plural, Some((*name).to_owned()), None),
        [plural, name, part] => (*plural, Some((*name).to_owned()), Some((*part).to_owned())),
        _ => return None,
    };
    let parameters: HashMap<String, String> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), decoded(value)))
        .collect();
    let pairs = |name: &str| {
        let list = parameters.get(name).map(String::as_str).unwrap_or_default().split(',');
        list.filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.trim_start_matches('=').to_owned()))
            .collect()
    };
    let query = Query {
        plural: plural.to_owned(),
        version: version.to_owned(),
        namespace,
        labels: pairs("labelSelector"),
        fields: pairs("fieldSelector"),
    };
    Some(Asked { group: group.to_owned(), query, name, subresource, parameters })
}

/// Percent-decoded, `+` as a space.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let hex = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        match byte {
            b'%' => {
                if let (Some(high), Some(low)) = (hex(rest.next()), hex(rest.next())) {
                    bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                }
            }
            b'+' => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
