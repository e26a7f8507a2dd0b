//! The policies, in tables by port and host, namespace by namespace.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use super::{EgressAccess, EgressMode, EgressPolicy, EgressRule, EgressScope};
use crate::{
    policy::{HostPattern, HostTable, HttpRequest, RateLimit, path::AmbiguousPath},
    types::{GatewayPort, Host, Namespace, OriginalPort, Source},
};

/// A rule, and the policy that it is of.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The policy.
    pub policy: Arc<EgressPolicy>,
    /// Its rule.
    pub rule: Arc<EgressRule>,
}

/// The rule that something goes by, and the limits of every rule that allows it.
#[derive(Debug)]
pub struct MatchedRule<'a> {
    /// The rule.
    pub grant: &'a Grant,
    /// Each limit once. A rule without one takes none away: what a policy limits stays limited.
    pub rates: Vec<Arc<RateLimit>>,
}

impl<'a> MatchedRule<'a> {
    fn by(grant: &'a Grant) -> Self {
        Self { grant, rates: Vec::from_iter(grant.rule.rate.clone()) }
    }

    /// Another rule that allows it.
    fn and(&mut self, other: &Grant) {
        if let Some(rate) = &other.rule.rate
            && !self.rates.contains(rate)
        {
            self.rates.push(Arc::clone(rate));
        }
    }
}

/// Why nothing of what the source's policies say about a host and port is enough.
#[derive(Debug)]
pub enum NotGranted<'a> {
    /// None of them names it.
    Unnamed,
    /// This one names it, and allows something else there.
    Otherwise(&'a Grant),
    /// A limit of this one depends on a path that servers read in two ways.
    Ambiguous(&'a Grant),
    /// Two raw TCP services come to the gateway in the same way.
    Several(&'a Grant, &'a Grant),
}

/// What belongs to namespaces: own entries of each, and those of `ClusterEgressPolicy`. A look-up costs
/// the same however many namespaces there are.
#[derive(Clone, Debug)]
struct Scoped<T> {
    own: HashMap<Namespace, Vec<T>>,
    cluster: Vec<T>,
}

impl<T> Default for Scoped<T> {
    fn default() -> Self {
        Self { own: HashMap::new(), cluster: Vec::new() }
    }
}

impl<T> Scoped<T> {
    fn push(&mut self, scope: &EgressScope, value: T) {
        match scope {
            EgressScope::Namespace(own) => self.own.entry(own.clone()).or_default().push(value),
            EgressScope::Cluster(..) => self.cluster.push(value),
        }
    }

    /// Those that may be about the namespace.
    fn of(&self, namespace: Option<&Namespace>) -> impl Iterator<Item = &T> {
        let own = namespace.and_then(|namespace| self.own.get(namespace));
        own.into_iter().flatten().chain(&self.cluster)
    }
}

/// All policies that one gateway process decides by.
#[derive(Clone, Debug, Default)]
pub struct EgressTable {
    policies: Scoped<Arc<EgressPolicy>>,
    named: HashMap<OriginalPort, HostTable<Scoped<Grant>>>,
    /// Raw TCP by the port at the gateway.
    at_gateway: HashMap<GatewayPort, Scoped<Grant>>,
    /// Raw TCP by the port that applications dial.
    dialled: HashMap<OriginalPort, Scoped<Grant>>,
    /// Ports on which names decide.
    speaks: HashSet<OriginalPort>,
}

impl EgressTable {
    /// Of these policies, in their order.
    #[must_use]
    pub fn new(policies: &[Arc<EgressPolicy>]) -> Self {
        let mut table = Self::default();
        for policy in policies {
            table.policies.push(&policy.scope, Arc::clone(policy));
            for rule in &policy.rules {
                let grant = Grant { policy: Arc::clone(policy), rule: Arc::clone(rule) };
                table.add(grant);
            }
        }
        table
    }

    fn add(&mut self, grant: Grant) {
        let (scope, rule) = (&grant.policy.scope, &grant.rule);
        match rule.access {
            EgressAccess::Http { .. } | EgressAccess::Tls => {
                self.speaks.insert(rule.port);
                let hosts = self.named.entry(rule.port).or_default();
                hosts.entry(&rule.host).push(scope, grant.clone());
            }
            EgressAccess::Tcp { at } => {
                self.at_gateway.entry(at).or_default().push(scope, grant.clone());
                self.dialled.entry(rule.port).or_default().push(scope, grant.clone());
            }
        }
    }

    /// Whether names decide about what is dialled on this port.
    #[must_use]
    pub fn allows_port(&self, port: OriginalPort) -> bool {
        self.speaks.contains(&port)
    }

    /// Whether raw TCP comes to this port of the gateway.
    #[must_use]
    pub fn takes_tcp(&self, port: GatewayPort) -> bool {
        self.at_gateway.contains_key(&port)
    }

    /// The policy that confines the source to what policies and routes name; one that is enforced before
    /// one that is in audit mode.
    #[must_use]
    pub fn confining(&self, source: &Source) -> Option<&Arc<EgressPolicy>> {
        let mut audit = None;
        for policy in self.policies.of(source.namespace()) {
            if !policy.selects(source) {
                continue;
            }
            match policy.mode {
                EgressMode::Enforce => return Some(policy),
                EgressMode::Audit => audit = audit.or(Some(policy)),
            }
        }
        audit
    }

    /// The rules about a host and port for this source, the most specific host first.
    fn candidates(
        &self,
        port: OriginalPort,
        host: &Host,
        source: &Source,
    ) -> impl Iterator<Item = &Grant> {
        let levels = self.named.get(&port).map(|hosts| hosts.matches(host));
        let namespace = source.namespace();
        let grants = levels.into_iter().flatten().flat_map(move |level| level.of(namespace));
        grants.filter(move |grant| grant.policy.selects(source))
    }

    /// The rule that allows a request. Of several one that starts TLS comes first: what one of them sends
    /// encrypted is not sent in clear because of another.
    ///
    /// # Errors
    /// [`NotGranted`].
    pub fn http(&self, request: &HttpRequest<'_>) -> Result<MatchedRule<'_>, NotGranted<'_>> {
        let HttpRequest { source, port, host, method, path_and_query, .. } = *request;
        let (mut found, mut not): (Option<MatchedRule<'_>>, _) = (None, NotGranted::Unnamed);
        let mut encrypted = false;
        for grant in self.candidates(port, host, source) {
            let EgressAccess::Http { limits, originates } = &grant.rule.access else {
                not = not.or(NotGranted::Otherwise(grant));
                continue;
            };
            match limits.allow(method, path_and_query) {
                Ok(true) => {
                    let granted = found.get_or_insert_with(|| MatchedRule::by(grant));
                    granted.and(grant);
                    if *originates && !encrypted {
                        encrypted = true;
                        granted.grant = grant;
                    }
                }
                Ok(false) => not = not.or(NotGranted::Otherwise(grant)),
                Err(AmbiguousPath) => not = NotGranted::Ambiguous(grant),
            }
        }
        found.ok_or(not)
    }

    /// The rule that allows a TLS connection.
    ///
    /// # Errors
    /// [`NotGranted`].
    pub fn tls(
        &self,
        port: OriginalPort,
        server_name: &Host,
        source: &Source,
    ) -> Result<MatchedRule<'_>, NotGranted<'_>> {
        let (mut found, mut not): (Option<MatchedRule<'_>>, _) = (None, NotGranted::Unnamed);
        for grant in self.candidates(port, server_name, source) {
            match grant.rule.access {
                EgressAccess::Tls => found.get_or_insert_with(|| MatchedRule::by(grant)).and(grant),
                EgressAccess::Http { .. } | EgressAccess::Tcp { .. } => {
                    not = not.or(NotGranted::Otherwise(grant));
                }
            }
        }
        found.ok_or(not)
    }

    /// The rule that allows raw TCP that came to this port of the gateway.
    ///
    /// # Errors
    /// [`NotGranted`].
    pub fn tcp(
        &self,
        port: GatewayPort,
        source: &Source,
    ) -> Result<MatchedRule<'_>, NotGranted<'_>> {
        only(selected(self.at_gateway.get(&port), source))
    }

    /// The rule that allows raw TCP that was dialled on this port: its host is the address that was dialled, or
    /// else it is the only name on the port.
    ///
    /// # Errors
    /// [`NotGranted`].
    pub fn dialled(
        &self,
        port: OriginalPort,
        source: &Source,
        by: TcpTarget<'_>,
    ) -> Result<MatchedRule<'_>, NotGranted<'_>> {
        let all = selected(self.dialled.get(&port), source);
        match by {
            TcpTarget::ByAddress(addr) => {
                let wanted = HostPattern::Exact(Host::Ip(addr.to_canonical()));
                only(all.filter(move |grant| grant.rule.host == wanted))
            }
            TcpTarget::Named(name) => {
                only(all.filter(|grant| grant.rule.host.exact() == Some(name)))
            }
            TcpTarget::ByName => only(all.filter(|grant| {
                grant.rule.host.exact().is_some_and(|host| host.as_name().is_some())
            })),
        }
    }
}

/// How it is known what a raw TCP connection was meant for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TcpTarget<'a> {
    /// By the address that was dialled.
    ByAddress(IpAddr),
    /// By this name, which the address is of.
    Named(&'a Host),
    /// By the only name that the address may be of.
    ByName,
}

impl<'a> NotGranted<'a> {
    /// The first reason, unless there was none.
    fn or(self, other: Self) -> Self {
        match self {
            Self::Unnamed => other,
            first @ (Self::Otherwise(_) | Self::Ambiguous(_) | Self::Several(..)) => first,
        }
    }

    /// The rule that is nearest to what was asked.
    #[must_use]
    pub fn nearest(&self) -> Option<&'a Grant> {
        match self {
            Self::Unnamed => None,
            Self::Otherwise(grant) | Self::Ambiguous(grant) | Self::Several(grant, _) => {
                Some(grant)
            }
        }
    }
}

fn selected<'a>(
    grants: Option<&'a Scoped<Grant>>,
    source: &Source,
) -> impl Iterator<Item = &'a Grant> {
    let grants = grants.into_iter().flat_map(|grants| grants.of(source.namespace()));
    grants.filter(move |grant| grant.policy.selects(source))
}

/// The first, if all lead to the same host and port. Of two, nobody could tell which was meant.
fn only<'a>(
    mut grants: impl Iterator<Item = &'a Grant>,
) -> Result<MatchedRule<'a>, NotGranted<'a>> {
    let first = grants.next().ok_or(NotGranted::Unnamed)?;
    let place = |grant: &Grant| (grant.rule.host.clone(), grant.rule.port, grant.rule.group);
    let mut granted = MatchedRule::by(first);
    for other in grants {
        if place(other) != place(first) {
            return Err(NotGranted::Several(first, other));
        }
        granted.and(other);
    }
    Ok(granted)
}
