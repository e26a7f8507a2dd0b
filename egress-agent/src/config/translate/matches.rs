//! Conditions of rules for HTTP, and which of them comes first.

use std::{cmp::Reverse, collections::HashSet};

use super::{
    super::{
        decode::{Dict, RecordDict, Records, SourcePosition, Spanned},
        http_route::{HttpRouteMatch, PathKind, PathMatch, ValueKind, ValueMatch},
        text::StringMatch,
        virtual_service::HttpMatch,
    },
    notes::at,
};
use crate::policy::HostPattern;

/// What the Gateway API orders rules by: the least comes first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Rank(Reverse<(HostRank, PathRank)>);

/// How exactly a route names its host.
type HostRank = (bool, usize);
/// Path (exact, prefix, expression, any; then its length), method, headers, query parameters.
type PathRank = (u8, usize, bool, usize, usize);

/// A condition, and how its path was given.
#[derive(Clone, Debug)]
pub(super) struct Condition {
    pub(super) wanted: HttpMatch,
    pub(super) path: Path,
    rank: PathRank,
}

/// How the path of a condition was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Path {
    /// A prefix that ends with a slash, or any path.
    Below,
    /// Just the prefix.
    Prefix,
    /// In another way.
    Other,
}

impl Condition {
    /// Its place among those of all routes.
    pub(super) fn rank(&self, named: Option<&HostPattern>) -> Rank {
        let host = match named {
            None | Some(HostPattern::Any) => (false, 0),
            Some(HostPattern::Below(suffix) | HostPattern::Ending(suffix)) => (false, suffix.len()),
            Some(exact @ HostPattern::Exact(_)) => (true, exact.to_string().len()),
        };
        Rank(Reverse((host, self.rank)))
    }

    /// Whether it asks for nothing.
    pub(super) fn is_everything(&self) -> bool {
        let HttpMatch { uri, method, headers, query_params, .. } = &self.wanted;
        uri.is_none() && method.is_none() && headers.0.0.is_empty() && query_params.0.0.is_empty()
    }

    /// No condition at all.
    pub(super) fn everything(spot: &SourcePosition) -> Self {
        let wanted = HttpMatch::empty(spot);
        Self { wanted, path: Path::Below, rank: (0, 1, false, 0, 0) }
    }

    /// With a path of another kind of routes.
    pub(super) fn of(wanted: HttpMatch, path: Path, (kind, length): (u8, usize)) -> Self {
        let rank = (kind, length, wanted.method.is_some(), wanted.headers.0.0.len(), 0);
        Self { wanted, path, rank }
    }
}

/// The conditions that a match comes to: a prefix is by whole segments, so it is two.
pub(super) fn conditions(one: &HttpRouteMatch) -> Vec<Condition> {
    let HttpRouteMatch { at: spot, path, headers, query, method } = one;
    let exact = |text: Spanned<String>| StringMatch {
        exact: Some(text.clone()),
        ..StringMatch::empty(&text.at)
    };
    let base = HttpMatch {
        method: method.clone().map(exact),
        headers: values(headers, true),
        query_params: values(query, false),
        ..HttpMatch::empty(spot)
    };
    let counts = (base.method.is_some(), base.headers.0.0.len(), base.query_params.0.0.len());
    let made = |uri: Option<StringMatch>, path, (kind, length)| Condition {
        wanted: HttpMatch { uri, ..base.clone() },
        path,
        rank: (kind, length, counts.0, counts.1, counts.2),
    };
    let root = || at("/".to_owned(), spot);
    let (kind, value) = match path {
        None => (PathKind::Prefix, root()),
        Some(PathMatch { at: _, kind, value }) => {
            let kind = kind.as_ref().map_or(PathKind::Prefix, |kind| kind.value);
            (kind, value.clone().unwrap_or_else(root))
        }
    };
    let length = value.value.len();
    match kind {
        PathKind::Exact => vec![made(Some(exact(value)), Path::Other, (3, length))],
        PathKind::Regex => {
            let regex = Some(value.clone());
            let uri = StringMatch { regex, ..StringMatch::empty(&value.at) };
            vec![made(Some(uri), Path::Other, (1, length))]
        }
        PathKind::Prefix => {
            let segments = value.value.trim_end_matches('/');
            if segments.is_empty() {
                return vec![made(None, Path::Below, (0, 1))];
            }
            let below = Some(at(format!("{segments}/"), &value.at));
            let below = StringMatch { prefix: below, ..StringMatch::empty(&value.at) };
            let rank = (2, segments.len());
            vec![
                made(Some(exact(at(segments.to_owned(), &value.at))), Path::Prefix, rank),
                made(Some(below), Path::Below, rank),
            ]
        }
    }
}

/// Conditions on headers or query parameters. Of two entries with one name the first counts.
pub(super) fn values(list: &Records<ValueMatch>, is_header: bool) -> RecordDict<StringMatch> {
    let mut seen = HashSet::new();
    let all = list.0.iter().filter_map(|ValueMatch { at: spot, kind, name, value }| {
        let (name, value) = (name.as_ref()?, value.as_ref()?);
        let key = if is_header { name.value.to_ascii_lowercase() } else { name.value.clone() };
        let empty = StringMatch::empty(spot);
        let wanted = match kind.as_ref().map_or(ValueKind::Exact, |kind| kind.value) {
            ValueKind::Exact => StringMatch { exact: Some(value.clone()), ..empty },
            ValueKind::Regex => StringMatch { regex: Some(value.clone()), ..empty },
        };
        seen.insert(key).then(|| (name.clone(), wanted))
    });
    RecordDict(Dict(all.collect()))
}
