//! Istio's resources as users write them, and their compilation to one snapshot.
