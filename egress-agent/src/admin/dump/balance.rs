//! How endpoints are chosen, in `/config_dump`.

use serde_json::{Value, json};

use super::json::seconds;
use crate::policy::{
    ClusterLocality, ConsistentHash, EgressAddresses, EndpointPlace, HashKey, HashTable, Warmup,
};

pub(super) fn consistent_hash(hash: &ConsistentHash) -> Value {
    let (key, name) = match &hash.key {
        None => ("none", None),
        Some(HashKey::Header(name)) => ("header", Some(name.as_str())),
        Some(HashKey::Authority) => ("header", Some(":authority")),
        Some(HashKey::Path) => ("header", Some(":path")),
        Some(HashKey::Method) => ("header", Some(":method")),
        Some(HashKey::Cookie(cookie)) => ("cookie", Some(&*cookie.name)),
        Some(HashKey::SourceIp) => ("sourceIp", None),
        Some(HashKey::Query(name)) => ("queryParameter", Some(&**name)),
    };
    let table = match hash.table {
        HashTable::Ring { minimum } => json!({ "ringHash": { "minimumRingSize": minimum } }),
        HashTable::Maglev { size } => json!({ "maglev": { "tableSize": size } }),
    };
    json!({ "key": key, "name": name, "table": table })
}

pub(super) fn warmup(warmup: &Warmup) -> Value {
    json!({
        "duration": seconds(warmup.duration),
        "minimumPercent": warmup.minimum_percent,
        "aggression": warmup.aggression,
    })
}

pub(super) fn egress_addresses(from: &EgressAddresses) -> Value {
    json!({ "name": &*from.name, "addresses": from.addresses })
}

pub(super) fn locality(locality: &ClusterLocality) -> Value {
    let ClusterLocality { setting, ejects, places } = locality;
    let distribute = setting.distribute.iter().map(|entry| {
        let to = entry.to.iter().map(|(to, share)| (to.to_string(), json!(share)));
        json!({ "from": entry.from.to_string(), "to": to.collect::<serde_json::Map<_, _>>() })
    });
    let failover =
        setting.failover.iter().map(|(from, to)| json!({ "from": &**from, "to": &**to }));
    let labels = setting.failover_priority.iter().map(|(key, value)| match value {
        Some(value) => json!(format!("{key}={value}")),
        None => json!(&**key),
    });
    let place = |place: &EndpointPlace| json!({ "locality": place.locality.to_string(), "labels": place.labels });
    json!({
        "distribute": distribute.collect::<Vec<_>>(),
        "failover": failover.collect::<Vec<_>>(),
        "failoverPriority": labels.collect::<Vec<_>>(),
        "failsOver": ejects,
        "endpoints": places.iter().map(place).collect::<Vec<_>>(),
    })
}
