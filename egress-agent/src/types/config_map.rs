//! Hash tables by what the configuration names.

use std::collections::HashMap;

/// A table whose keys come from the configuration: hosts, ports, workloads' addresses. Clients choose only what is
/// looked up, which makes no two keys collide. So its hash is a quick one; its seed is still the process's own.
/// A table that a client's requests fill keeps the keyed hash of the standard library.
pub type ConfigMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;
