//! Routes for HTTP of one parent and host become one virtual service, with their rules in the Gateway API's order.

use std::{collections::BTreeMap, rc::Rc};

use super::{
    super::{
        decode::{List, Records, SourcePosition},
        meta::Meta,
        resource::Resource,
        virtual_service::{HttpMatch, HttpRule, VirtualService},
    },
    attach::{Attached, Stage},
    matches::Rank,
    notes::at,
};
use crate::{policy::HostPattern, types::Namespace};

/// What routes have in common.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum AttachmentKey {
    /// Where traffic of these namespaces leaves the application, by routes of one namespace.
    Mesh(Namespace, Vec<String>),
    /// At the listener of this name.
    Listener(Rc<str>),
}

/// Rules by where they are asked.
#[derive(Default)]
pub(super) struct Merged(BTreeMap<(AttachmentKey, HostPattern), Group>);

struct Group {
    meta: Rc<Meta>,
    at: SourcePosition,
    export_to: List<String>,
    rules: Vec<(Rank, HttpRule)>,
}

impl Merged {
    /// Adds a rule; routes are added from the oldest on.
    pub(super) fn add(
        &mut self,
        meta: &Rc<Meta>,
        attached: &Attached,
        (rank, mut rule): (Rank, HttpRule),
    ) {
        let (place, exported, port) = match &attached.stage {
            Stage::Mesh { port, export_to } => {
                let names = export_to.iter().map(|to| to.value.clone()).collect();
                (
                    AttachmentKey::Mesh(meta.namespace.clone(), names),
                    export_to.clone(),
                    port.clone(),
                )
            }
            Stage::Listener(name, _) => {
                (AttachmentKey::Listener(Rc::clone(name)), List::new(), None)
            }
        };
        if let Some(port) = port {
            if rule.matches.0.is_empty() {
                rule.matches.0.push(HttpMatch::empty(&rule.at));
            }
            rule.matches.0.iter_mut().for_each(|one| one.port = Some(port.clone()));
        }
        rule.origin = Some(Rc::clone(meta));
        let group = self.0.entry((place, attached.host.clone())).or_insert_with(|| Group {
            meta: Rc::clone(meta),
            at: rule.at.clone(),
            export_to: exported,
            rules: Vec::new(),
        });
        group.rules.push((rank, rule));
    }

    /// The virtual services.
    pub(super) fn into_routes(self) -> Vec<Resource<VirtualService>> {
        let made = self.0.into_iter().map(|((place, host), group)| {
            let Group { meta, at: spot, export_to, mut rules } = group;
            rules.sort_by(|(a, _), (b, _)| a.cmp(b));
            let gateways = match place {
                AttachmentKey::Mesh(..) => Vec::new(),
                AttachmentKey::Listener(name) => vec![at(name.to_string(), &spot)],
            };
            let spec = VirtualService {
                hosts: vec![at(host.to_string(), &spot)],
                gateways,
                http: Records(rules.into_iter().map(|(_, rule)| rule).collect()),
                export_to,
                is_translated: true,
                ..VirtualService::empty(&spot)
            };
            Resource { meta: Meta::clone(&meta), spec }
        });
        made.collect()
    }
}
