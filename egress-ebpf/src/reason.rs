//! Why a verdict is what it is: one numbered enum for the kernel, the gateway, metrics, events and
//! the documentation.

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// Why a flow, a packet or a request was allowed, redirected or denied.
        ///
        /// The numbers are part of the map ABI and of the documentation: they are never reused.
        /// Below 16 things are allowed, from 16 the kernel denies, from 64 the gateway does.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum Reason { $($(#[$doc])* $name = $code,)* }

        impl Reason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in metrics, events and documentation.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The reason with this number.
            #[must_use]
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }
        }
    };
}

reasons! {
    /// The workload is exempt from enforcement.
    Exempt = 1, "exempt";
    /// Loopback never leaves the host.
    Loopback = 2, "loopback";
    /// The destination is in the cluster.
    Internal = 3, "internal";
    /// The destination is a gateway, on a port that a route names.
    Gateway = 4, "gateway";
    /// A route sends this port to the gateway.
    Routed = 5, "routed";
    /// The service may be reached without the gateway (`direct: registry`).
    Direct = 6, "direct";
    /// ARP or IPv6 neighbour discovery for the pod's own addresses.
    Neighbour = 7, "neighbour";
    /// Traffic of the node itself, not of a workload.
    Host = 8, "host";
    /// The answer to a connection, a datagram or a ping that came from an external host.
    Reply = 9, "reply";
    /// A route sends this port to the gateway through the node's tunnel (mutual TLS).
    Tunneled = 10, "tunneled";

    /// The address is explicitly denied, as the cloud's metadata service is.
    DeniedPrefix = 16, "denied_prefix";
    /// A gateway's address, on a port or protocol that no route names.
    GatewayPort = 17, "gateway_port";
    /// Nothing routes this port to a gateway.
    NoRoute = 18, "no_route";
    /// A route exists, but no endpoint of its gateway is healthy.
    NoHealthyGateway = 19, "no_healthy_gateway";
    /// No policy is loaded yet.
    NoPolicy = 20, "no_policy";
    /// A packet to an external address that didn't come through the connect hook.
    NotRedirected = 21, "not_redirected";
    /// The source address isn't the pod's.
    SpoofedSource = 22, "spoofed_source";
    /// Neither IPv4, IPv6 nor ARP, or tagged with a VLAN.
    EtherType = 23, "ether_type";
    /// IPv4 options, such as source routing, wherever they lead.
    IpOptions = 24, "ip_options";
    /// An IPv6 extension header other than a fragment's, wherever it leads: a routing header could
    /// lead elsewhere, and no other has a use here.
    ExtensionHeader = 25, "extension_header";
    /// A fragment to the outside.
    Fragment = 26, "fragment";
    /// A packet that ends early or contradicts itself.
    Malformed = 27, "malformed";
    /// A protocol other than TCP to the outside: UDP, ICMP, tunnels.
    Protocol = 28, "protocol";
    /// Broadcast or multicast.
    Multicast = 29, "multicast";
    /// The original destination could not be stored, so the connect is refused.
    OriginalDstFull = 30, "original_dst_full";
    /// An IPv6-only socket can't be redirected to an IPv4 gateway.
    Ipv6Only = 31, "ipv6_only";
    /// An interface that no workload is known for.
    UnknownInterface = 32, "unknown_interface";
    /// ARP or neighbour discovery for another's address, or a router advertisement.
    SpoofedNeighbour = 33, "spoofed_neighbour";
    /// An address family that the hook can't judge.
    AddressFamily = 34, "address_family";
    /// A socket of a family that workloads have no business with, or a packet socket on the host's
    /// network.
    SocketFamily = 35, "socket_family";
    /// A packet inside of a packet, which somebody in the cluster might unpack and send on.
    Encapsulation = 36, "encapsulation";
    /// The route leads through the tunnel, but this node has no tunnel listener that the socket can
    /// reach.
    NoTunnel = 37, "no_tunnel";
    /// A connection to the node's tunnel that the kernel didn't lead there.
    NoRecord = 38, "no_record";
    /// The tunnel's TLS failed: the gateway isn't trusted, doesn't trust this node, or one of them
    /// has no usable certificate.
    GatewayTls = 39, "gateway_tls";
    /// The gateway refused what the node asked of its tunnel.
    GatewayRefused = 40, "gateway_refused";
    /// The tunnel's gateway can't be reached, or doesn't answer.
    GatewayUnreachable = 41, "gateway_unreachable";
    /// The node's kernel would answer an external address that didn't ask over the uplink: the
    /// question came from the node itself or from one of its pods, in that address's name.
    UnsolicitedAnswer = 42, "unsolicited_answer";
    /// A checksum that is filled in after the last program has seen the packet, at another place
    /// than its protocol's: it would change what was judged.
    PartialChecksum = 43, "partial_checksum";
    /// A frame, or what ARP or neighbour discovery says, from a hardware address that is not the
    /// pod's, or that is not known yet.
    SpoofedHardware = 44, "spoofed_hardware";
    /// An ICMP error about a packet that was not sent to its sender.
    ForgedError = 45, "forged_error";
    /// External traffic of a workload that is not known yet.
    UnknownWorkload = 47, "unknown_workload";
    /// A message to the kernel that names another network namespace by its id, as the node's.
    OtherNamespace = 48, "other_namespace";

    /// The host isn't in the registry (`outboundTrafficPolicy: REGISTRY_ONLY`).
    HostNotInRegistry = 64, "host_not_in_registry";
    /// The host is known, but no route leads through a gateway (`direct: deny`).
    NoGatewayRoute = 65, "no_gateway_route";
    /// No `servers[]` entry of this gateway serves the host on the routed port.
    HostNotServed = 66, "host_not_served";
    /// The request can't be read, or could be read in two ways.
    BadRequest = 67, "bad_request";
    /// TLS without a server name.
    NoServerName = 68, "no_server_name";
    /// An IP address or an invalid name where a host name belongs.
    InvalidServerName = 69, "invalid_server_name";
    /// The server name is encrypted (ECH), so it can't be judged.
    EncryptedClientHello = 70, "encrypted_client_hello";
    /// The bytes are of another protocol than the port carries.
    WrongProtocol = 71, "wrong_protocol";
    /// CONNECT or Upgrade without a route that allows it.
    UpgradeRefused = 72, "upgrade_refused";
    /// The host resolves to an address that the gateway must not dial.
    AddressRefused = 73, "address_refused";
    /// The host's address couldn't be found.
    ResolveFailed = 74, "resolve_failed";
    /// The connection to the outside couldn't be made.
    ConnectFailed = 75, "connect_failed";
    /// The outside's certificate or TLS wasn't acceptable.
    UpstreamTls = 76, "upstream_tls";
    /// A deadline passed.
    Timeout = 77, "timeout";
    /// A limit on connections, requests or sizes was reached.
    Overflow = 78, "overflow";
    /// The peer ended the connection early.
    Reset = 79, "reset";
    /// No configuration has been accepted yet.
    NotConfigured = 80, "not_configured";
    /// The route answers by itself, by a fault or a direct response.
    RouteRefused = 81, "route_refused";
    /// No endpoint of the destination is healthy.
    NoHealthyUpstream = 82, "no_healthy_upstream";
    /// A server of the gateway that terminates TLS has no usable certificate.
    NoServerCertificate = 83, "no_server_certificate";
    /// TLS with the client failed: no version, suite or protocol in common, or it refused us.
    DownstreamTls = 84, "downstream_tls";
    /// The client showed no certificate where one is asked for.
    NoClientCertificate = 85, "no_client_certificate";
    /// No trusted CA vouches for the client's certificate.
    UntrustedClient = 86, "untrusted_client_certificate";
    /// The client's certificate has expired, or isn't valid yet.
    ExpiredClient = 87, "expired_client_certificate";
    /// The client's certificate is revoked, or nobody can tell.
    RevokedClient = 88, "revoked_client_certificate";
    /// The client's certificate is for somebody else: trust domain, name or fingerprint.
    ClientIdentity = 89, "client_identity";
    /// It came in clear, where the destination rule for the gateway asks for mutual TLS.
    PlaintextHop = 90, "plaintext_hop";
    /// A tunnel's client speaks for a workload that isn't known, or doesn't run where it does.
    ClaimedWorkload = 91, "claimed_workload";
    /// A destination rule asks for TLS to the destination, and it cannot be applied.
    TlsPolicyUnavailable = 92, "tls_policy_unavailable";
    /// The host is known and routed, but none of its rules is for this request.
    NoMatchingRule = 93, "no_matching_rule";
    /// The workload has as many look-ups of names waiting as its share allows.
    ResolveOverflow = 96, "resolve_overflow";
    /// An authorization policy of the gateway denies it, or cannot be honoured.
    AuthorizationPolicyDenied = 97, "authorization_policy_denied";
    /// No egress policy allows it to a workload that an egress policy is about.
    EgressPolicyDenied = 98, "egress_policy_denied";
    /// The workload asks more of the host than a rate limit allows.
    RateLimited = 99, "rate_limited";
    /// It is to be dialled from an address that the gateway does not have.
    EgressAddressUnavailable = 100, "egress_address_unavailable";
    /// A route of the Gateway API cannot be carried out: a reference, a filter or a field of it is not valid.
    InvalidRoute = 110, "invalid_route";
}
