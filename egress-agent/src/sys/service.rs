//! Messages to the service manager (sd_notify(3)): datagrams to `$NOTIFY_SOCKET`.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

/// Sends assignments such as `READY=1`, one a line, where anybody asked for them.
pub fn notify(state: &str) {
    if let Some(socket) = env::var_os("NOTIFY_SOCKET")
        && let Err(error) = send(&socket, state)
    {
        tracing::warn!("can't tell $NOTIFY_SOCKET about the agent's state: {error}");
    }
}

/// A leading `@` stands for a name in Linux' abstract namespace.
fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let addr = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &addr)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_sockets_are_told() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("notify");
        let name = format!("egress-notify-test-{}", std::process::id());
        let named = SocketAddr::from_pathname(&path).unwrap();
        let hidden = SocketAddr::from_abstract_name(&name).unwrap();
        for (addr, env) in [(named, path.into_os_string()), (hidden, format!("@{name}").into())] {
            let socket = UnixDatagram::bind_addr(&addr).unwrap();
            send(&env, "READY=1\n").unwrap();
            let mut state = [0; 16];
            let got = socket.recv(&mut state).unwrap();
            assert_eq!(&state[..got], b"READY=1\n");
        }
        assert!(send(OsStr::new("/nowhere/at/all"), "READY=1\n").is_err());
    }
}
