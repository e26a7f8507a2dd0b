//! Operators for a client's certificate.

/// What of a client's certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerPart {
    /// `%DOWNSTREAM_PEER_URI_SAN%`.
    UriSan,
    /// `%DOWNSTREAM_PEER_DNS_SAN%`.
    DnsSan,
    /// `%DOWNSTREAM_PEER_SUBJECT%`.
    Subject,
    /// `%DOWNSTREAM_PEER_ISSUER%`.
    Issuer,
    /// `%DOWNSTREAM_PEER_SERIAL%`.
    Serial,
    /// `%DOWNSTREAM_PEER_FINGERPRINT_256%`.
    Fingerprint,
    /// `%DOWNSTREAM_PEER_CERT_V_START%`.
    Start,
    /// `%DOWNSTREAM_PEER_CERT_V_END%`.
    End,
}
