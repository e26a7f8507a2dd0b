//! Refusals, said so that a person knows what to change.

use std::sync::Arc;

use egress_ebpf::reason::Reason;

use crate::{
    policy::{
        Denied, EgressAccess, EgressPolicy, Grant, HttpRequest, RouteSet, ServerProtocol, Service,
        trace::{self, Step},
    },
    types::{GatewayPort, Host, OriginalPort, Port},
};

pub(super) fn denied(reason: Reason, detail: &str) -> Denied {
    Denied { reason, detail: detail.into(), matched: None }
}

/// No resource names the host. Where egress policies are in use, one of them would allow it as well.
pub(super) fn unknown_host(host: &Host, port: OriginalPort, has_policies: bool) -> Denied {
    let none = match has_policies {
        false => "no ServiceEntry names",
        true => "no ServiceEntry and no EgressPolicy for this workload names",
    };
    Denied {
        reason: Reason::HostNotInRegistry,
        detail: format!("{none} {host} with port {port}"),
        matched: None,
    }
}

/// The bytes aren't what the service entry says of the port.
pub(super) fn wrong_protocol(service: &Service, spoken: &str) -> Denied {
    let declared = service.protocol.declared();
    Denied {
        reason: Reason::WrongProtocol,
        detail: format!(
            "{spoken} was spoken to {}, whose port {} is declared {declared} (ServiceEntry {})",
            service.host, service.port, service.name
        ),
        matched: None,
    }
}

/// The bytes aren't what the gateway's server is for.
pub(super) fn wrong_stage(
    server: &ServerProtocol,
    host: &Host,
    port: GatewayPort,
    spoken: &str,
) -> Denied {
    Denied {
        reason: Reason::WrongProtocol,
        detail: format!(
            "{spoken} for {host} is routed to the gateway's port {port}, which serves {server}"
        ),
        matched: None,
    }
}

/// A virtual service is for the host, but none of its rules is for this request. `nearest` says what the
/// nearest one asks for.
pub(super) fn no_rule(set: &RouteSet, host: &Host, port: Port, nearest: &str) -> Denied {
    Denied {
        reason: Reason::NoMatchingRule,
        detail: format!("no rule of {} matches {host} port {port}{nearest}", set.label),
        matched: None,
    }
}

/// The same at the gateway's stage.
pub(super) fn no_stage_rule(host: &Host, port: GatewayPort, nearest: &str) -> Denied {
    Denied {
        reason: Reason::NoMatchingRule,
        detail: format!(
            "no rule of a VirtualService leads {host} on from the gateway's port {port}{nearest}"
        ),
        matched: None,
    }
}

/// A request inside TLS for a host that another server, or none, is for.
pub(super) fn other_server(host: &Host, port: GatewayPort) -> Denied {
    Denied {
        reason: Reason::HostNotServed,
        detail: format!(
            "{host} is not served on port {port} under the TLS settings of this connection; \
             connect with {host} as the server name"
        ),
        matched: None,
    }
}

/// A rule at the gateway's stage leads to a gateway.
pub(super) fn loops(port: GatewayPort) -> Denied {
    Denied {
        reason: Reason::NoGatewayRoute,
        detail: format!(
            "the rule for the gateway's port {port} leads to a gateway again; give its match \
             `gateways: [mesh]` and add one that leads to the external host"
        ),
        matched: None,
    }
}

/// It came in clear where it must not.
pub(super) fn plaintext(what: &str) -> Denied {
    Denied {
        reason: Reason::PlaintextHop,
        detail: format!(
            "{what} came to the gateway in clear, but the DestinationRule for the gateway's service \
             asks for mutual TLS: it is served through the node's tunnel alone"
        ),
        matched: None,
    }
}

/// A ClientHello with an encrypted one inside, where that isn't wanted.
pub(super) fn encrypted_hello(host: &Host) -> Denied {
    Denied {
        reason: Reason::EncryptedClientHello,
        detail: format!(
            "the ClientHello for {host} has an encrypted one inside (ECH), and encryptedClientHello \
             is deny"
        ),
        matched: None,
    }
}

/// A path without one meaning, where a rule asks for the path.
pub(super) fn ambiguous(request: &HttpRequest<'_>) -> Denied {
    Denied {
        reason: Reason::BadRequest,
        detail: format!(
            "the path of this request to {} can be read in two ways (dot segments, repeated or \
             encoded slashes, parameters, double or broken encoding), and a rule depends on it",
            request.host
        ),
        matched: None,
    }
}

/// The source's policies name the host and port, and not what was asked there.
pub(super) fn not_granted(asked: &str, nearest: &Grant) -> Denied {
    let allowed = match &nearest.rule.access {
        EgressAccess::Http { limits, .. } => format!("HTTP there, {limits}"),
        EgressAccess::Tls => "TLS there".into(),
        EgressAccess::Tcp { .. } => "raw TCP there".into(),
    };
    trace::note(|| Step::EgressDenied {
        policies: vec![Arc::clone(&nearest.policy.label)],
        why: format!("an egress policy names this host and port, and allows {allowed}"),
    });
    Denied {
        reason: Reason::EgressPolicyDenied,
        detail: format!("no policy allows {asked}; {} allows {allowed}", nearest.policy.label),
        matched: None,
    }
}

/// No policy of the source names the host, and without a policy it would pass (`ALLOW_ANY`).
pub(super) fn confined(host: &Host, port: OriginalPort, by: &EgressPolicy) -> Denied {
    trace::note(|| Step::EgressDenied {
        policies: vec![Arc::clone(&by.label)],
        why: "an egress policy confines the workload to what policies name".into(),
    });
    Denied {
        reason: Reason::EgressPolicyDenied,
        detail: format!(
            "no policy names {host} with port {port}, and {} confines this workload to what policies \
             name",
            by.label
        ),
        matched: None,
    }
}

/// Two raw TCP services come to the gateway in the same way.
pub(super) fn two_raw_services(one: &Grant, other: &Grant) -> Denied {
    trace::note(|| {
        let mut policies = vec![Arc::clone(&one.policy.label), Arc::clone(&other.policy.label)];
        policies.dedup();
        Step::EgressDenied {
            policies,
            why: format!("{} and {} are both raw TCP on one port", one.rule.host, other.rule.host),
        }
    });
    Denied {
        reason: Reason::EgressPolicyDenied,
        detail: format!(
            "{} names {} and {} names {} as raw TCP on port {}, and nothing tells them apart",
            one.policy.label, one.rule.host, other.policy.label, other.rule.host, one.rule.port
        ),
        matched: None,
    }
}
