use super::*;
use crate::testing::addr;

fn slot() -> Slot {
    Slot { ifindex: 70_000, v4: [10, 0, 0, 5], v6: addr("fd00::5"), ..Slot::FREE }
}

#[test]
fn a_slot_holds_its_own_addresses_and_no_others() {
    for own in ["10.0.0.5", "fd00::5"] {
        assert!(slot().holds(&addr(own)), "{own}");
        assert!(!Slot::FREE.holds(&addr(own)), "{own}");
    }
    for other in ["10.0.0.6", "fd00::6", "::10.0.0.5", "0.0.0.0", "::", "64:ff9b::a00:5"] {
        assert!(!slot().holds(&addr(other)), "{other}");
        assert!(!Slot::FREE.holds(&addr(other)), "{other}");
    }
    assert_eq!(slot().addresses().collect::<Vec<_>>(), [addr("10.0.0.5"), addr("fd00::5")]);
    assert_eq!(Slot::FREE.addresses().count(), 0);
}

#[test]
fn what_belongs_together_is_one_word() {
    assert_eq!(core::mem::offset_of!(Slot, ifindex), 0);
    assert_eq!(core::mem::offset_of!(Slot, policy), 4);
    assert_eq!(core::mem::offset_of!(Slot, hardware), 8);
    assert_eq!(core::mem::offset_of!(Slot, check), 14);
    assert_eq!(align_of::<Slot>(), 8);
    assert_eq!(size_of::<Slot>(), 48);
}

#[test]
fn every_slot_has_a_note_of_its_own_that_fits() {
    for slot in [0, 1, 15, 16, SLOTS - 1] {
        assert_eq!(note::slot(note::of(slot)), Some(slot));
        assert!(u16::try_from(note::of(slot)).is_ok());
    }
    // What another queueing discipline may leave there is no note.
    for other in (0..16).chain([note::of(SLOTS), u32::from(u16::MAX), u32::MAX]) {
        assert_eq!(note::slot(other), None, "{other}");
    }
    assert_eq!(note::slot(note::NONE), None);
}
