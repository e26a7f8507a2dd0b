//! What became of an attempt, and what its sender can tell of where it was stopped.

use std::{fmt, io};

/// The call that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// Making a socket or setting it up.
    Prepare,
    /// `connect`.
    Connect,
    /// Sending.
    Send,
    /// A question over netlink.
    Netlink,
}

/// What became of an attempt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// An answer came back: it got out.
    Answered(String),
    /// It was sent, as far as the sender can tell. Only the canary's report can tell the rest.
    NoAnswer(String),
    /// Something other than the canary answered: a gateway, if there is one.
    Intercepted(String),
    /// The kernel refused it to its face.
    Refused {
        /// In which call.
        call: Call,
        /// The error's number.
        errno: i32,
    },
    /// It can't be made here, and why.
    NotApplicable(String),
    /// It should have been possible, and the probe failed.
    Error(String),
}

/// Where an attempt was stopped, as far as its sender can tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layer {
    /// Nowhere: it got out.
    None,
    /// The hooks on `connect` and `sendmsg` of the workload's cgroup.
    SocketHook,
    /// The hook on the packets of the workload's cgroup.
    PacketHook,
    /// The pod's own kernel interface: a security module, seccomp, a missing right.
    Kernel,
    /// It was sent and is lost: at the enforcement point, at the uplink, or beyond.
    Wire,
    /// A gateway took it.
    Gateway,
}

impl Layer {
    /// The name in the table and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::SocketHook => "socket hook",
            Self::PacketHook => "packet hook",
            Self::Kernel => "kernel",
            Self::Wire => "after sending",
            Self::Gateway => "gateway",
        }
    }
}

impl Outcome {
    /// The name in the table and in JSON.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Answered(_) => "answered",
            Self::NoAnswer(_) => "no_answer",
            Self::Intercepted(_) => "intercepted",
            Self::Refused { .. } => "refused",
            Self::NotApplicable(_) => "not_applicable",
            Self::Error(_) => "error",
        }
    }

    /// Where it was stopped. A refusal's errors are those that the hooks give: `EACCES` and
    /// `ECONNREFUSED` since kernel 5.18, `EPERM` before; the cgroup's packet hook makes a send fail
    /// with `EPERM`.
    #[must_use]
    pub const fn layer(&self) -> Option<Layer> {
        match self {
            Self::Answered(_) => Some(Layer::None),
            Self::NoAnswer(_) => Some(Layer::Wire),
            Self::Intercepted(_) => Some(Layer::Gateway),
            Self::Refused { call, errno } => Some(match (call, *errno) {
                (Call::Prepare | Call::Netlink, _) => Layer::Kernel,
                (Call::Connect, libc::EACCES | libc::EPERM | libc::ECONNREFUSED)
                | (Call::Send, libc::EACCES | libc::ECONNREFUSED) => Layer::SocketHook,
                (Call::Send, libc::EPERM) => Layer::PacketHook,
                (Call::Connect | Call::Send, _) => Layer::Kernel,
            }),
            Self::NotApplicable(_) | Self::Error(_) => None,
        }
    }

    /// What is to be said beside name and layer.
    #[must_use]
    pub fn detail(&self) -> String {
        match self {
            Self::Answered(text)
            | Self::NoAnswer(text)
            | Self::Intercepted(text)
            | Self::NotApplicable(text)
            | Self::Error(text) => text.clone(),
            Self::Refused { call, errno } => {
                let call = match call {
                    Call::Prepare => "preparing the socket",
                    Call::Connect => "connect",
                    Call::Send => "send",
                    Call::Netlink => "asking rtnetlink",
                };
                format!("{call}: {}", Errno(*errno))
            }
        }
    }
}

/// An error number that shows its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(pub i32);

impl Errno {
    /// `EACCES` and the like; those that sockets give.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            libc::EPERM => "EPERM",
            libc::ENOENT => "ENOENT",
            libc::EAGAIN => "EAGAIN",
            libc::EACCES => "EACCES",
            libc::ENODEV => "ENODEV",
            libc::EINVAL => "EINVAL",
            libc::ENOSYS => "ENOSYS",
            libc::EDESTADDRREQ => "EDESTADDRREQ",
            libc::EMSGSIZE => "EMSGSIZE",
            libc::ENOPROTOOPT => "ENOPROTOOPT",
            libc::EPROTONOSUPPORT => "EPROTONOSUPPORT",
            libc::ESOCKTNOSUPPORT => "ESOCKTNOSUPPORT",
            libc::EOPNOTSUPP => "EOPNOTSUPP",
            libc::EAFNOSUPPORT => "EAFNOSUPPORT",
            libc::EADDRINUSE => "EADDRINUSE",
            libc::EADDRNOTAVAIL => "EADDRNOTAVAIL",
            libc::ENETDOWN => "ENETDOWN",
            libc::ENETUNREACH => "ENETUNREACH",
            libc::ECONNABORTED => "ECONNABORTED",
            libc::ECONNRESET => "ECONNRESET",
            libc::ENOBUFS => "ENOBUFS",
            libc::EISCONN => "EISCONN",
            libc::ENOTCONN => "ENOTCONN",
            libc::EPIPE => "EPIPE",
            libc::ETIMEDOUT => "ETIMEDOUT",
            libc::ECONNREFUSED => "ECONNREFUSED",
            libc::EHOSTUNREACH => "EHOSTUNREACH",
            libc::EINPROGRESS => "EINPROGRESS",
            _ => return None,
        })
    }

    /// Of an error that the kernel gave.
    #[must_use]
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the standard library's enum, which may grow"
    )]
    pub fn of(error: &io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(match error.kind() {
            io::ErrorKind::TimedOut => libc::ETIMEDOUT,
            io::ErrorKind::WouldBlock => libc::EAGAIN,
            _ => libc::EINVAL,
        }))
    }

    /// The kernel was built without the thing that was asked for.
    #[must_use]
    pub const fn is_missing_feature(self) -> bool {
        matches!(
            self.0,
            libc::ENOSYS
                | libc::ENOPROTOOPT
                | libc::EPROTONOSUPPORT
                | libc::ESOCKTNOSUPPORT
                | libc::EOPNOTSUPP
                | libc::EAFNOSUPPORT
        )
    }

    /// There is no way to the target at all, as the pod's own kernel sees it.
    #[must_use]
    pub const fn is_no_route(self) -> bool {
        matches!(self.0, libc::ENETUNREACH | libc::EADDRNOTAVAIL | libc::ENETDOWN)
    }

    /// A missing right.
    #[must_use]
    pub const fn is_forbidden(self) -> bool {
        matches!(self.0, libc::EPERM | libc::EACCES)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "error {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layer_follows_from_the_call_and_its_error() {
        let refused = |call, errno| Outcome::Refused { call, errno }.layer();
        assert_eq!(refused(Call::Connect, libc::EACCES), Some(Layer::SocketHook));
        assert_eq!(refused(Call::Connect, libc::ECONNREFUSED), Some(Layer::SocketHook));
        assert_eq!(refused(Call::Connect, libc::EINVAL), Some(Layer::Kernel));
        assert_eq!(refused(Call::Send, libc::EACCES), Some(Layer::SocketHook));
        assert_eq!(refused(Call::Send, libc::EPERM), Some(Layer::PacketHook));
        assert_eq!(refused(Call::Prepare, libc::EPERM), Some(Layer::Kernel));
        assert_eq!(refused(Call::Netlink, libc::EPERM), Some(Layer::Kernel));
        assert_eq!(Outcome::NoAnswer(String::new()).layer(), Some(Layer::Wire));
        assert_eq!(Outcome::Answered(String::new()).layer(), Some(Layer::None));
        assert_eq!(Outcome::Error(String::new()).layer(), None);
    }

    #[test]
    fn errors_show_their_names() {
        let refused = Outcome::Refused { call: Call::Connect, errno: libc::EACCES };
        assert_eq!(refused.detail(), "connect: EACCES");
        assert_eq!(Errno(4095).to_string(), "error 4095");
    }
}
