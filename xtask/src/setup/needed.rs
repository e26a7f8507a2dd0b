//! Programs that are run, and the Debian packages that hold them.

/// Programs of the demo and the tests, and the packages that hold them.
pub(super) const TOOLS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("bridge", "iproute2"),
    ("ss", "iproute2"),
    ("curl", "curl"),
    ("ping", "iputils-ping"),
    ("nft", "nftables"),
    ("dig", "bind9-dnsutils"),
    ("setpriv", "util-linux"),
    ("python3", "python3"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
    ("cc", "gcc"),
    ("c++", "g++"),
    ("bpftool", "bpftool"),
    ("openssl", "openssl"),
    ("sysctl", "procps"),
    ("modprobe", "kmod"),
    ("strip", "binutils"),
    ("systemd-nspawn", "systemd-container"),
    ("dbus-daemon", "dbus"),
    ("systemctl", "systemd"),
    ("systemd-analyze", "systemd"),
    ("systemd-run", "systemd"),
    ("journalctl", "systemd"),
];

/// Clients and servers that the tests run against each other, and the packages that hold them.
pub(super) const PEERS: &[(&str, &str)] = &[
    ("h2load", "nghttp2-client"),
    ("nghttp", "nghttp2-client"),
    ("nginx", "nginx-light"),
    ("java", "openjdk-17-jdk-headless"),
    ("prometheus", "prometheus"),
    ("promtool", "prometheus"),
    ("chromium", "chromium"),
    ("certutil", "libnss3-tools"),
    ("firefox-esr", "firefox-esr"),
];

/// The same, libraries.
pub(super) const PEER_LIBRARIES: &[&str] =
    &["python3-grpcio", "python3-requests", "python3-httpx", "python3-h2"];

/// Programs that run other kernels, and the packages that hold them.
pub(super) const KERNEL_TOOLS: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("depmod", "kmod"),
    ("insmod", "kmod"),
    ("ldd", "libc-bin"),
];

/// Programs that make a fresh machine, and the packages that hold them.
pub(super) const FRESH_TOOLS: &[(&str, &str)] = &[
    ("debootstrap", "debootstrap"),
    ("pivot_root", "util-linux"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
    ("git", "git"),
];
