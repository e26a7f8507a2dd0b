//! Where a request may go, in which order.

use std::{cell::RefCell, net::IpAddr};

use super::order;
use crate::{policy::Endpoint, types::UpstreamAddr};

/// The endpoints to try for one request, in order; at least one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    pub(super) order: Vec<Endpoint>,
    /// The addresses to dial from, of IPv4 and of IPv6.
    pub(super) from: Option<[Option<IpAddr>; 2]>,
}

impl Plan {
    /// Their addresses, the balancer's choice first.
    pub fn addresses(&self) -> impl Iterator<Item = UpstreamAddr> {
        self.order.iter().map(|endpoint| UpstreamAddr(endpoint.addr))
    }

    /// Whether none of the host's addresses was left out for there being too many.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.order.len() < order::ATTEMPTS
    }

    /// The address to dial this one from.
    pub(super) fn from(&self, addr: UpstreamAddr) -> Option<IpAddr> {
        let [v4, v6] = self.from?;
        if addr.0.is_ipv6() { v6 } else { v4 }
    }
}

/// Lists of endpoints that were others' before, so that a plan asks for no memory: so many at most, none of
/// them long.
#[derive(Debug, Default)]
pub(super) struct Lists(RefCell<Vec<Vec<Endpoint>>>);

/// Lists that are kept, and how long they may be.
const KEPT: (usize, usize) = (64, 64);

impl Lists {
    /// An empty list.
    pub(super) fn take(&self) -> Vec<Endpoint> {
        self.0.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes one back.
    pub(super) fn keep(&self, mut list: Vec<Endpoint>) {
        let (lists, endpoints) = KEPT;
        let mut kept = self.0.borrow_mut();
        if kept.len() < lists && (1..=endpoints).contains(&list.capacity()) {
            list.clear();
            kept.push(list);
        }
    }
}
