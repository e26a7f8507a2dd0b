//! TLS of the listener for tunnels.

use std::sync::Arc;

use crate::policy::{
    CredentialSource, InnerProtocol, MeshConfig, ServerTls, ServerTlsMode, TlsVersion,
};

/// How the listener for tunnels speaks TLS; `None` where no tunnel leads to this process.
pub(super) fn settings(mesh: &MeshConfig, member: &[bool]) -> Option<Arc<ServerTls>> {
    let mut own = mesh.gateways.iter().zip(member).filter(|(_, member)| **member);
    let wanted = own.any(|(group, _)| group.tunnel.is_some()) || !mesh.nodes.is_empty();
    wanted.then(|| {
        Arc::new(ServerTls {
            mode: ServerTlsMode::IstioMutual(mesh.trust_domain.clone()),
            credential: CredentialSource::Own,
            other_certificates: Vec::new(),
            inside: InnerProtocol::Http,
            min_version: TlsVersion::V1_3,
            max_version: TlsVersion::V1_3,
            cipher_suites: Vec::new(),
            key_groups: mesh.key_groups.clone(),
            subject_alt_names: Vec::new(),
            spki_pins: Vec::new(),
            hashes: Vec::new(),
        })
    })
}
