//! What the tests of configuration and decisions share.

use std::{net::IpAddr, sync::Arc};

use super::{Compiled, Problem, Problems, RawFile, Severity, compile};
use crate::{
    policy::{
        Denied, EntryPoint, GatewayPolicy, Hop, HttpRequest, HttpRoute, PortMode, Snapshot,
        TcpRoute, Termination, TlsConnection, TlsRoute,
    },
    types::{GatewayIdentity, Host, Labels, Namespace, OriginalPort, Port, Source},
};

pub(crate) const MESH: &str = include_str!("testdata/mesh.yaml");

pub(crate) fn file(path: &str, text: &str) -> RawFile {
    RawFile { path: path.into(), text: text.into() }
}

/// Compiles with the settings of `testdata/mesh.yaml` and more lines of them.
pub(crate) fn compile_with(texts: &[&str], more_mesh: &str) -> Result<Compiled, Problems> {
    let files: Vec<_> =
        texts.iter().enumerate().map(|(i, text)| file(&format!("{}.yaml", i + 1), text)).collect();
    compile(&files, Some(&file("mesh.yaml", &format!("{MESH}{more_mesh}"))))
}

/// What must compile.
pub(in crate::config) fn compiled(texts: &[&str], more_mesh: &str) -> Compiled {
    compile_with(texts, more_mesh).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Every problem, whether it compiles or not.
pub(in crate::config) fn problems(texts: &[&str], more_mesh: &str) -> Vec<Problem> {
    match compile_with(texts, more_mesh) {
        Ok(compiled) => compiled.warnings,
        Err(problems) => problems.0,
    }
}

/// The errors and refusals.
pub(in crate::config) fn errors(texts: &[&str]) -> Vec<Problem> {
    let all = problems(texts, "").into_iter();
    all.filter(|problem| problem.severity != Severity::Warning).collect()
}

/// One gateway, asked in short.
pub(in crate::config) struct Gateway(pub(in crate::config) GatewayPolicy);

impl Gateway {
    pub(in crate::config) fn new(texts: &[&str], more_mesh: &str) -> Self {
        Self::with_labels(texts, more_mesh, &[("istio", "egressgateway")])
    }

    pub(in crate::config) fn with_labels(
        texts: &[&str],
        more_mesh: &str,
        labels: &[(&str, &str)],
    ) -> Self {
        let snapshot = Arc::new(compiled(texts, more_mesh).snapshot);
        let labels: Labels =
            labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let namespace = Namespace("istio-system".into());
        Self(GatewayPolicy::new(
            snapshot,
            &GatewayIdentity { labels, namespace, addresses: Vec::new() },
        ))
    }

    /// The gateway of `testdata/mesh.yaml` with this snapshot.
    pub(in crate::config) fn of(snapshot: Snapshot) -> Self {
        let labels = Labels::from([("istio".into(), "egressgateway".into())]);
        let namespace = Namespace("istio-system".into());
        Self(GatewayPolicy::new(
            Arc::new(snapshot),
            &GatewayIdentity { labels, namespace, addresses: Vec::new() },
        ))
    }

    /// A workload that nothing is known of.
    pub(in crate::config) fn stranger(&self) -> Source {
        self.source("10.9.9.9")
    }

    pub(in crate::config) fn source(&self, addr: &str) -> Source {
        self.0.source(addr.parse::<IpAddr>().unwrap())
    }

    pub(in crate::config) fn get(
        &self,
        port: u16,
        host: &str,
        path: &str,
    ) -> Result<HttpRoute, Denied> {
        self.ask(&self.stranger(), "GET", port, host, path, &[])
    }

    pub(in crate::config) fn ask(
        &self,
        source: &Source,
        method: &str,
        port: u16,
        host: &str,
        path: &str,
        headers: &[(&'static str, &'static str)],
    ) -> Result<HttpRoute, Denied> {
        let mut map = http::HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        self.0.http(&HttpRequest {
            source,
            entry: EntryPoint::Mesh,
            port: original(port),
            host: &Host::parse(host).unwrap(),
            authority: host,
            scheme: "http",
            method: &method.parse().unwrap(),
            path_and_query: path,
            headers: &map,
            server_name: None,
            remote: Some(source.addr),
        })
    }

    pub(in crate::config) fn tls(&self, port: u16, name: &str) -> Result<TcpRoute, Denied> {
        self.tls_from(&self.stranger(), port, name)
    }

    pub(in crate::config) fn tls_from(
        &self,
        source: &Source,
        port: u16,
        name: &str,
    ) -> Result<TcpRoute, Denied> {
        match self.tls_route(source, port, name)? {
            TlsRoute::Forward(route) => Ok(route),
            TlsRoute::Terminate(to) => panic!("TLS for {name} would end here: {to:?}"),
        }
    }

    pub(in crate::config) fn tls_route(
        &self,
        source: &Source,
        port: u16,
        name: &str,
    ) -> Result<TlsRoute, Denied> {
        let server_name = &Host::parse(name).unwrap();
        let hop = Hop::Plain;
        let port = original(port);
        self.0.tls(&TlsConnection { source, port, server_name, hop, encrypted: false })
    }

    /// Where TLS with this name ends here.
    pub(in crate::config) fn terminated(&self, port: u16, name: &str) -> Termination {
        match self.tls_route(&self.stranger(), port, name) {
            Ok(TlsRoute::Terminate(to)) => to,
            other => panic!("TLS for {name} doesn't end here: {other:?}"),
        }
    }

    /// A request inside such a connection.
    pub(in crate::config) fn get_inside(
        &self,
        termination: &Termination,
        host: &str,
        path: &str,
    ) -> Result<HttpRoute, Denied> {
        self.0.http(&HttpRequest {
            source: &self.stranger(),
            entry: EntryPoint::Server(termination),
            port: OriginalPort(termination.port.0),
            host: &Host::parse(host).unwrap(),
            authority: host,
            scheme: "https",
            method: &http::Method::GET,
            path_and_query: path,
            headers: &http::HeaderMap::new(),
            server_name: None,
            remote: None,
        })
    }

    pub(in crate::config) fn tcp(&self, port: u16) -> Result<TcpRoute, Denied> {
        self.0.tcp(&self.stranger(), original(port))
    }

    pub(in crate::config) fn mode(&self, port: u16) -> PortMode {
        self.0.port_mode(original(port))
    }
}

pub(in crate::config) fn port(number: u16) -> Port {
    Port::new(number).unwrap()
}

pub(in crate::config) fn original(number: u16) -> OriginalPort {
    OriginalPort(port(number))
}
