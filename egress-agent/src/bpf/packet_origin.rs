//! Where this kernel keeps who made a packet, told to the programs before they are loaded.

use std::sync::OnceLock;

use aya::EbpfLoader;

use super::{
    Error,
    btf::{self, Types, VMLINUX},
};

/// Places in the kernel's structures, and the number of the agent's network namespace, which is the
/// node's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Fields {
    skb_sk: u32,
    skb_dst: u32,
    dst_dev: u32,
    dev_net: u32,
    sock_net: u32,
    sock_socket: u32,
    socket_file: u32,
    net_inum: u32,
    host_netns: u32,
}

/// Tells the programs about this kernel.
///
/// # Errors
/// [`Error::Types`]: without it nobody could tell the node from its workloads.
pub fn set_globals(loader: &mut EbpfLoader<'_>) -> Result<(), Error> {
    let fields = fields().ok_or(Error::Types { path: VMLINUX })?;
    loader
        .override_global("SKB_SK", &fields.skb_sk, true)
        .override_global("SKB_DST", &fields.skb_dst, true)
        .override_global("DST_DEV", &fields.dst_dev, true)
        .override_global("DEV_NET", &fields.dev_net, true)
        .override_global("SOCK_NET", &fields.sock_net, true)
        .override_global("SOCK_SOCKET", &fields.sock_socket, true)
        .override_global("SOCKET_FILE", &fields.socket_file, true)
        .override_global("NET_INUM", &fields.net_inum, true)
        .override_global("HOST_NETNS", &fields.host_netns, true);
    Ok(())
}

fn fields() -> Option<&'static Fields> {
    static FIELDS: OnceLock<Option<Fields>> = OnceLock::new();
    btf::once(&FIELDS, read)
}

fn read(description: &[u8]) -> Option<Fields> {
    let types = Types::new(description)?;
    Some(Fields {
        skb_sk: types.offset("sk_buff", "sk")?,
        skb_dst: types.offset("sk_buff", "_skb_refdst")?,
        dst_dev: types.offset("dst_entry", "dev")?,
        dev_net: types.offset("net_device", "nd_net")?,
        // A `sock` begins with its `sock_common`, as the kernel's short forms of one do.
        sock_net: types.offset("sock_common", "skc_net")?,
        sock_socket: types.offset("sock", "sk_socket")?,
        socket_file: types.offset("socket", "file")?,
        net_inum: types.namespace_number()?,
        host_netns: btf::own_network_namespace()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernels_packets_tell_who_made_them() {
        let fields = fields().unwrap();
        assert!(fields.skb_sk != 0 && fields.sock_net != 0 && fields.dev_net != 0);
        assert_eq!(read(b"garbage"), None);
    }
}
