//! How much an allowed flow gets through, with the programs and without, on the same path.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddrV4, TcpListener, TcpStream},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use egress_agent::bpf::{Enforcer, FirstStart, PodHardware, PodInterface, Targets, TcMode};
use egress_tests::{
    netns::{End, NetNs, link},
    site::Site,
};
use tokio::runtime::Handle;

use crate::{
    connect::{Home, move_to},
    policy::{self, INSIDE, POD},
    table::{Row, median},
};

const ROUTES: u32 = 10_000;
const ROUNDS: usize = 9;
const FOR: Duration = Duration::from_millis(1500);
const PORT: u16 = 8080;
const AIM: &str = "≥ 0.97";
const POD_INTERFACE: &str = "to-pod";
const UPLINK: &str = "uplink";

/// A pod, its node, and a host in the cluster beyond the node's uplink.
struct Path3 {
    pod: NetNs,
    node: NetNs,
    inside: NetNs,
    cgroup: PathBuf,
}

/// Runs with and without programs take turns, and so do which of both comes first.
pub(crate) fn run(site: &Site) -> Result<Vec<Row>> {
    let path = Path3::new(site)?;
    let dir = site.bpffs().join("throughput");
    let home = Home::find()?;
    move_to(&path.cgroup)?;
    let mut ratios = Vec::new();
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        let mut pair = [0.0; 2];
        let order = if round % 2 == 0 { [false, true] } else { [true, false] };
        for enforced in order {
            let rate = if enforced { path.enforced(&dir)? } else { path.rate()? };
            pair[usize::from(enforced)] = rate;
            rates[usize::from(enforced)].push(rate);
        }
        ratios.push(pair[1] / pair[0]);
    }
    drop(home);
    let [without, with] = rates.map(|rates| median(&rates).unwrap_or_default() / 1e9);
    let measured =
        format!("{:.3} ({with:.2} of {without:.2} Gbit/s)", median(&ratios).unwrap_or_default());
    Ok(vec![Row::new("throughput of an allowed flow, with against without", measured, AIM)])
}

impl Path3 {
    fn new(site: &Site) -> Result<Self> {
        let (pod, node, inside) = (site.netns("pod")?, site.netns("node")?, site.netns("inside")?);
        node.forward()?;
        let pod_address = format!("{POD}/24");
        let inside_address = format!("{INSIDE}/24");
        link(
            &End { ns: &pod, name: "eth0", mac: "02:00:00:00:00:05", addresses: &[&pod_address] },
            &End {
                ns: &node,
                name: POD_INTERFACE,
                mac: "02:00:00:00:00:01",
                addresses: &["10.0.0.1/24"],
            },
        )?;
        link(
            &End { ns: &node, name: UPLINK, mac: "02:00:00:00:01:01", addresses: &["10.1.2.1/24"] },
            &End {
                ns: &inside,
                name: "eth0",
                mac: "02:00:00:00:01:02",
                addresses: &[&inside_address],
            },
        )?;
        pod.ip(&["route", "add", "default", "via", "10.0.0.1"])?;
        inside.ip(&["route", "add", "default", "via", "10.1.2.1"])?;
        Ok(Self { pod, node, inside, cgroup: site.cgroup("pod")? })
    }

    /// The rate with programs at the pod's interface, the uplink and the pod's cgroup.
    fn enforced(&self, dir: &Path) -> Result<f64> {
        let targets = Targets {
            cgroups: vec![self.cgroup.clone()],
            pod_interfaces: vec![POD_INTERFACE.to_owned().into()],
            uplinks: vec![UPLINK.to_owned()],
            ..Targets::default()
        };
        let runtime = Handle::current();
        let mut enforcer = self.node.enter(|| {
            let _inside = runtime.enter();
            Enforcer::start(dir, &targets, TcMode::detect(), FirstStart::AtOnce)
        })??;
        let ifindex = enforcer.attachments.ifindex(POD_INTERFACE).context("not attached")?;
        let mut facts = policy::facts(1);
        facts.pods = vec![PodInterface {
            ifindex,
            addresses: vec![POD.into()],
            // What the other end has is not what this measures.
            hardware: PodHardware::Any,
            policy: 0,
        }];
        let contents = policy::contents(&policy::snapshot(ROUTES)?, &facts)?;
        if let Err(errors) = enforcer.maps.reconcile(&contents) {
            bail!("the maps can't be filled: {errors:?}");
        }
        let rate = self.rate();
        drop(enforcer);
        self.node.enter(|| egress_agent::bpf::detach(dir))??;
        rate
    }

    /// Bits a second that arrive.
    fn rate(&self) -> Result<f64> {
        let to = SocketAddrV4::new(INSIDE, PORT);
        let listener = self.inside.enter(|| TcpListener::bind(to))??;
        let stream = self.pod.enter(|| TcpStream::connect(to))??;
        let (peer, _) = listener.accept()?;
        thread::scope(|scope| {
            let receiver = scope.spawn(|| receive(peer));
            send(stream)?;
            receiver.join().map_err(|_| anyhow!("the receiver panicked"))?
        })
    }
}

fn send(mut stream: TcpStream) -> Result<()> {
    let block = vec![0; 256 << 10];
    let start = Instant::now();
    while start.elapsed() < FOR {
        stream.write_all(&block)?;
    }
    Ok(())
}

fn receive(mut stream: TcpStream) -> Result<f64> {
    let mut block = vec![0; 256 << 10];
    let mut bytes = 0_u64;
    let start = Instant::now();
    loop {
        match stream.read(&mut block)? {
            0 => break,
            read => bytes += read as u64,
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate of three digits")]
    let bits = bytes as f64 * 8.0;
    Ok(bits / start.elapsed().as_secs_f64())
}
