//! A CPU whose programs interrupt each other, and an agent that changes the maps, at any point: what the
//! cache gives back is what the maps say.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
};

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::{
    abi::{
        EXEMPTION_TABLES, GatewayKey, Globals, PodAddress, PodPort, Route, RouteKey, route_action,
    },
    addr::{Addr, PortBe},
    decide::{PolicyRules, PolicyView, by_table},
    packet::protocol,
    reason::Reason,
    testing::{DIRECT, GATEWAY, INSIDE, OUTSIDE, OUTSIDE6, TABLE, UPLINK_TABLE, World, addr, flow},
    verdict::{Mode, Verdict},
};

/// Fewer than there are, so that keys share them.
const PLACES: usize = 2;
/// How deep programs interrupt each other.
const DEEPEST: u32 = 3;

/// What is asked.
#[derive(Clone, Copy, Debug)]
struct Question {
    place: Place,
    flow: Flow,
    table: TableId,
}

/// What happens between two steps of a program.
#[derive(Clone, Debug)]
enum Event {
    /// Nothing.
    Nothing,
    /// The agent takes its next step.
    Agent,
    /// Another program is run to its end, with one of the questions.
    Program(prop::sample::Index),
}

/// A change of the maps. What is there goes, and what isn't comes.
#[derive(Clone, Copy, Debug)]
enum Change {
    Denied(&'static str),
    Internal(&'static str),
    Gateway(&'static str),
    Direct(TableId, &'static str),
    Redirect(TableId),
    Generation,
}

/// One CPU, and the agent on another one.
struct Machine {
    world: RefCell<World>,
    /// Counts changes of the world.
    version: Cell<u32>,
    epoch: Cell<u64>,
    last_epoch: Cell<u64>,
    questions: Vec<Question>,
    changes: RefCell<VecDeque<Change>>,
    events: RefCell<VecDeque<Event>>,
    entries: [[Cell<u64>; 7]; PLACES],
    depth: Cell<u32>,
    hits: Cell<u32>,
}

impl Machine {
    fn new(questions: Vec<Question>, events: Vec<Event>, changes: Vec<Change>) -> Self {
        Self {
            world: RefCell::new(World::usual()),
            version: Cell::new(0),
            epoch: Cell::new(1),
            last_epoch: Cell::new(1),
            questions,
            changes: RefCell::new(changes.into()),
            events: RefCell::new(events.into()),
            entries: Default::default(),
            depth: Cell::new(0),
            hits: Cell::new(0),
        }
    }

    /// Between two steps of a program.
    fn tick(&self) {
        let event = self.events.borrow_mut().pop_front();
        match event {
            Some(Event::Agent) => self.agent(),
            Some(Event::Program(index)) if self.depth.get() < DEEPEST => {
                self.run(*index.get(&self.questions));
            }
            Some(Event::Nothing | Event::Program(_)) | None => {}
        }
    }

    /// No epoch, then a change, then a new epoch.
    fn agent(&self) {
        if self.epoch.get() != 0 {
            if !self.changes.borrow().is_empty() {
                self.epoch.set(0);
            }
            return;
        }
        if let Some(change) = self.changes.borrow_mut().pop_front() {
            change.make(&mut self.world.borrow_mut());
            self.version.set(self.version.get() + 1);
        } else {
            self.last_epoch.set(self.last_epoch.get() + 1);
            self.epoch.set(self.last_epoch.get());
        }
    }

    /// Runs a program. What it finds is what the maps say, if they were the same all the while.
    fn run(&self, Question { place, flow, table }: Question) {
        let before = self.version.get();
        self.depth.set(self.depth.get() + 1);
        let asked = Cell::new(false);
        let number = cached(Key::new(place, &flow, table), self, || {
            asked.set(true);
            Number::new(by_table(place, &flow, table, &self), Mode::Enforce)
        });
        self.depth.set(self.depth.get() - 1);
        if !asked.get() {
            self.hits.set(self.hits.get() + 1);
        }
        if before == self.version.get() {
            let expected = by_table(place, &flow, table, &*self.world.borrow());
            let expected = Number::new(expected, Mode::Enforce);
            assert_eq!(number, expected, "{place:?} {flow:?} {table}: {}", asked.get());
        }
    }
}

impl Change {
    fn make(self, world: &mut World) {
        fn toggle<T: PartialEq>(list: &mut Vec<T>, item: T) {
            let before = list.len();
            list.retain(|other| *other != item);
            if list.len() == before {
                list.push(item);
            }
        }
        match self {
            Self::Denied(text) => toggle(&mut world.denied, (128, addr(text))),
            Self::Internal(text) => toggle(&mut world.internal, (128, addr(text))),
            Self::Gateway(text) => {
                let gone: Vec<GatewayKey> =
                    world.gateways.iter().filter(|key| key.addr == addr(text)).copied().collect();
                world.gateways.retain(|key| key.addr != addr(text));
                if gone.is_empty() {
                    world.add_gateway(text, 443);
                }
            }
            Self::Direct(table, text) => {
                let before = world.routes.len();
                world.routes.retain(|(_, key, route)| {
                    !(key.table == table
                        && key.addr == addr(text)
                        && route.action == route_action::DIRECT)
                });
                if world.routes.len() == before {
                    let prefix = Some((128, addr(text)));
                    world.add_route(table, Some(443), prefix, route_action::DIRECT, 0);
                }
            }
            Self::Redirect(table) => {
                let before = world.routes.len();
                world.routes.retain(|(_, key, route)| {
                    !(key.table == table
                        && key.port == PortBe::new(443)
                        && route.action == route_action::REDIRECT)
                });
                if world.routes.len() == before {
                    world.redirect(table, 443, 0);
                }
            }
            Self::Generation => world.generation ^= 1,
        }
    }
}

impl Entry for (&Machine, u32) {
    fn load(&self, word: Word) -> u64 {
        self.0.tick();
        self.0.entries[self.1 as usize % PLACES][word as usize].get()
    }

    fn store(&self, word: Word, value: u64) {
        self.0.tick();
        self.0.entries[self.1 as usize % PLACES][word as usize].set(value);
    }

    fn add_one(&self, word: Word) {
        self.0.tick();
        let word = &self.0.entries[self.1 as usize % PLACES][word as usize];
        word.set(word.get() + 1);
    }
}

impl<'a> Cache for &'a Machine {
    type Entry = (&'a Machine, u32);

    fn epoch(&self) -> u64 {
        self.tick();
        self.epoch.get()
    }

    fn entry(&self, place: u32) -> Option<Self::Entry> {
        self.tick();
        Some((self, place))
    }
}

/// The maps, between any two look-ups of which something happens.
impl PolicyView for &Machine {
    fn globals(&self) -> Globals {
        self.tick();
        self.world.borrow().globals()
    }

    fn policy(&self, policy: u32) -> PolicyRules {
        self.world.borrow().policy(policy)
    }

    fn is_denied(&self, addr: &Addr) -> bool {
        self.tick();
        self.world.borrow().is_denied(addr)
    }

    fn is_internal(&self, addr: &Addr) -> bool {
        self.tick();
        self.world.borrow().is_internal(addr)
    }

    fn is_gateway(&self, key: &GatewayKey) -> bool {
        self.tick();
        self.world.borrow().is_gateway(key)
    }

    fn route(&self, key: &RouteKey) -> Option<Route> {
        self.tick();
        self.world.borrow().route(key)
    }

    fn interface(&self, ifindex: u32) -> Option<PodPort> {
        self.world.borrow().interface(ifindex)
    }

    fn is_pod_address(&self, key: &PodAddress) -> bool {
        self.world.borrow().is_pod_address(key)
    }
}

const ADDRESSES: [&str; 5] = [OUTSIDE, OUTSIDE6, DIRECT, GATEWAY, INSIDE];
const TABLES: [TableId; 3] = [TABLE, UPLINK_TABLE, EXEMPTION_TABLES];

fn question() -> impl Strategy<Value = Question> {
    let places = select(vec![Place::Wire, Place::Skb, Place::Socket]);
    let to = (select(ADDRESSES.to_vec()), select(vec![443, 9000, 15000]));
    let protocol = select(vec![protocol::TCP, protocol::UDP]);
    let others = (prop::bool::weighted(0.1), select(TABLES.to_vec()));
    (places, to, protocol, others).prop_map(|(place, (to, port), protocol, (fragment, table))| {
        let flow = Flow { fragment, ..flow(protocol, to, port) };
        Question { place, flow, table }
    })
}

fn change() -> impl Strategy<Value = Change> {
    let address = || select(ADDRESSES.to_vec());
    let table = || select(TABLES.to_vec());
    prop_oneof![
        address().prop_map(Change::Denied),
        address().prop_map(Change::Internal),
        address().prop_map(Change::Gateway),
        (table(), address()).prop_map(|(table, to)| Change::Direct(table, to)),
        table().prop_map(Change::Redirect),
        Just(Change::Generation),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Nothing),
        2 => Just(Event::Agent),
        3 => any::<prop::sample::Index>().prop_map(Event::Program),
    ]
}

/// What a program does.
fn cached(key: Key, machine: &Machine, find: impl FnOnce() -> Number) -> Number {
    match look_up(key, &machine) {
        Ok(number) => number,
        Err(missing) => missing.keep(find()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_cache_says_what_the_maps_say(
        few in vec(question(), 2..5),
        order in vec(any::<prop::sample::Index>(), 1..40),
        events in vec(event(), 0..400),
        changes in vec(change(), 0..8),
    ) {
        let machine = Machine::new(few, events, changes);
        for index in order {
            machine.run(*index.get(&machine.questions));
            machine.tick();
        }
    }

    /// Whose a cgroup is, is kept beside verdicts.
    #[test]
    fn no_verdict_is_taken_for_an_owner(question in question(), cgroup: u64, other: u64) {
        let Question { place, flow, table } = question;
        let Key { addr, what } = Key::new(place, &flow, table);
        prop_assert_ne!(Key { addr, what }, Key::owner(addr[0]));
        prop_assert!(what & 0xff00_0000 != Key::owner(cgroup).what & 0xff00_0000);
        prop_assert_eq!(Key::owner(cgroup) == Key::owner(other), cgroup == other);
        prop_assert!(Key::owner(cgroup).place() < VERDICTS);
    }

    /// Whatever a verdict depends on is in its key.
    #[test]
    fn keys_that_are_equal_have_equal_verdicts(one in question(), other in question()) {
        let key = |Question { place, flow, table }: &Question| Key::new(*place, flow, *table);
        if key(&one) == key(&other) {
            let judge = |Question { place, flow, table }: &Question| {
                by_table(*place, flow, *table, &World::usual())
            };
            prop_assert_eq!(judge(&one), judge(&other));
        }
        let source = Flow { source: addr(INSIDE), source_port: PortBe::new(1), ..one.flow };
        prop_assert_eq!(key(&Question { flow: source, ..one }), key(&one), "it depends on no source");
        prop_assert!(key(&one).place() < VERDICTS);
    }
}

#[test]
fn what_was_found_is_not_looked_up_again() {
    let machine = Machine::new(Vec::new(), Vec::new(), Vec::new());
    let question = Question { place: Place::Wire, flow: flow(6, OUTSIDE, 443), table: TABLE };
    for _ in 0..3 {
        machine.run(question);
    }
    assert_eq!(machine.hits.get(), 2);
    // Without an epoch nothing is kept, and nothing that was kept is used.
    machine.epoch.set(0);
    for _ in 0..3 {
        machine.run(question);
    }
    assert_eq!(machine.hits.get(), 2);
    machine.epoch.set(2);
    machine.run(question);
    assert_eq!(machine.hits.get(), 2, "it was found in another epoch");
}

#[test]
fn a_removed_route_is_refused_at_the_next_packet() {
    let machine = Machine::new(Vec::new(), Vec::new(), vec![Change::Direct(TABLE, OUTSIDE)]);
    let question = Question { place: Place::Wire, flow: flow(6, OUTSIDE, 443), table: TABLE };
    let verdict = || {
        let key = Key::new(question.place, &question.flow, TABLE);
        cached(key, &machine, || {
            Number::new(by_table(question.place, &question.flow, TABLE, &&machine), Mode::Enforce)
        })
    };
    let number = |verdict| Number::new(verdict, Mode::Enforce);
    assert_eq!(verdict(), number(Verdict::deny(Reason::NotRedirected)));
    (0..3).for_each(|_| machine.agent());
    assert_eq!(verdict(), number(Verdict::allow(Reason::Direct)));
    machine.changes.borrow_mut().push_back(Change::Direct(TABLE, OUTSIDE));
    machine.agent();
    machine.agent();
    assert_eq!(verdict(), number(Verdict::deny(Reason::NotRedirected)), "while the maps change");
    machine.agent();
    assert_eq!(verdict(), number(Verdict::deny(Reason::NotRedirected)));
}
