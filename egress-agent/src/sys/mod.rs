//! Sockets, namespaces, cgroups, splice: the only `unsafe` besides `bpf::pod`.
