//! `localityLbSetting`, and where gateways and endpoints are.

use ipnet::IpNet;

use super::super::{
    decode::{Cx, Spanned},
    load_balancer::{LocalityLbSetting, LocalityShare, RegionFailover},
    mesh::MeshLocality,
    names,
};
use crate::policy::{
    Distribution, Locality, LocalityPattern, LocalitySetting, REGION, SUBZONE, ZONE,
};

/// The setting; `None` where it is switched off.
pub(super) fn setting(mirror: &LocalityLbSetting, cx: &mut Cx<'_>) -> Option<LocalitySetting> {
    let LocalityLbSetting { at, distribute, failover, failover_priority, enabled } = mirror;
    let given = [
        (!distribute.0.is_empty()).then_some("distribute"),
        (!failover.0.is_empty()).then_some("failover"),
        (!failover_priority.is_empty()).then_some("failoverPriority"),
    ];
    if let [Some(_), Some(other), _] | [Some(_), _, Some(other)] = given {
        let message = format!("distribute and {other} can't be given together");
        cx.wrong(&at.field(other), other, "nothing", message);
    }
    let topology = failover_priority.iter().find(|label| {
        [REGION, ZONE, SUBZONE].contains(&label.value.split('=').next().unwrap_or_default())
    });
    if let Some(label) = topology.filter(|_| !failover.0.is_empty()) {
        let message = "failover says what follows from the locality";
        cx.wrong(&label.at, format!("{:?}", label.value), "another label", message);
    }
    let from: Vec<_> = distribute.0.iter().filter_map(|share| share.from.as_ref()).collect();
    apart(&from, cx);
    let read = LocalitySetting {
        distribute: distribute.0.iter().filter_map(|share| distribution(share, cx)).collect(),
        failover: failover.0.iter().filter_map(|one| regions(one, cx)).collect(),
        failover_priority: failover_priority
            .iter()
            .map(|label| match label.value.split_once('=') {
                Some((key, value)) => (key.into(), Some(value.into())),
                None => (label.value.as_str().into(), None),
            })
            .collect(),
    };
    enabled.as_ref().is_none_or(|enabled| enabled.value).then_some(read)
}

fn distribution(share: &LocalityShare, cx: &mut Cx<'_>) -> Option<Distribution> {
    let LocalityShare { at, from, to } = share;
    let from = pattern(from.as_ref()?, cx)?;
    apart(&to.0.iter().map(|(name, _)| name).collect::<Vec<_>>(), cx);
    let mut read = Vec::new();
    let mut all = 0_u64;
    for (name, weight) in &to.0 {
        if !(1..=100).contains(&weight.value) {
            let found = weight.value.to_string();
            cx.wrong(&weight.at, found, "1 to 100", "no share of a hundred requests");
        }
        all += u64::from(weight.value);
        read.push((pattern(name, cx)?, weight.value));
    }
    if all != 100 {
        cx.wrong(&at.field("to"), all.to_string(), "100 in all", "no shares of a hundred requests");
    }
    Some(Distribution { from, to: read })
}

fn regions(failover: &RegionFailover, cx: &mut Cx<'_>) -> Option<(Box<str>, Box<str>)> {
    let RegionFailover { at: _, from, to } = failover;
    let (from, to) = (from.as_ref()?, to.as_ref()?);
    for region in [from, to].into_iter().filter(|region| region.value.contains(['/', '*'])) {
        let found = format!("{:?}", region.value);
        cx.wrong(&region.at, found, "a region", "failover is between regions");
    }
    if from.value == to.value {
        let found = format!("{:?}", to.value);
        cx.wrong(&to.at, found, "another region", "a region can't take over from itself");
    }
    Some((from.value.as_str().into(), to.value.as_str().into()))
}

/// `*` is one part, the last one.
fn pattern(text: &Spanned<String>, cx: &mut Cx<'_>) -> Option<LocalityPattern> {
    let parts: Vec<&str> = text.value.split('/').collect();
    let (last, first) = parts.split_last()?;
    let good = parts.len() <= 3
        && !parts.iter().any(|part| part.is_empty())
        && !first.iter().any(|part| part.contains('*'))
        && (*last == "*" || !last.contains('*'));
    if !good {
        let expected = "region/zone/subzone, where * may stand for the last part";
        cx.wrong(&text.at, format!("{:?}", text.value), expected, "no locality");
        return None;
    }
    Some(LocalityPattern::parse(&text.value))
}

/// Reports localities of one list that are in one another.
fn apart(all: &[&Spanned<String>], cx: &mut Cx<'_>) {
    for (index, one) in all.iter().enumerate() {
        let mut before = all.iter().take(index);
        let within = |outer: &str, inner: &str| {
            LocalityPattern::parse(outer).matches(&Locality::parse(inner))
        };
        let over = before
            .find(|other| within(&one.value, &other.value) || within(&other.value, &one.value));
        if let Some(other) = over {
            let message = format!("it overlaps with {:?}", other.value);
            cx.wrong(&one.at, format!("{:?}", one.value), "localities apart", message);
        }
    }
}

/// Where an endpoint is.
pub(super) fn locality(text: Option<&Spanned<String>>, cx: &mut Cx<'_>) -> Locality {
    let Some(text) = text.filter(|text| !text.value.is_empty()) else { return Locality::default() };
    let parts: Vec<&str> = text.value.split('/').collect();
    if parts.len() > 3 || parts.iter().any(|part| part.is_empty() || part.contains('*')) {
        let found = format!("{:?}", text.value);
        cx.wrong(&text.at, found, "region/zone/subzone, or its first parts", "no locality");
    }
    Locality::parse(&text.value)
}

/// `localities` of `mesh.yaml`.
pub(super) fn of_gateways(given: &[MeshLocality], cx: &mut Cx<'_>) -> Vec<(IpNet, Locality)> {
    let mut read = Vec::new();
    for MeshLocality { at: _, locality: text, addresses } in given {
        let place = locality(text.as_ref(), cx);
        let nets = addresses.iter().filter_map(|text| names::network(text, cx));
        read.extend(nets.collect::<Vec<_>>().into_iter().map(|net| (net, place.clone())));
    }
    read
}
