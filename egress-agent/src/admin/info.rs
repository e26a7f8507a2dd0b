//! What the process says of itself: `/server_info`, `/listeners`, `/certs`, `/memory`.

use std::time::SystemTime;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Listener, Status};
use crate::{
    sys::usage,
    telemetry::Telemetry,
    tls::{CredentialState, days_left},
};

pub(super) fn server(telemetry: &Telemetry, status: &Status) -> String {
    let config = status.config();
    let uptime = format!("{}s", telemetry.stats.uptime());
    let info = json!({
        "version": concat!("egress-agent/", env!("CARGO_PKG_VERSION")),
        "state": status.state().name(),
        "faults": status.faults(),
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "configuration": {
            "current": config.current,
            "accepted": config.accepted,
            "rejected": config.rejected,
        },
    });
    format!("{info:#}\n")
}

/// `name::address`, a line each.
pub(super) fn listeners_text(listeners: &[Listener]) -> String {
    listeners.iter().map(|Listener { name, address }| format!("{name}::{address}\n")).collect()
}

pub(super) fn listeners_json(listeners: &[Listener]) -> String {
    let all: Vec<Value> = listeners.iter().map(listener).collect();
    format!("{:#}\n", json!({ "listener_statuses": all }))
}

fn listener(Listener { name, address }: &Listener) -> Value {
    // What is captured has no one port.
    let local = match address.parse::<std::net::SocketAddr>() {
        Ok(addr) => socket_address(addr),
        Err(_) => json!({ "address": address }),
    };
    json!({ "name": name, "local_address": { "socket_address": local } })
}

/// Envoy's form of an address.
pub(super) fn socket_address(addr: std::net::SocketAddr) -> Value {
    json!({ "address": addr.ip(), "port_value": addr.port() })
}

/// The certificates in use. Of their keys nothing is said.
pub(super) fn certificates(states: &[CredentialState], now: SystemTime) -> String {
    let all: Vec<Value> = states.iter().map(|state| certificate(state, now)).collect();
    format!("{:#}\n", json!({ "certificates": all }))
}

fn certificate(state: &CredentialState, now: SystemTime) -> Value {
    let CredentialState { name, current, not_after, id, problems } = state;
    let end = not_after.and_then(|end| Timestamp::try_from(end).ok()).map(|end| end.to_string());
    let names: Vec<Value> = id.iter().map(|id| json!({ "uri": id.to_string() })).collect();
    let chain = not_after.map(|end| {
        json!({
            "path": name,
            "subject_alt_names": names,
            "days_until_expiration": days_left(end, now).to_string(),
        })
    });
    let mut chain: Vec<Value> = chain.into_iter().collect();
    if let (Some(Value::Object(fields)), Some(end)) = (chain.first_mut(), end) {
        fields.insert("expiration_time".into(), json!(end));
    }
    json!({ "name": name, "current": current, "problems": problems, "cert_chain": chain })
}

/// By Envoy's names: numbers are texts there.
pub(super) fn memory() -> String {
    let used = usage::now();
    let text = |value: Option<u64>| value.unwrap_or(0).to_string();
    let memory = json!({
        "allocated": text(used.resident),
        "heap_size": text(used.virtual_memory),
        "total_physical_bytes": text(used.resident),
    });
    format!("{memory:#}\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn listeners_have_both_forms() {
        let all = [
            Listener { name: "capture", address: "sk-lookup".into() },
            Listener { name: "admin", address: "127.0.0.1:15000".into() },
        ];
        assert_eq!(listeners_text(&all), "capture::sk-lookup\nadmin::127.0.0.1:15000\n");
        let json: Value = serde_json::from_str(&listeners_json(&all)).unwrap();
        let address = |index: usize| &json["listener_statuses"][index]["local_address"];
        assert_eq!(address(1)["socket_address"]["port_value"], 15000);
        assert_eq!(address(0)["socket_address"]["address"], "sk-lookup");
    }

    #[test]
    fn certificates_are_told_with_their_end_and_without_their_key() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let state = CredentialState {
            name: "shop-cert".into(),
            current: true,
            not_after: Some(now + Duration::from_secs(10 * 86_400 + 60)),
            id: None,
            problems: Vec::new(),
        };
        let absent = CredentialState { not_after: None, current: false, ..state.clone() };
        let json: Value = serde_json::from_str(&certificates(&[state, absent], now)).unwrap();
        let chain = &json["certificates"][0]["cert_chain"][0];
        assert_eq!(chain["days_until_expiration"], "10");
        assert_eq!(chain["expiration_time"], "2023-11-24T22:14:20Z");
        assert_eq!(json["certificates"][1]["cert_chain"], json!([]));
    }

    #[test]
    fn memory_is_what_the_kernel_says() {
        let json: Value = serde_json::from_str(&memory()).unwrap();
        let allocated: u64 = json["allocated"].as_str().unwrap().parse().unwrap();
        assert!(allocated > 1 << 20, "{json}");
    }
}
