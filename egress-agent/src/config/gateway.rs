//! Mirror of `Gateway`: what a gateway process serves.

use std::sync::Arc;

use super::decode::{Dict, List, Records, Spanned, choice, record};
use super::mesh::HelloChoice;
use crate::types::Port;

record! {
    /// `Gateway.spec`.
    struct Gateway {
        /// Labels of the gateway processes that this is for. Without any it is for none.
        "selector" selector: Dict<Spanned<String>> = "none",
        /// What they serve.
        "servers" servers: Records<Server> = required,
    }
    translated {
        /// The `Gateway` of the Gateway API that it is a listener of, where that one shares the gateway's
        /// service with others.
        owner: Option<Arc<str>>;
    }
}

record! {
    /// What a gateway serves on one port.
    struct Server {
        /// The port that a destination of the mesh stage names.
        "port" port: Option<GatewayServerPort> = required,
        /// Hosts served: names, `*.example.com`, `*`; before a `/` the namespace that a virtual service must be in (`.` is the gateway's own).
        "hosts" hosts: List<String> = required,
        /// TLS settings: required for `HTTPS` and `TLS`.
        "tls" tls: Option<ServerTls> = "none",
        /// A name for the server.
        "name" name: Option<Spanned<String>> = "none",
    }
    unsupported {
        "bind": Warning, "every port of the gateway's address is served by one listener";
        "defaultEndpoint": Error, "traffic is forwarded by virtual services only";
    }
}

record! {
    /// The port of a server.
    struct GatewayServerPort {
        /// Its number.
        "number" number: Option<Spanned<Port>> = required,
        /// Its name.
        "name" name: Option<Spanned<String>> = "none",
        /// `HTTP`, `HTTP2`, `GRPC`, `HTTPS`, `TLS` or `TCP`.
        "protocol" protocol: Option<Spanned<String>> = required,
    }
    unsupported {
        "targetPort": Warning, "a gateway listens on the port itself";
    }
}

record! {
    /// TLS at the gateway.
    struct ServerTls {
        /// What is done with TLS; see below.
        "mode" mode: Option<Spanned<ServerMode>> = "`SIMPLE`",
        /// With `PASSTHROUGH`: what becomes of an encrypted ClientHello, as `encryptedClientHello` of mesh.yaml.
        "encryptedClientHello" encrypted_client_hello: Option<Spanned<HelloChoice>> = "the mesh's",
        /// On a port that speaks HTTP: answer every request with a redirect to `https`.
        "httpsRedirect" https_redirect: Option<Spanned<bool>> = "`false`",
        /// File with the server's certificate chain, PEM, the leaf first.
        "serverCertificate" server_certificate: Option<Spanned<String>> = "none",
        /// File with its key, PEM.
        "privateKey" private_key: Option<Spanned<String>> = "none",
        /// File with the roots for client certificates, PEM. Required by `MUTUAL` and `OPTIONAL_MUTUAL`.
        "caCertificates" ca_certificates: Option<Spanned<String>> = "none",
        /// File with revocation lists, PEM. With it every client certificate must be covered by a list that is up to date.
        "caCrl" ca_crl: Option<Spanned<String>> = "none",
        /// Instead of files: the Secret of this name in the gateway's namespace, with `tls.crt`, `tls.key`, `ca.crt` and `ca.crl`. Without an API server, a directory of this name in the gateway's `--credentials-dir`.
        "credentialName" credential_name: Option<Spanned<String>> = "none",
        /// Several of them, typically one with an RSA key and one with an ECDSA key: a client is shown the one that fits it. The roots for client certificates are those of the first one.
        "credentialNames" credential_names: List<String> = "none",
        /// `serverCertificate` and `privateKey` of several certificates; a client is shown the one that fits it.
        "tlsCertificates" tls_certificates: Records<TlsCertificate> = "none",
        /// A client's certificate must hold one of these names.
        "subjectAltNames" subject_alt_names: List<String> = "any",
        /// A client's certificate must have one of these keys: base64 of the SHA-256 of the public key.
        "verifyCertificateSpki" verify_certificate_spki: List<String> = "any",
        /// A client's certificate must be one of these: SHA-256 in hexadecimal, with or without colons. Where `verifyCertificateSpki` is given too, one of both lists is enough.
        "verifyCertificateHash" verify_certificate_hash: List<String> = "any",
        /// Oldest version of TLS. Below `TLSV1_2` nothing is spoken.
        "minProtocolVersion" min_protocol_version: Option<Spanned<TlsProtocol>> = "`TLSV1_2`",
        /// Newest version of TLS.
        "maxProtocolVersion" max_protocol_version: Option<Spanned<TlsProtocol>> = "`TLSV1_3`",
        /// Cipher suites for TLS 1.2, by OpenSSL's names, the preferred one first. Those of TLS 1.3 are fixed.
        "cipherSuites" cipher_suites: List<String> = "all that are supported",
    }
    unsupported {
        "insecureSkipVerify": Warning, "the certificate of a client that has to show one is always verified";
        "caCertCredentialName": Error, "the roots are `ca.crt` in the directory of `credentialName`";
    }
}

record! {
    /// An entry of `tlsCertificates`.
    struct TlsCertificate {
        /// File with the server's certificate chain, PEM, the leaf first.
        "serverCertificate" server_certificate: Option<Spanned<String>> = "none",
        /// File with its key, PEM.
        "privateKey" private_key: Option<Spanned<String>> = "none",
        /// File with the roots for client certificates, PEM, where the server names none. Those of the first entry count.
        "caCertificates" ca_certificates: Option<Spanned<String>> = "none",
    }
}

choice! {
    /// What a server does with TLS.
    enum ServerMode {
        /// Forward it untouched.
        Passthrough = "PASSTHROUGH",
        /// End it.
        Simple = "SIMPLE",
        /// End it; the client must show a certificate.
        Mutual = "MUTUAL",
        /// End it with the gateway's own certificate in the mesh; the client must show one of the same trust domain.
        IstioMutual = "ISTIO_MUTUAL",
        /// End it; the client may show a certificate, which must be good then.
        OptionalMutual = "OPTIONAL_MUTUAL",
        /// Not supported.
        AutoPassthrough = "AUTO_PASSTHROUGH",
    }
}

choice! {
    /// A version of TLS.
    enum TlsProtocol {
        /// The default.
        Auto = "TLS_AUTO",
        /// Not spoken.
        V1_0 = "TLSV1_0",
        /// Not spoken.
        V1_1 = "TLSV1_1",
        /// TLS 1.2.
        V1_2 = "TLSV1_2",
        /// TLS 1.3.
        V1_3 = "TLSV1_3",
    }
}
