//! What the environment asks for.

use std::{path::PathBuf, time::Duration};

use http::{HeaderName, HeaderValue};
use thiserror::Error;

use super::{
    endpoint::Endpoint,
    environment::{Environment, compression, file, headers, own_name, protocol, timeout},
    protocol::{Compression, Protocol},
};
use crate::telemetry::{Sampler, Signal};

/// For how long a request may go on.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Every variable that can't be used, one a line.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("the environment asks for an export over OTLP that is not possible:\n  {}", .0.join("\n  "))]
pub struct SettingsError(pub Vec<String>);

/// The standard variables (`OTEL_…`), read once at the start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Where log records go; `None` for nowhere.
    pub logs: Option<Target>,
    /// Where spans go.
    pub traces: Option<Target>,
    /// Which spans do.
    pub sampler: Sampler,
    /// What the process says of itself, in the order of its keys.
    pub resource: Vec<(String, String)>,
}

/// A collector, for one kind of record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// Where it is.
    pub endpoint: Endpoint,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Whether bodies are made smaller.
    pub compression: Compression,
    /// What each request has besides.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// For how long a request may go on.
    pub timeout: Duration,
    /// Whom to trust: a PEM file in the place of the system's roots.
    pub roots: Option<PathBuf>,
    /// What to show: PEM files of a certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl Settings {
    /// Of this process's environment. `service` is its name, and `own` are its attributes, where the environment gives
    /// no others.
    ///
    /// # Errors
    /// Every variable that can't be used.
    pub fn from_env(service: &str, own: &[(&str, String)]) -> Result<Self, SettingsError> {
        Self::read(&|name| std::env::var(name).ok(), service, own)
    }

    /// The same of any environment.
    ///
    /// # Errors
    /// Every variable that can't be used.
    pub fn read(
        get: &dyn Fn(&str) -> Option<String>,
        service: &str,
        own: &[(&str, String)],
    ) -> Result<Self, SettingsError> {
        let mut environment = Environment::new(get);
        let off = environment.flag("OTEL_SDK_DISABLED");
        let [logs, traces] =
            [Signal::Logs, Signal::Traces].map(|signal| target(&mut environment, signal));
        let sampler = environment.sampler();
        let resource = resource(&mut environment, service, own);
        let propagators = environment.value("OTEL_PROPAGATORS").unwrap_or_default();
        if !propagators.is_empty()
            && !propagators.split(',').any(|one| one.trim() == "tracecontext")
        {
            let what = format!("found `{propagators}`, expected tracecontext (W3C) among them");
            environment.fault("OTEL_PROPAGATORS", what);
        }
        // Who exports nothing is not stopped by how it would be.
        if off || (logs.is_none() && traces.is_none() && !is_asked_for(&environment)) {
            return Ok(Self { logs: None, traces: None, sampler, resource });
        }
        match environment.faults {
            faults if faults.is_empty() => Ok(Self { logs, traces, sampler, resource }),
            faults => Err(SettingsError(faults)),
        }
    }

    /// The same of a process that has these kinds of records alone.
    #[must_use]
    pub fn of(mut self, signals: &[Signal]) -> Self {
        self.logs = self.logs.filter(|_| signals.contains(&Signal::Logs));
        self.traces = self.traces.filter(|_| signals.contains(&Signal::Traces));
        self
    }

    /// Whether anything is exported.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.logs.is_some() || self.traces.is_some()
    }
}

/// Whether a variable asks for an export, even if it can't be read.
fn is_asked_for(environment: &Environment<'_>) -> bool {
    let names = [Signal::Logs, Signal::Traces];
    let endpoints = names.map(|signal| own_name(signal, "ENDPOINT"));
    let exporters = names.map(|signal| format!("OTEL_{}_EXPORTER", signal.name().to_uppercase()));
    let asks = |name: &String| environment.value(name).is_some_and(|value| value != "none");
    let general = "OTEL_EXPORTER_OTLP_ENDPOINT".to_owned();
    let off =
        exporters.iter().all(|name| environment.value(name).is_some_and(|value| value == "none"));
    !off && [&general].into_iter().chain(&endpoints).chain(&exporters).any(asks)
}

fn target(environment: &mut Environment<'_>, signal: Signal) -> Option<Target> {
    let own = own_name(signal, "ENDPOINT");
    let asked = environment.exporter(signal);
    if asked == Some(false) {
        return None;
    }
    let has_own = environment.value(&own).is_some();
    let protocol = environment.of_signal(signal, "PROTOCOL", protocol).unwrap_or_default();
    let path = protocol.path(signal);
    // The URL of one signal is taken as it is.
    let append = if has_own && protocol == Protocol::Http { "" } else { &path };
    let endpoint = environment.of_signal(signal, "ENDPOINT", |text| Endpoint::parse(text, append));
    let has_any = has_own || environment.value("OTEL_EXPORTER_OTLP_ENDPOINT").is_some();
    let endpoint = match endpoint {
        Some(endpoint) => endpoint,
        None if has_any || asked.is_none() => return None,
        None => Endpoint::parse(protocol.default_endpoint(), &path).ok()?,
    };
    let compression = environment.of_signal(signal, "COMPRESSION", compression).unwrap_or_default();
    let headers = environment.of_signal(signal, "HEADERS", headers).unwrap_or_default();
    let timeout = environment.of_signal(signal, "TIMEOUT", timeout).unwrap_or(TIMEOUT);
    let roots = environment.of_signal(signal, "CERTIFICATE", file);
    let certificate = environment.of_signal(signal, "CLIENT_CERTIFICATE", file);
    let key = environment.of_signal(signal, "CLIENT_KEY", file);
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => {
            environment.fault(
                "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
                "found no OTEL_EXPORTER_OTLP_CLIENT_KEY, expected both or none",
            );
            None
        }
        (None, Some(_)) => {
            environment.fault(
                "OTEL_EXPORTER_OTLP_CLIENT_KEY",
                "found no OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE, expected both or none",
            );
            None
        }
    };
    if !endpoint.tls && (roots.is_some() || identity.is_some()) {
        let what =
            format!("found {}, expected https:// where certificates are given", endpoint.url());
        environment.fault(if has_own { &own } else { "OTEL_EXPORTER_OTLP_ENDPOINT" }, what);
    }
    Some(Target { endpoint, protocol, compression, headers, timeout, roots, identity })
}

/// `service.name` and what else is known, then what the environment says, which counts more.
fn resource(
    environment: &mut Environment<'_>,
    service: &str,
    own: &[(&str, String)],
) -> Vec<(String, String)> {
    let mut all = std::collections::BTreeMap::new();
    all.insert("service.name".to_owned(), service.to_owned());
    all.extend(own.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    all.extend(environment.resource());
    if let Some(name) = environment.value("OTEL_SERVICE_NAME") {
        all.insert("service.name".into(), name);
    }
    all.into_iter().collect()
}
