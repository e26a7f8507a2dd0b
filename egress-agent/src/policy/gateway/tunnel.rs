//! What comes through the tunnel: who may speak for whom.

use std::{net::IpAddr, sync::Arc};

use egress_ebpf::reason::Reason;

use super::{GatewayPolicy, Secured, refusal};
use crate::{
    policy::{Denied, Hop, ServerTls},
    types::{AssertedWorkload, Host, Node, Source, SpiffeId, Workload},
};

/// Whether who comes through the tunnel is one whom a server's TLS settings would let in. What the
/// tunnel proves is an identity: of keys and certificates of the workload's own it knows nothing.
pub(super) fn satisfies(tls: &ServerTls, source: &Source) -> Result<(), Denied> {
    let refuse = |detail: String| Denied { reason: Reason::ClientIdentity, detail, matched: None };
    if !tls.spki_pins.is_empty() || !tls.hashes.is_empty() {
        return Err(refuse(
            "verifyCertificateSpki and verifyCertificateHash ask for a certificate of the client's \
             own, which nobody shows through the tunnel"
                .into(),
        ));
    }
    let names = &tls.subject_alt_names;
    let proven = source.principal.as_ref().map(ToString::to_string).unwrap_or_default();
    if names.is_empty() || names.contains(&proven) {
        return Ok(());
    }
    Err(refuse(format!(
        "found the identity {proven}, expected {} (subjectAltNames)",
        names.join(" or ")
    )))
}

impl GatewayPolicy {
    /// The TLS settings of the listener for tunnels; `None` where no tunnel leads to this process.
    #[must_use]
    pub fn tunnel(&self) -> Option<&Arc<ServerTls>> {
        self.tunnel.as_ref()
    }

    /// Who a tunnelled connection is from. `client` is what the tunnel's certificate proves, `peer`
    /// where it comes from; `claim` and `forwarded_for` are what it says of the workload.
    ///
    /// A node may speak for the workloads that are known to run there. A workload may speak for
    /// itself, with its own identity and from an address of its own.
    ///
    /// # Errors
    /// [`Reason::ClaimedWorkload`]: the workload isn't known, or `client` may not speak for it.
    pub fn claimed(
        &self,
        client: &SpiffeId,
        peer: IpAddr,
        claim: Option<&AssertedWorkload>,
        forwarded_for: Option<IpAddr>,
    ) -> Result<Source, Denied> {
        let refuse =
            |detail: String| Denied { reason: Reason::ClaimedWorkload, detail, matched: None };
        let peer = peer.to_canonical();
        let forwarded_for = forwarded_for.map(|addr| addr.to_canonical());
        let mesh = &self.snapshot.mesh;
        let meant = |workload: &&Arc<Workload>| match (claim, forwarded_for) {
            (Some(claim), _) => claim.is_about(workload),
            (None, Some(addr)) => workload.addresses.contains(&addr),
            (None, None) => workload.addresses.contains(&peer),
        };
        let mut known = mesh.workloads.iter().filter(meant).peekable();
        let whom = match (claim, forwarded_for) {
            (Some(claim), _) => format!("the workload {}/{}", claim.namespace.0, claim.name),
            (None, addr) => format!("the workload at {}", addr.unwrap_or(peer)),
        };
        if known.peek().is_none() {
            return Err(refuse(format!("{client} speaks for {whom}, which isn't known")));
        }
        let mut why = String::new();
        for workload in known {
            let addresses = &workload.addresses;
            if let Some(addr) = forwarded_for
                && !addresses.is_empty()
                && !addresses.contains(&addr)
            {
                why = format!("{addr} (forwarded) is none of its addresses");
                continue;
            }
            match self.speaks_for(client, peer, workload) {
                Ok(()) => {
                    // One on the host's network has no address but its node's.
                    let nodes = self.node_of(workload).map_or(&[][..], |node| &node.addresses);
                    let own = forwarded_for
                        .filter(|addr| addresses.contains(addr) || nodes.contains(addr));
                    return Ok(Source {
                        addr: own.or_else(|| addresses.first().copied()).unwrap_or(peer),
                        workload: Some(Arc::clone(workload)),
                        principal: Some(workload.principal(&mesh.trust_domain)),
                    });
                }
                Err(because) => why = because,
            }
        }
        Err(refuse(format!("{client} may not speak for {whom}: {why}")))
    }

    /// Whether a client with this identity and address may speak for the workload.
    fn speaks_for(
        &self,
        client: &SpiffeId,
        peer: IpAddr,
        workload: &Workload,
    ) -> Result<(), String> {
        let mesh = &self.snapshot.mesh;
        if *client == workload.principal(&mesh.trust_domain) && workload.addresses.contains(&peer) {
            return Ok(());
        }
        let Some(name) = &workload.node else {
            return Err("no node is known to run it (workloads[].node)".into());
        };
        let Some(node) = self.node_of(workload) else {
            return Err(format!("its node {name} isn't known"));
        };
        if *client != node.principal {
            return Err(format!("it runs on {name}, whose identity is {}", node.principal));
        }
        if !node.addresses.is_empty() && !node.addresses.contains(&peer) {
            return Err(format!("it runs on {name}, and {peer} is none of that node's addresses"));
        }
        Ok(())
    }

    fn node_of(&self, workload: &Workload) -> Option<&Node> {
        let name = workload.node.as_ref()?;
        self.snapshot.mesh.nodes.iter().find(|node| node.name == *name).map(Arc::as_ref)
    }

    /// What the hop proves, or why it isn't enough.
    pub(super) fn secured(
        &self,
        wanted: Hop,
        came: Hop,
        group: usize,
        host: &Host,
    ) -> Result<Secured, Denied> {
        match (wanted, came) {
            (Hop::Plain, Hop::Plain) => Ok(Secured::No),
            (Hop::Plain, Hop::Tunnel) => Ok(Secured::Besides),
            (Hop::Tunnel, Hop::Tunnel) => Ok(Secured::Tunnel),
            (Hop::Tunnel, Hop::Plain) => {
                let service = self.snapshot.mesh.gateways.get(group).map(|group| &group.service);
                let to = service.map(|name| format!(" to {name}")).unwrap_or_default();
                Err(refusal::plaintext(&format!("what {host} is asked, on the way{to},")))
            }
        }
    }
}
