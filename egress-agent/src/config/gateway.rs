//! Mirror of `Gateway`: what a gateway process serves.

use super::decode::{At, Dict, List, Records, choice, record};
use crate::types::Port;

record! {
    /// `Gateway.spec`.
    struct Gateway {
        /// Labels of the gateway processes that this is for. Without any it is for none.
        "selector" selector: Dict<At<String>> = "none",
        /// What they serve.
        "servers" servers: Records<Server> = required,
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
        "name" name: Option<At<String>> = "none",
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
        "number" number: Option<At<Port>> = required,
        /// Its name.
        "name" name: Option<At<String>> = "none",
        /// `HTTP`, `HTTP2`, `GRPC`, `HTTPS`, `TLS` or `TCP`.
        "protocol" protocol: Option<At<String>> = required,
    }
    unsupported {
        "targetPort": Warning, "a gateway listens on the port itself";
    }
}

record! {
    /// TLS at the gateway.
    struct ServerTls {
        /// `PASSTHROUGH` forwards TLS untouched, by its server name.
        "mode" mode: Option<At<ServerTlsMode>> = "`SIMPLE`",
        /// On a port that speaks HTTP: answer every request with a redirect to `https`.
        "httpsRedirect" https_redirect: Option<At<bool>> = "`false`",
        /// File with the certificate chain. For modes that end TLS at the gateway, which are not supported yet.
        "serverCertificate" server_certificate: Option<At<String>> = "none",
        /// File with the key. See `serverCertificate`.
        "privateKey" private_key: Option<At<String>> = "none",
        /// File with the roots for client certificates. See `serverCertificate`.
        "caCertificates" ca_certificates: Option<At<String>> = "none",
        /// Secret with all three. See `serverCertificate`.
        "credentialName" credential_name: Option<At<String>> = "none",
    }
    unsupported {
        "credentialNames": Error, "TLS is not ended at the gateway yet";
        "tlsCertificates": Error, "TLS is not ended at the gateway yet";
        "caCrl": Error, "TLS is not ended at the gateway yet";
        "caCertCredentialName": Error, "TLS is not ended at the gateway yet";
        "subjectAltNames": Error, "TLS is not ended at the gateway yet";
        "verifyCertificateSpki": Error, "TLS is not ended at the gateway yet";
        "verifyCertificateHash": Error, "TLS is not ended at the gateway yet";
        "minProtocolVersion": Warning, "TLS is not ended at the gateway yet";
        "maxProtocolVersion": Warning, "TLS is not ended at the gateway yet";
        "cipherSuites": Warning, "TLS is not ended at the gateway yet";
    }
}

choice! {
    /// What a server does with TLS.
    enum ServerTlsMode {
        /// Forward it untouched.
        Passthrough = "PASSTHROUGH",
        /// End it. Not supported yet.
        Simple = "SIMPLE",
        /// End it, asking for a client certificate. Not supported yet.
        Mutual = "MUTUAL",
        /// The same with the mesh's certificates. Not supported yet.
        IstioMutual = "ISTIO_MUTUAL",
        /// End it, taking a client certificate where one comes. Not supported yet.
        OptionalMutual = "OPTIONAL_MUTUAL",
        /// Not supported.
        AutoPassthrough = "AUTO_PASSTHROUGH",
    }
}
