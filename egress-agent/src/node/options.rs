//! The options of `node`.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use egress_ebpf::abi::ADMIN_PORTS;

use crate::{
    admin::control::ControlArgs,
    bpf::{DEFAULT_BPFFS, Pattern},
    enforcement::{EventFormat, Pod},
    net::ResolverSource,
    otlp::VARIABLES,
    source::ConfigArgs,
    tls::CertificateArgs,
    types::duration_within,
};

const HELP: &str = "\
Enforcement begins before the configuration is read, and stays when the agent
stops, crashes or is killed; the next one takes over without a gap.
`egress-agent detach` ends it.

Example: two pods, one uplink
  egress-agent node --config /etc/egress/config \\
      --cgroup /sys/fs/cgroup/kubepods \\
      --pod-interface veth1=10.0.0.5,fd00::5 --pod-interface veth2=10.0.0.6 \\
      --uplink eth0

Signals: SIGHUP reads the configuration again; SIGTERM and SIGINT end the agent,
once what runs in its tunnels has ended or --drain-timeout has passed.
Exit codes: 1 it could not start, 2 wrong options, 3 another agent owns the
pins.";

/// Options of `node`.
#[derive(clap::Args, Debug)]
#[command(after_help = HELP, after_long_help = format!("{HELP}\n\n{VARIABLES}"))]
pub struct NodeArgs {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    #[command(flatten)]
    pub(super) certificates: CertificateArgs,
    /// Accept Linux 5.12 to 6.0. Nobody has tested on these kernels that everything is enforced.
    #[arg(long)]
    pub(super) allow_untested_kernel: bool,
    /// With `--source kubernetes`: the name of this node.
    #[arg(long, value_name = "NAME", env = "NODE_NAME", required_if_eq("source", "kubernetes"))]
    pub(super) node_name: Option<String>,
    /// With `--source kubernetes`: the key of a taint to remove from this node once enforcement stands.
    /// Nodes that register with it get no pods before.
    #[arg(long, value_name = "KEY", value_parser = taint_key)]
    pub(super) startup_taint: Option<String>,
    /// A cgroup2 directory; its processes, and those of the cgroups below it, are under enforcement.
    /// The word `kubepods` stands for the cgroup of kubelet's pods, with either cgroup driver.
    #[arg(long = "cgroup", value_name = "PATH", required_unless_present_any = ["pod_interfaces", "uplinks"])]
    pub(super) cgroups: Vec<PathBuf>,
    /// The host side of a pod's interface and the pod's addresses: only those may be a packet's
    /// source there. Or a pattern such as `veth*` (`*` any characters, `?` one) without addresses:
    /// every interface of such a name that is there or comes is under enforcement, and everything from it
    /// is denied until its pod is known. Quote it from the shell.
    #[arg(long = "pod-interface", value_name = "NAME=ADDR[,ADDR]|PATTERN", value_parser = pod_interface)]
    pub(super) pod_interfaces: Vec<Pod>,
    /// An interface that leads out of the node. The word `auto` stands for those that default routes
    /// lead to when the agent starts.
    #[arg(long = "uplink", value_name = "NAME")]
    pub(super) uplinks: Vec<String>,
    /// Where the tunnel listens, at an address of this node; once for IPv4 and once for IPv6. The
    /// kernel sends it the connections of workloads that go to a gateway through mutual TLS; without
    /// it they are refused.
    #[arg(long = "tunnel-listen", value_name = "IP:PORT", value_parser = tunnel_listen)]
    pub(super) tunnel_listen: Vec<SocketAddr>,
    /// How long the agent goes on after SIGTERM while connections run in its tunnels. A second SIGTERM
    /// ends it at once.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = drain_timeout)]
    pub(super) drain_timeout: Duration,
    /// Where programs and maps are pinned; below a mounted bpffs. One agent owns it at a time.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_BPFFS)]
    pub(super) bpffs: PathBuf,
    /// The DNS server for services that are reached directly (`direct: registry`) [default: that
    /// of /etc/resolv.conf].
    #[arg(long, value_name = "IP[:PORT]")]
    pub(super) resolver: Option<ResolverSource>,
    /// How flow events are written to standard output.
    #[arg(long, value_enum, default_value_t = EventFormat::Text)]
    pub(super) events: EventFormat,
    /// Flow events that a workload may cause in a second, for each of refusals and the rest; more are
    /// counted as lost.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(super) events_per_second: u32,
    /// Where Prometheus' metrics are served, at /metrics, and readiness, at /healthz/ready; `off`
    /// for nowhere.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:15020", value_parser = metrics_addr)]
    pub(super) metrics_addr: MetricsAddr,
    #[command(flatten)]
    pub(super) control: ControlArgs,
    /// The gateways' health port.
    #[arg(long, value_name = "PORT", default_value_t = 15021)]
    pub(super) health_port: u16,
    /// Between two health checks of a gateway.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub(super) health_interval: Duration,
    /// How long a health check may take; two in a row without an answer make a gateway unhealthy,
    /// a refusal at once.
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = duration)]
    pub(super) health_timeout: Duration,
}

/// A taint's key, as Kubernetes wants it.
fn taint_key(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    if (1..=316).contains(&text.len()) && text.chars().all(plain) {
        Ok(text.to_owned())
    } else {
        Err(format!("found `{text}`, expected a key as in egress-enforcer.io/starting"))
    }
}

/// `--metrics-addr`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct MetricsAddr(pub(super) Option<SocketAddr>);

fn pod_interface(text: &str) -> Result<Pod, String> {
    let expected =
        "expected NAME=ADDR[,ADDR], as in veth1=10.0.0.5,fd00::5, or a pattern such as veth*";
    let (name, addresses) = match text.split_once('=') {
        Some((name, addresses)) => (Pattern::from(name), addresses),
        None => {
            let name = Pattern::from(text);
            return match name.exact() {
                Some(_) => Err(expected.into()),
                None => Ok(Pod { name, addresses: Vec::new() }),
            };
        }
    };
    if name.exact().is_none() {
        return Err(format!(
            "`{name}` may be many interfaces, and addresses belong to one; {expected}"
        ));
    }
    let addresses = addresses
        .split(',')
        .map(|addr| addr.parse().map_err(|_| format!("`{addr}` is no IP address; {expected}")))
        .collect::<Result<Vec<IpAddr>, String>>()?;
    if name.exact().is_some_and(str::is_empty) {
        return Err(expected.into());
    }
    Ok(Pod { name, addresses })
}

/// `--tunnel-listen`, without what its other occurrences say.
fn tunnel_listen(text: &str) -> Result<SocketAddr, String> {
    let expected = "expected IP:PORT, as in 10.0.0.7:15001 or [fd00::7]:15001";
    let addr: SocketAddr = text.parse().map_err(|_| expected.to_owned())?;
    let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
    if addr.ip().is_unspecified() {
        return Err(format!(
            "{addr} stands for every address, and the kernel sends connections to one; {expected}"
        ));
    }
    if addr.port() == 0 {
        return Err(format!("the kernel must be told the port; {expected}"));
    }
    if ADMIN_PORTS.contains(&addr.port()) {
        return Err(format!("{} is one of a gateway's own ports; {expected}", addr.port()));
    }
    Ok(addr)
}

/// All of `--tunnel-listen`: one of each family at most.
pub(super) fn check_listeners(listeners: &[SocketAddr]) -> anyhow::Result<()> {
    for family in [SocketAddr::is_ipv4, SocketAddr::is_ipv6] {
        let of_family: Vec<_> = listeners.iter().filter(|addr| family(addr)).collect();
        if let [first, second, ..] = of_family[..] {
            anyhow::bail!(
                "--tunnel-listen {first} and {second} are of one family; the tunnel has one address \
                 of each"
            );
        }
    }
    Ok(())
}

fn metrics_addr(text: &str) -> Result<MetricsAddr, String> {
    if text == "off" {
        return Ok(MetricsAddr(None));
    }
    let addr = text.parse().map_err(|_| "expected IP:PORT, as in 127.0.0.1:15020, or off")?;
    Ok(MetricsAddr(Some(addr)))
}

/// `500ms`, `2s`, `1m30s`.
fn duration(text: &str) -> Result<Duration, String> {
    duration_within(text, Duration::from_millis(10)..=Duration::from_secs(3600), "from 10ms to 1h")
}

fn drain_timeout(text: &str) -> Result<Duration, String> {
    duration_within(text, Duration::ZERO..=Duration::from_secs(24 * 3600), "from 0s to 24h")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_or_explained() {
        assert_eq!(
            pod_interface("veth1=10.0.0.5,fd00::5").unwrap(),
            Pod {
                name: "veth1".into(),
                addresses: vec!["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()]
            }
        );
        assert_eq!(
            pod_interface("veth*").unwrap(),
            Pod { name: "veth*".into(), addresses: Vec::new() }
        );
        for bad in
            ["veth1", "veth1=", "=10.0.0.5", "veth1=10.0.0", "veth1=10.0.0.5,", "veth*=10.0.0.5"]
        {
            assert!(pod_interface(bad).unwrap_err().contains("NAME=ADDR"), "{bad}");
        }
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        for bad in ["", "1", "0s", "-1s", "61m", "NaNs", "infs", "9999999s"] {
            assert!(duration(bad).unwrap_err().contains("500ms"), "{bad}");
        }
        assert_eq!(tunnel_listen("10.0.0.7:15001"), Ok("10.0.0.7:15001".parse().unwrap()));
        assert_eq!(tunnel_listen("[::ffff:10.0.0.7]:15001"), tunnel_listen("10.0.0.7:15001"));
        for bad in ["10.0.0.7", "0.0.0.0:15001", "[::]:15001", "10.0.0.7:0", "10.0.0.7:15008"] {
            assert!(tunnel_listen(bad).unwrap_err().contains("10.0.0.7:15001"), "{bad}");
        }
        let listeners = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        assert!(check_listeners(&listeners(&["10.0.0.7:15001", "[fd00::7]:15002"])).is_ok());
        let twice = check_listeners(&listeners(&["10.0.0.7:15001", "10.0.0.8:15001"]));
        assert!(twice.unwrap_err().to_string().contains("10.0.0.8:15001"));
        assert_eq!(metrics_addr("off"), Ok(MetricsAddr(None)));
        assert!(metrics_addr("15020").is_err());
    }
}
