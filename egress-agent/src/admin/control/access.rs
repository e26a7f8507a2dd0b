//! Who may ask on the control socket, and for what.
//!
//! The kernel lets those connect that the socket's permissions allow: root and the agent's own user, and with
//! `--control-group` the members of one group. Who has connected is then known by the peer's credentials
//! (`SO_PEERCRED`, unix(7)), which the kernel took at the time of the connect: members of the group read, and
//! whatever changes something is for root and the agent's own user alone.

use std::{fs, io, os::unix::fs::lchown, path::Path, str::FromStr};

use http::Method;

/// Where names of groups are. Read here and not by the C library, whose other sources of names a static
/// program can't load.
const GROUPS: &str = "/etc/group";
/// Who owns the socket may use it, and nobody else.
const OWNER_ONLY: u32 = 0o600;
/// So may a group.
const WITH_GROUP: u32 = 0o660;

/// `--control-group`: a group by its name or number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ControlGroup(String);

impl FromStr for ControlGroup {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // What useradd(8) takes, and numbers.
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if (1..=32).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with('-') {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("found `{text}`, expected the name or number of a group"))
        }
    }
}

impl ControlGroup {
    /// Its number.
    fn number(&self) -> io::Result<u32> {
        if let Ok(number) = self.0.parse() {
            return Ok(number);
        }
        let text = fs::read_to_string(GROUPS)?;
        number_in(&text, &self.0).ok_or_else(|| {
            let why = format!("{GROUPS} has no group {}; make it with `groupadd`", self.0);
            io::Error::new(io::ErrorKind::NotFound, why)
        })
    }
}

/// The number of a group by lines as group(5) has them: `name:password:number:members`.
fn number_in(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

/// The permissions of a socket that nobody can connect to yet.
pub(super) fn place(socket: &Path, group: Option<&ControlGroup>) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = match group {
        Some(group) => {
            let number = group.number()?;
            lchown(socket, None, Some(number)).map_err(|error| {
                let why = format!("can't give it to the group {}: {error}", group.0);
                io::Error::new(error.kind(), why)
            })?;
            WITH_GROUP
        }
        None => OWNER_ONLY,
    };
    fs::set_permissions(socket, fs::Permissions::from_mode(mode))
}

/// The peer of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Caller {
    /// Root, or the agent's own user.
    Owner,
    /// A member of the group: may ask, and change nothing.
    Reader,
    /// None of these: the socket's permissions have been changed.
    Stranger,
}

impl Caller {
    /// By the peer's user. A group is one that the kernel has checked.
    pub(super) fn of(user: u32, own: u32, group: Option<&ControlGroup>) -> Self {
        match (user, group) {
            (0, _) => Self::Owner,
            (user, _) if user == own => Self::Owner,
            (_, Some(_)) => Self::Reader,
            (_, None) => Self::Stranger,
        }
    }

    /// Whether the caller may send a request with this method.
    pub(super) fn may(self, method: &Method) -> bool {
        match self {
            Self::Owner => true,
            Self::Reader => method.is_safe(),
            Self::Stranger => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let text = "root:x:0:\negress-ops:x:990:ann,bob\negress:x:991:\nbroken\nodd:x:no:\n";
        assert_eq!(number_in(text, "egress"), Some(991));
        assert_eq!(number_in(text, "egress-ops"), Some(990));
        assert_eq!(number_in(text, "root"), Some(0));
        for name in ["egres", "ann", "x", "broken", "odd", ""] {
            assert_eq!(number_in(text, name), None, "{name}");
        }
        for wrong in ["", "-a", "a b", "a:b", "a/b"] {
            assert!(wrong.parse::<ControlGroup>().is_err(), "{wrong}");
        }
        assert_eq!(ControlGroup("4711".into()).number().unwrap(), 4711);
        let error = ControlGroup("no-such-group".into()).number().unwrap_err().to_string();
        assert!(error.contains("groupadd"), "{error}");
    }

    #[test]
    fn a_reader_changes_nothing_and_a_stranger_gets_nothing() {
        let group = ControlGroup("egress".into());
        let caller = |user, group| Caller::of(user, 500, group);
        assert_eq!(caller(0, Some(&group)), Caller::Owner);
        assert_eq!(caller(500, None), Caller::Owner);
        assert_eq!(caller(1000, Some(&group)), Caller::Reader);
        assert_eq!(caller(1000, None), Caller::Stranger);
        for (caller, get, post) in [
            (Caller::Owner, true, true),
            (Caller::Reader, true, false),
            (Caller::Stranger, false, false),
        ] {
            let may = (caller.may(&Method::GET), caller.may(&Method::POST));
            assert_eq!(may, (get, post), "{caller:?}");
        }
    }
}
