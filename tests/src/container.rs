//! A shell in a pod with a container's capabilities.

use anyhow::Result;

use crate::{
    cluster::peer_program,
    process::{Finished, Place},
};

/// What a container has as root, and the two that let it arrange its network.
const CAPABILITIES: &str = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,\
                            +net_bind_service,+sys_chroot,+mknod,+audit_write,+setfcap,+net_raw,\
                            +net_admin";

/// Runs a shell script with a container's capabilities. `$ASK udp 203.0.113.9:9999` asks the attacker
/// outside.
///
/// # Errors
/// It can't be started.
pub fn container(place: &Place, script: &str) -> Result<Finished> {
    let bounds = format!("--bounding-set={CAPABILITIES}");
    let script = format!("ASK='{} ask'; {script}", peer_program()?);
    place.run("setpriv", &[&bounds, "--inh-caps=-all", "sh", "-c", &script])
}
