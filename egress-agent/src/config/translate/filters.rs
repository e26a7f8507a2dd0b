//! Filters of a rule: what it does with requests besides sending them on.

use std::{collections::HashSet, time::Duration};

use super::{
    super::{
        cors::CorsPolicy,
        decode::{Dict, List, Records, Report, SourcePosition, Spanned},
        fault::Percentage,
        route_filters::{
            CorsFilter, FilterKind, Fraction, Header, HeaderFilter, MirrorFilter, PathModifier,
            PathModifierKind, RedirectFilter, RewriteFilter, RouteFilter,
        },
        text::StringMatch,
        virtual_service::{
            DerivePort, HeaderChanges, Headers, HttpMirror, Redirect, RegexRewrite, Rewrite,
        },
    },
    backends::{Backends, Referring},
    notes::at,
};

/// What the filters of a rule come to.
#[derive(Debug, Default)]
pub(super) struct Filtered {
    pub(super) headers: Option<Headers>,
    pub(super) mirrors: Vec<HttpMirror>,
    pub(super) redirect: Option<Redirect>,
    /// What takes the place of the prefix in a redirect.
    pub(super) redirected_prefix: Option<NewPath>,
    pub(super) authority: Option<Spanned<String>>,
    pub(super) path: Option<NewPath>,
    pub(super) cors: Option<CorsPolicy>,
    /// What cannot be carried out.
    pub(super) wrong: Vec<(SourcePosition, String)>,
}

/// A new path.
#[derive(Clone, Debug)]
pub(super) enum NewPath {
    /// In the place of all of it.
    Full(Spanned<String>),
    /// In the place of the prefix that matched.
    Prefix(Spanned<String>),
}

impl NewPath {
    /// As `rewrite` of a virtual service. `below` is whether the rule's prefix ends with a slash, which the new
    /// one must do then too.
    pub(super) fn rewrite(&self, below: bool) -> Rewrite {
        match self {
            Self::Full(text) => {
                let new = text.value.replace('\\', "\\\\");
                let all = RegexRewrite {
                    pattern: Some(at("^.*$".into(), &text.at)),
                    rewrite: Some(at(new, &text.at)),
                    ..RegexRewrite::empty(&text.at)
                };
                Rewrite { uri_regex_rewrite: Some(all), ..Rewrite::empty(&text.at) }
            }
            Self::Prefix(text) => {
                let new = text.value.trim_end_matches('/');
                let new = if below || new.is_empty() { format!("{new}/") } else { new.to_owned() };
                Rewrite { uri: Some(at(new, &text.at)), ..Rewrite::empty(&text.at) }
            }
        }
    }
}

/// Reads the filters of a rule.
pub(super) fn filtered(
    filters: &[RouteFilter],
    backends: &Backends<'_>,
    from: Referring<'_>,
    report: &mut Report,
) -> Filtered {
    let mut all = Filtered::default();
    let mut seen = HashSet::new();
    for filter in filters {
        let Some(kind) = &filter.kind else { continue };
        let repeats = kind.value == FilterKind::RequestMirror;
        if !seen.insert(kind.value) && !repeats {
            all.wrong.push((kind.at.clone(), format!("the filter {} is there twice", kind.value)));
        }
        match kind.value {
            FilterKind::RequestHeaderModifier | FilterKind::ResponseHeaderModifier => {
                all.modifier(filter);
            }
            FilterKind::RequestMirror => match &filter.mirror {
                Some(mirror) => all.mirrors.extend(copies(mirror, backends, from, report)),
                None => all.missing(kind),
            },
            FilterKind::RequestRedirect => match &filter.redirect {
                Some(redirect) => match redirection(redirect) {
                    Ok((redirect, prefix)) => {
                        all.redirect = Some(redirect);
                        all.redirected_prefix = prefix;
                    }
                    Err(wrong) => all.wrong.push(wrong),
                },
                None => all.missing(kind),
            },
            FilterKind::UrlRewrite => match &filter.rewrite {
                Some(RewriteFilter { at: _, hostname, path }) => {
                    all.authority.clone_from(hostname);
                    match path.as_ref().map(new_path).transpose() {
                        Ok(path) => all.path = path,
                        Err(wrong) => all.wrong.push(wrong),
                    }
                }
                None => all.missing(kind),
            },
            FilterKind::Cors => match &filter.cors {
                Some(cors) => all.cors = Some(cors_policy(cors)),
                None => all.missing(kind),
            },
            FilterKind::ExternalAuth | FilterKind::ExtensionRef => {
                all.wrong
                    .push((kind.at.clone(), format!("the filter {} is not supported", kind.value)));
            }
        }
    }
    if all.redirect.is_some() && (all.path.is_some() || all.authority.is_some()) {
        let spot = all.redirect.as_ref().map(|redirect| redirect.at.clone());
        let why = "RequestRedirect and URLRewrite are one too many".to_owned();
        all.wrong.extend(spot.map(|spot| (spot, why)));
    }
    all
}

/// The filters of a backend: only headers are changed for one backend alone.
pub(super) fn of_backend(filters: &[RouteFilter]) -> Filtered {
    let mut all = Filtered::default();
    for filter in filters {
        let Some(kind) = &filter.kind else { continue };
        match kind.value {
            FilterKind::RequestHeaderModifier | FilterKind::ResponseHeaderModifier => {
                all.modifier(filter);
            }
            FilterKind::RequestMirror
            | FilterKind::RequestRedirect
            | FilterKind::UrlRewrite
            | FilterKind::Cors
            | FilterKind::ExternalAuth
            | FilterKind::ExtensionRef => {
                let why = format!("the filter {} is not supported for one backend", kind.value);
                all.wrong.push((kind.at.clone(), why));
            }
        }
    }
    all
}

impl Filtered {
    fn missing(&mut self, kind: &Spanned<FilterKind>) {
        self.wrong.push((kind.at.clone(), format!("the settings of {} are missing", kind.value)));
    }

    fn modifier(&mut self, filter: &RouteFilter) {
        let Some(kind) = &filter.kind else { return };
        let is_request = kind.value == FilterKind::RequestHeaderModifier;
        let settings = if is_request { &filter.request_headers } else { &filter.response_headers };
        let Some(HeaderFilter { at: spot, set, add, remove }) = settings else {
            self.missing(kind);
            return;
        };
        let changes = HeaderChanges {
            set: dict(set),
            add: dict(add),
            remove: remove.clone(),
            ..HeaderChanges::empty(spot)
        };
        let headers = self.headers.get_or_insert_with(|| Headers::empty(spot));
        let place = if is_request { &mut headers.request } else { &mut headers.response };
        *place = Some(changes);
    }
}

/// Values are taken as they are: a percent sign begins no operator. Of two entries with one name the first
/// counts.
fn dict(headers: &Records<Header>) -> Dict<Spanned<String>> {
    let mut seen = HashSet::new();
    let all = headers.0.iter().filter_map(|Header { at: _, name, value }| {
        let (name, value) = (name.as_ref()?, value.as_ref()?);
        let is_first = seen.insert(name.value.to_ascii_lowercase());
        is_first.then(|| (name.clone(), at(value.value.replace('%', "%%"), &value.at)))
    });
    Dict(all.collect())
}

/// Copies for a backend; one that is not valid gets none.
fn copies(
    mirror: &MirrorFilter,
    backends: &Backends<'_>,
    from: Referring<'_>,
    report: &mut Report,
) -> Option<HttpMirror> {
    let MirrorFilter { at: spot, backend, percent, fraction } = mirror;
    let destination = backends.destination(backend.as_ref()?.into(), from, report);
    let share = match (percent, fraction) {
        (_, Some(Fraction { at: _, numerator, denominator })) => {
            let above = numerator.as_ref().map_or(0, |number| number.value);
            let below = denominator.as_ref().map_or(100, |number| number.value);
            Some(if below == 0 { 0.0 } else { f64::from(above) * 100.0 / f64::from(below) })
        }
        (Some(percent), None) => Some(f64::from(percent.value)),
        (None, None) => None,
    };
    let percentage = share.map(|share| Percentage {
        value: Some(at(share.min(100.0), spot)),
        ..Percentage::empty(spot)
    });
    let is_valid = destination.refused.is_none();
    let destination = Some(destination);
    is_valid.then(|| HttpMirror { destination, percentage, ..HttpMirror::empty(spot) })
}

/// A redirect, and what takes the place of the prefix there.
fn redirection(
    filter: &RedirectFilter,
) -> Result<(Redirect, Option<NewPath>), (SourcePosition, String)> {
    let RedirectFilter { at: spot, scheme, hostname, path, port, status } = filter;
    let (uri, prefix) = match path.as_ref().map(new_path).transpose()? {
        Some(NewPath::Full(text)) => (Some(text), None),
        prefix => (None, prefix),
    };
    let derived = match scheme {
        Some(_) => DerivePort::FromProtocolDefault,
        None => DerivePort::FromRequestPort,
    };
    let redirect = Redirect {
        uri,
        authority: hostname.clone(),
        port: port.clone(),
        derive_port: port.is_none().then(|| at(derived, spot)),
        scheme: scheme.clone(),
        redirect_code: Some(status.clone().unwrap_or_else(|| at(302, spot))),
        ..Redirect::empty(spot)
    };
    Ok((redirect, prefix))
}

fn new_path(modifier: &PathModifier) -> Result<NewPath, (SourcePosition, String)> {
    let PathModifier { at: spot, kind, full, prefix } = modifier;
    let (text, made): (_, fn(Spanned<String>) -> NewPath) =
        match kind.as_ref().map(|kind| kind.value) {
            Some(PathModifierKind::Full) => (full, NewPath::Full),
            Some(PathModifierKind::Prefix) => (prefix, NewPath::Prefix),
            None => (&None, NewPath::Full),
        };
    let text = text.clone().ok_or_else(|| (spot.clone(), "the new path is not said".to_owned()))?;
    Ok(made(text))
}

fn cors_policy(filter: &CorsFilter) -> CorsPolicy {
    let CorsFilter {
        at: spot,
        allow_origins,
        allow_credentials,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
    } = filter;
    let seconds = max_age.as_ref().map_or(5, |age| age.value);
    CorsPolicy {
        allow_origins: Records(allow_origins.iter().map(origin).collect()),
        allow_methods: List::clone(allow_methods),
        allow_headers: List::clone(allow_headers),
        expose_headers: List::clone(expose_headers),
        max_age: Some(at(Duration::from_secs(seconds.into()), spot)),
        allow_credentials: allow_credentials.clone(),
        ..CorsPolicy::empty(spot)
    }
}

/// An origin; a `*` in it is any number of labels of the host.
fn origin(text: &Spanned<String>) -> StringMatch {
    let empty = StringMatch::empty(&text.at);
    if text.value == "*" || !text.value.contains('*') {
        return StringMatch { exact: Some(text.clone()), ..empty };
    }
    let parts: Vec<String> = text.value.split('*').map(regex::escape).collect();
    StringMatch { regex: Some(at(parts.join("[^/:@]+"), &text.at)), ..empty }
}
