//! A client's connection, as its requests see it.

use std::{rc::Rc, time::SystemTime};

use egress_ebpf::reason::Reason;

use super::request;
use crate::{
    policy::{self, Denied, EntryPoint, Termination},
    proxy::{Downstream, Worker},
    types::Host,
};

/// A client's connection, without its bytes.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) worker: Rc<Worker>,
    pub(super) downstream: Downstream,
    pub(super) hop: IncomingHop,
}

/// How HTTP comes in.
#[derive(Clone, Debug)]
pub enum IncomingHop {
    /// In clear, as the application sent it.
    Plain,
    /// Inside TLS that a server of this gateway ended.
    Terminated(Box<TerminatedTls>),
}

/// TLS that was ended here.
#[derive(Clone, Debug)]
pub struct TerminatedTls {
    /// By which server.
    pub termination: Termination,
    /// SNI, where the client sent one.
    pub server_name: Option<Host>,
}

impl Connection {
    pub(super) fn origin(&self) -> request::Origin {
        let scheme = match self.hop {
            IncomingHop::Plain => "http",
            IncomingHop::Terminated(_) => "https",
        };
        request::Origin { port: self.downstream.port, scheme }
    }

    /// The stages that its requests go through.
    pub(super) fn entry(&self) -> EntryPoint<'_> {
        match &self.hop {
            IncomingHop::Plain => match self.downstream.hop {
                policy::Hop::Plain => EntryPoint::Mesh,
                policy::Hop::Tunnel => EntryPoint::Tunnel,
            },
            IncomingHop::Terminated(ended) => EntryPoint::Server(&ended.termination),
        }
    }

    /// Refuses once the client's certificate has expired, although its connection is open.
    pub(super) fn still_identified(&self) -> Result<(), Denied> {
        match &self.downstream.tls {
            Some(tls) if !tls.is_proof_at(SystemTime::now()) => Err(Denied {
                reason: Reason::ExpiredClient,
                detail: "the client's certificate has expired since it connected; connect anew"
                    .into(),
                matched: None,
            }),
            _ => Ok(()),
        }
    }

    /// SNI, where TLS was ended here.
    pub(super) fn server_name(&self) -> Option<&Host> {
        match &self.hop {
            IncomingHop::Plain => None,
            IncomingHop::Terminated(ended) => ended.server_name.as_ref(),
        }
    }
}
