//! Which of a gateway group's endpoints a connect goes to.

use crate::{
    abi::{GROUP_ENDPOINTS, Group},
    addr::Addr,
};

/// What a socket can reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// IPv4 alone: an `AF_INET` socket.
    V4,
    /// IPv6 by preference, IPv4 by mapped addresses: an `AF_INET6` socket that dialled IPv6.
    V6First,
    /// IPv4 by preference: an `AF_INET6` socket that dialled a mapped address.
    V4First,
}

impl Group {
    /// No endpoint.
    pub const EMPTY: Self =
        Self { count: 0, count_v4: 0, endpoints: [Addr::UNSPECIFIED; GROUP_ENDPOINTS] };

    /// The first [`GROUP_ENDPOINTS`] of these, in the order that [`Group::pick`] relies on.
    #[must_use]
    pub fn new(healthy: &[Addr]) -> Self {
        let healthy = || healthy.iter().take(GROUP_ENDPOINTS);
        let v4 = healthy().filter(|addr| addr.is_v4());
        let v6 = healthy().filter(|addr| !addr.is_v4());
        let mut group = Self::EMPTY;
        for (slot, addr) in group.endpoints.iter_mut().zip(v4.chain(v6)) {
            *slot = *addr;
            group.count += 1;
            group.count_v4 += u32::from(addr.is_v4());
        }
        group
    }

    /// A healthy endpoint that the socket can reach, by chance; `None` where there is none.
    #[inline(always)]
    #[must_use]
    pub fn pick(&self, random: u32, reach: Reach) -> Option<Addr> {
        let v4 = (0, self.count_v4);
        let v6 = (self.count_v4, self.count.saturating_sub(self.count_v4));
        let (start, count) = match reach {
            Reach::V4 => v4,
            Reach::V4First if v4.1 > 0 => v4,
            Reach::V6First if v6.1 == 0 => v4,
            Reach::V4First | Reach::V6First => v6,
        };
        let chosen = start.checked_add(random.checked_rem(count)?)?;
        self.endpoints.get(usize::try_from(chosen).ok()?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: Addr = Addr::v4([192, 0, 2, 10]);
    const OTHER_V4: Addr = Addr::v4([192, 0, 2, 11]);
    const V6: Addr = Addr::v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

    #[test]
    fn every_healthy_endpoint_is_picked_and_no_other() {
        let mut group = Group::new(&[V4, OTHER_V4]);
        group.endpoints[2] = Addr::v4([192, 0, 2, 12]);
        let picked: Vec<_> = (0..4).map(|random| group.pick(random, Reach::V4)).collect();
        assert_eq!(picked, [Some(V4), Some(OTHER_V4), Some(V4), Some(OTHER_V4)]);
    }

    #[test]
    fn a_socket_gets_only_what_it_can_reach() {
        let both = Group::new(&[V6, V4]);
        for random in [0, 1, 2, u32::MAX] {
            assert_eq!(both.pick(random, Reach::V4), Some(V4));
            assert_eq!(both.pick(random, Reach::V4First), Some(V4));
            assert_eq!(both.pick(random, Reach::V6First), Some(V6));
        }
        assert_eq!(Group::new(&[V6]).pick(0, Reach::V4), None);
        assert_eq!(Group::new(&[V6]).pick(0, Reach::V4First), Some(V6));
        assert_eq!(Group::new(&[V4]).pick(0, Reach::V6First), Some(V4));
    }

    #[test]
    fn none_is_picked_from_an_empty_group() {
        assert_eq!(Group::new(&[]).pick(7, Reach::V6First), None);
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let mut many = vec![V4; GROUP_ENDPOINTS];
        many.push(V6);
        let group = Group::new(&many);
        assert_eq!((group.count, group.count_v4), (32, 32));
    }

    #[test]
    fn corrupt_counts_stay_inside() {
        let mut group = Group::new(&[V4; GROUP_ENDPOINTS]);
        group.count = u32::MAX;
        group.count_v4 = u32::MAX;
        assert_eq!(group.pick(u32::MAX - 1, Reach::V4), None);
        group.count = 1;
        assert_eq!(group.pick(5, Reach::V4First), Some(V4));
    }
}
