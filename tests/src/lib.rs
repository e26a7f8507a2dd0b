//! Hosts in network namespaces, for the demo and the end-to-end tests.
