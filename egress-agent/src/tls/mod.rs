//! Trust roots, origination, certificates and their reload.
