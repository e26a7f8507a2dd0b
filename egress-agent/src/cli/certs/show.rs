//! `certs show`: gathering, and printing.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::Context;
use serde::Serialize;

use super::options::ShowArgs;
use crate::{
    config,
    policy::{CredentialSource, ServerProtocol, ServerTlsMode, Snapshot},
    source::{Directory, Watched as _},
    telemetry::rfc3339,
    tls::{
        CertificateInfo, CredentialFault, CredentialLocations, CredentialStore, CrlInfo,
        Inspection, Located, Needs, WorkloadApi, WorkloadMaterial, date, days_left,
    },
    types::TrustDomain,
};

/// Everything that was asked for.
#[derive(Debug, Serialize)]
pub(super) struct CertificatesReport {
    pub(super) certificates: Vec<CredentialReport>,
}

/// A credential.
#[derive(Debug, Serialize)]
pub(super) struct CredentialReport {
    /// Its name, directory or file.
    name: String,
    /// What it is for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    used_by: Vec<String>,
    chain: Vec<Certificate>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    roots: Vec<Certificate>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    revocation_lists: Vec<Crl>,
    problems: Vec<Fault>,
}

#[derive(Debug, Serialize)]
struct Certificate {
    subject: String,
    issuer: String,
    serial: String,
    fingerprint_sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    spiffe_id: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    uris: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    names: Vec<String>,
    ca: bool,
    #[serde(with = "rfc3339")]
    not_before: SystemTime,
    #[serde(with = "rfc3339")]
    not_after: SystemTime,
    days_left: i64,
}

#[derive(Debug, Serialize)]
struct Crl {
    issuer: String,
    revoked: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_update: Option<String>,
}

#[derive(Debug, Serialize)]
struct Fault {
    severity: &'static str,
    message: String,
}

impl CertificatesReport {
    /// Whether nothing is wrong.
    pub(super) fn is_good(&self) -> bool {
        self.certificates.iter().all(|shows| shows.problems.is_empty())
    }
}

/// One thing to look at.
struct CredentialTarget {
    name: String,
    located: Result<Located, CredentialFault>,
    needs: Needs,
    used_by: Vec<String>,
}

/// Reads everything that the options name.
pub(super) fn show(args: &ShowArgs) -> anyhow::Result<CertificatesReport> {
    let now = SystemTime::now();
    let places = args.certificates.places()?;
    let given = places.workload_api.as_deref().map(ask).transpose()?.unwrap_or_default();
    let mut asked: Vec<CredentialTarget> =
        args.paths.iter().map(|path| of_path(path, args.trust_domain.clone())).collect();
    let snapshot = args.config.as_deref().map(|dir| compile(dir, args.mesh.clone())).transpose()?;
    if let Some(snapshot) = &snapshot {
        asked.extend(of_servers(snapshot, &places));
        for tunnel in of_tunnels(snapshot, &places) {
            match asked.iter_mut().find(|asked| asked.name == tunnel.name) {
                Some(known) => known.join(tunnel),
                None => asked.push(tunnel),
            }
        }
    }
    let domain = args.trust_domain.clone().or(snapshot.map(|snapshot| snapshot.mesh.trust_domain));
    asked.extend(of_places(&places, domain, &asked)?);
    Ok(CertificatesReport {
        certificates: asked.into_iter().map(|asked| asked.look(&given, now)).collect(),
    })
}

/// What the Workload API gives now.
fn ask(socket: &Path) -> anyhow::Result<WorkloadMaterial> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut given = WorkloadMaterial::default();
    given.take(runtime.block_on(WorkloadApi::new(socket.to_owned()).once()));
    Ok(given)
}

/// A directory, or a file of certificates alone.
fn of_path(path: &Path, identity: Option<TrustDomain>) -> CredentialTarget {
    let located = if path.is_dir() {
        Located::directory(path)
    } else {
        Located {
            certificate: vec![path.to_owned()],
            private_key: Vec::new(),
            roots: Vec::new(),
            crl: Vec::new(),
            crl_named: false,
            workload_api: None,
        }
    };
    let roots = has_roots(&located);
    CredentialTarget {
        name: path.display().to_string(),
        located: Ok(located),
        needs: Needs { roots, identity },
        used_by: Vec::new(),
    }
}

/// Roots that nobody is known to need are looked at if there are any.
fn has_roots(located: &Located) -> bool {
    located.roots.iter().any(|path| path.exists())
}

fn compile(dir: &Path, mesh: Option<PathBuf>) -> anyhow::Result<Snapshot> {
    let files = Directory::new(dir.to_owned(), mesh).read().map_err(|errors| {
        let all: Vec<_> = errors.iter().map(ToString::to_string).collect();
        anyhow::anyhow!(all.join("; "))
    })?;
    let compiled = config::compile(&files.resources, files.mesh.as_ref())
        .context("the configuration has errors; `egress-agent check` explains them")?;
    Ok(compiled.snapshot)
}

/// The credentials that servers name.
fn of_servers(snapshot: &Snapshot, places: &CredentialLocations) -> Vec<CredentialTarget> {
    let mut all: Vec<(CredentialSource, Needs, Vec<String>)> = Vec::new();
    for server in &snapshot.rules.servers {
        let ServerProtocol::Terminate(tls) = &server.protocol else { continue };
        let identity = match &tls.mode {
            ServerTlsMode::IstioMutual(domain) => Some(domain.clone()),
            ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => None,
        };
        let user = format!("Gateway {} port {} ({})", server.gateway, server.port, tls.mode);
        let mut own = Needs { roots: tls.mode.asks(), identity };
        for certificate in tls.certificates() {
            // The others have no roots.
            let Needs { roots, identity } = std::mem::take(&mut own);
            match all.iter_mut().find(|(source, ..)| source == certificate) {
                Some((_, needs, users)) => {
                    needs.roots |= roots;
                    needs.identity = needs.identity.take().or(identity);
                    users.push(user.clone());
                }
                None => {
                    let needs = Needs { roots, identity };
                    all.push((certificate.clone(), needs, vec![user.clone()]));
                }
            }
        }
    }
    let asked = all.into_iter().map(|(source, needs, used_by)| CredentialTarget {
        name: source.to_string(),
        located: places.locate(&source),
        needs,
        used_by,
    });
    asked.collect()
}

/// The credentials that tunnels to gateways show.
fn of_tunnels(snapshot: &Snapshot, places: &CredentialLocations) -> Vec<CredentialTarget> {
    let mut all: Vec<CredentialTarget> = Vec::new();
    for group in &snapshot.mesh.gateways {
        let Some(tunnel) = &group.tunnel else { continue };
        let user = format!("the tunnel to {}", group.service);
        let name = tunnel.credential.to_string();
        match all.iter_mut().find(|asked| asked.name == name) {
            Some(asked) => asked.used_by.push(user),
            None => {
                let needs = Needs { roots: true, identity: Some(tunnel.trust_domain.clone()) };
                let located = places.locate(&tunnel.credential);
                all.push(CredentialTarget { name, located, needs, used_by: vec![user] });
            }
        }
    }
    all
}

/// What is in the directories, unless it was named already.
fn of_places(
    places: &CredentialLocations,
    domain: Option<TrustDomain>,
    known: &[CredentialTarget],
) -> anyhow::Result<Vec<CredentialTarget>> {
    let mut found = Vec::new();
    if let Some(CredentialStore::Directory(dir)) = &places.credentials {
        let entries = fs::read_dir(dir).with_context(|| dir.display().to_string())?;
        let mut names = BTreeSet::new();
        for entry in entries {
            let entry = entry.with_context(|| dir.display().to_string())?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // Kubelet's own entries, and roots that belong to another credential.
            if !name.starts_with('.') && !name.ends_with("-cacert") && entry.path().is_dir() {
                names.insert(name);
            }
        }
        for name in names {
            let source = CredentialSource::Named(name.as_str().into());
            let located = places.locate(&source);
            let roots = located.as_ref().is_ok_and(has_roots);
            let needs = Needs { roots, identity: None };
            found.push(CredentialTarget { name, located, needs, used_by: Vec::new() });
        }
    }
    if places.identity.is_some() || places.workload_api.is_some() {
        let located = places.locate(&CredentialSource::Own);
        let name = CredentialSource::Own.to_string();
        let needs = Needs { roots: true, identity: domain };
        found.push(CredentialTarget { name, located, needs, used_by: Vec::new() });
    }
    found.retain(|asked| !known.iter().any(|known| known.name == asked.name));
    Ok(found)
}

impl CredentialTarget {
    /// The same credential, needed for something else besides.
    fn join(&mut self, other: Self) {
        let Needs { roots, identity } = other.needs;
        self.needs.roots |= roots;
        self.needs.identity = self.needs.identity.take().or(identity);
        self.used_by.extend(other.used_by);
    }

    fn look(self, given: &WorkloadMaterial, now: SystemTime) -> CredentialReport {
        let Self { name, located, needs, used_by } = self;
        let inspection = match located {
            Ok(located) => Inspection::of(&located.files().read(), given, &located, &needs, now),
            Err(fault) => Inspection { faults: vec![fault], ..Inspection::default() },
        };
        let Inspection { chain, roots, crls, faults, credential: _ } = inspection;
        let certificate = |info| Certificate::new(info, now);
        CredentialReport {
            name,
            used_by,
            chain: chain.into_iter().map(certificate).collect(),
            roots: roots.into_iter().map(certificate).collect(),
            revocation_lists: crls.into_iter().map(Crl::from).collect(),
            problems: faults.iter().map(Fault::from).collect(),
        }
    }
}

impl Certificate {
    fn new(info: CertificateInfo, now: SystemTime) -> Self {
        Self {
            spiffe_id: info.spiffe_id().ok().map(|id| id.to_string()),
            days_left: days_left(info.not_after, now),
            subject: info.subject,
            issuer: info.issuer,
            serial: info.serial,
            fingerprint_sha256: info.fingerprint,
            uris: info.uris,
            names: info.dns_names,
            ca: info.is_ca,
            not_before: info.not_before,
            not_after: info.not_after,
        }
    }
}

impl From<CrlInfo> for Crl {
    fn from(info: CrlInfo) -> Self {
        let CrlInfo { issuer, next_update, revoked } = info;
        Self { issuer, revoked, next_update: next_update.map(rfc3339::text) }
    }
}

impl From<&CredentialFault> for Fault {
    fn from(fault: &CredentialFault) -> Self {
        let severity = if fault.is_fatal() { "error" } else { "warning" };
        Self { severity, message: fault.to_string() }
    }
}

/// For people.
pub(super) fn text(shown: &CertificatesReport, out: &mut impl Write) -> io::Result<()> {
    for (index, shows) in shown.certificates.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        let CredentialReport { name, used_by, chain, roots, revocation_lists, problems } = shows;
        writeln!(out, "{name}")?;
        for user in used_by {
            writeln!(out, "  used by  {user}")?;
        }
        for (number, certificate) in chain.iter().enumerate() {
            let title = if number == 0 { "leaf" } else { "chain" };
            certificate.text(title, out)?;
        }
        for root in roots {
            root.text("root", out)?;
        }
        for Crl { issuer, revoked, next_update } in revocation_lists {
            let due = next_update.as_deref().unwrap_or("never");
            writeln!(out, "  revoked  {revoked} of {issuer}; the next list is due {due}")?;
        }
        for Fault { severity, message } in problems {
            writeln!(out, "  {severity}: {message}")?;
        }
        if problems.is_empty() {
            writeln!(out, "  nothing is wrong")?;
        }
    }
    Ok(())
}

impl Certificate {
    fn text(&self, title: &str, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "  {title:<8} {}", self.subject)?;
        if self.issuer != self.subject {
            writeln!(out, "           issued by {}", self.issuer)?;
        }
        for uri in &self.uris {
            writeln!(out, "           URI:{uri}")?;
        }
        if !self.names.is_empty() {
            writeln!(out, "           names {}", self.names.join(", "))?;
        }
        let left = match self.days_left {
            left if left < 0 => "it has expired".to_owned(),
            1 => "1 day left".to_owned(),
            left => format!("{left} days left"),
        };
        let (from, to) = (date(self.not_before), date(self.not_after));
        writeln!(out, "           valid from {from} to {to}: {left}")
    }
}

#[cfg(test)]
mod tests;
