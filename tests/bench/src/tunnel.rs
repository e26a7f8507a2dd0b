//! The tunnel between node and gateway beside the plain hop: the same pod, node, gateway and outside,
//! and only the destination rule differs.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use egress_tests::{
    plan::{HOST, TCP_SERVICE, WEB},
    process::Process,
    site::Site,
    testbed::Testbed,
    wait::{SOON, until},
};

use crate::{
    connect::{Home, move_to},
    stream,
    table::{Row, median},
};

const ROUNDS: usize = 5;
const FOR: Duration = Duration::from_millis(1500);
/// Where the outside sends without end.
const BULK: u16 = 9000;
const HTTP: u16 = 80;
/// Connections of one round that are timed.
const CONNECTIONS: usize = 200;
/// Keep-alive connections at once, and requests on each.
const CLIENTS: usize = 8;
const REQUESTS: usize = 1_250;
const HANDSHAKES: &str = "egress_tunnel_handshakes_total";
/// Of the times in `/proc/PID/stat` (`USER_HZ`, which is 100 on every architecture of Linux today).
const TICKS: f64 = 100.0;

const RESOURCES: &str = include_str!("tunnel.yaml");
const PLAIN: &str = "  - name: pod";
const TUNNEL: &str = "  - name: pod\n    trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}";

/// Both hops in turn, and which comes first takes turns, too.
pub(crate) fn run(_site: &Site) -> Result<Vec<Row>> {
    let bed = Bed::new()?;
    let mut measured = [Measured::default(), Measured::default()];
    let (mut streams, mut relayed) = (Vec::new(), Vec::new());
    let mut handshakes = 0;
    for round in 0..ROUNDS {
        streams.push(stream::rate(bed.testbed.app(), bed.testbed.gateway(0), FOR)?);
        relayed.push(bed.relayed()?);
        let order = if round % 2 == 0 { [false, true] } else { [true, false] };
        for tunnel in order {
            bed.hop(tunnel)?;
            let before = bed.testbed.node_metric(HANDSHAKES)?;
            measured[usize::from(tunnel)].take(&bed)?;
            handshakes += bed.testbed.node_metric(HANDSHAKES)? - before;
        }
    }
    let [plain, tunnel] = measured.map(|measured| measured.medians());
    let gigabits = |rate: f64| rate * 8.0 / 1e9;
    let against = |rates: &[f64]| {
        let rate = median(rates).unwrap_or_default();
        let (ratio, tunnel, rate) = (tunnel.rate / rate, gigabits(tunnel.rate), gigabits(rate));
        format!("{ratio:.2} ({tunnel:.2} of {rate:.2} Gbit/s)")
    };
    let connections = (ROUNDS * CONNECTIONS).to_string();
    let beside = |tunnel: f64, plain: f64, unit: &str| format!("{tunnel:.2} {unit} ({plain:.2})");
    Ok(vec![
        Row::new(
            "bulk through the tunnel, against a relay over one TLS stream",
            against(&relayed),
            "≥ 0.8",
        ),
        Row::new("the same, against that stream without relays", against(&streams), ""),
        Row::new("bulk through the plain hop", format!("{:.2} Gbit/s", gigabits(plain.rate)), ""),
        Row::new(
            format!(
                "TLS handshakes for {connections} connections and {} requests in a warm tunnel",
                ROUNDS * CLIENTS * REQUESTS
            ),
            handshakes.to_string(),
            "0",
        ),
        Row::new(
            "connection until its first byte (plain hop)",
            beside(tunnel.first_byte * 1e3, plain.first_byte * 1e3, "ms"),
            "one round trip more",
        ),
        Row::new(
            "processor time of node and gateway for a GB (plain hop)",
            beside(tunnel.bulk_cpu, plain.bulk_cpu, "s"),
            "",
        ),
        Row::new(
            "the same for 100,000 requests (plain hop)",
            beside(tunnel.request_cpu, plain.request_cpu, "s"),
            "",
        ),
    ])
}

/// What was measured of one hop, a value a round.
#[derive(Default)]
struct Measured {
    /// Bytes a second.
    rate: Vec<f64>,
    /// Seconds of processor time a gigabyte.
    bulk_cpu: Vec<f64>,
    /// Seconds.
    first_byte: Vec<f64>,
    /// Seconds of processor time for 100,000 requests.
    request_cpu: Vec<f64>,
}

struct Medians {
    rate: f64,
    bulk_cpu: f64,
    first_byte: f64,
    request_cpu: f64,
}

impl Measured {
    fn take(&mut self, bed: &Bed) -> Result<()> {
        let before = bed.cpu()?;
        let (bytes, seconds) = bed.download()?;
        self.bulk_cpu.push((bed.cpu()? - before) / (bytes / 1e9));
        self.rate.push(bytes / seconds);
        self.first_byte.push(bed.connections()?);
        let before = bed.cpu()?;
        let requests = bed.requests()?;
        self.request_cpu.push((bed.cpu()? - before) / requests * 1e5);
        Ok(())
    }

    fn medians(&self) -> Medians {
        let of = |values: &[f64]| median(values).unwrap_or_default();
        Medians {
            rate: of(&self.rate),
            bulk_cpu: of(&self.bulk_cpu),
            first_byte: of(&self.first_byte),
            request_cpu: of(&self.request_cpu),
        }
    }
}

/// The hosts, with agents that run.
struct Bed {
    gateway: Process,
    node: Process,
    testbed: Testbed,
}

impl Bed {
    fn new() -> Result<Self> {
        let testbed = Testbed::test(1)?;
        testbed.prepare_mtls(1)?;
        testbed.apply("pod.yaml", &resources(false))?;
        let gateway = testbed.start_gateway_mtls(0)?;
        let node = testbed.start_node_mtls()?;
        let listener = testbed.outside().ns.enter(|| TcpListener::bind((TCP_SERVICE, BULK)))??;
        testbed.outside().ns.spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || send(stream));
            }
        })?;
        Ok(Self { gateway, node, testbed })
    }

    /// Changes the hop, and waits until a connection goes that way.
    fn hop(&self, tunnel: bool) -> Result<()> {
        self.testbed.apply("pod.yaml", &resources(tunnel))?;
        let streams = || self.testbed.node_metric("egress_tunnel_streams_total");
        until(SOON, "the other hop", || {
            let before = streams().ok()?;
            let first = self.first_byte().ok();
            let went = streams().ok()? > before;
            first.filter(|_| went == tunnel)
        })?;
        Ok(())
    }

    /// What this does in the pod's network, as the pod.
    fn as_pod<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let home = Home::find()?;
        let pod = self.testbed.pod();
        move_to(&pod.cgroup)?;
        let done = pod.ns.enter(work);
        drop(home);
        done?
    }

    /// Seconds of processor time that node and gateway have used.
    fn cpu(&self) -> Result<f64> {
        Ok(seconds_of(self.node.pid())? + seconds_of(self.gateway.pid())?)
    }

    /// Bytes, and the seconds they took.
    fn download(&self) -> Result<(f64, f64)> {
        read(self.as_pod(|| dial(TCP_SERVICE, BULK))?)
    }

    /// Bytes a second of a relay over one TLS stream.
    fn relayed(&self) -> Result<f64> {
        let source = SocketAddr::new(TCP_SERVICE.parse::<IpAddr>()?, BULK);
        let (node, gateway) = (self.testbed.app(), self.testbed.gateway(0));
        stream::relayed(node, gateway, source, |to| {
            let (bytes, seconds) = read(self.as_pod(|| dial(&to.ip().to_string(), to.port()))?)?;
            Ok(bytes / seconds)
        })
    }

    /// Seconds until a new connection's first byte.
    fn first_byte(&self) -> Result<f64> {
        self.as_pod(first_byte)
    }

    /// The median over many, one after the other.
    fn connections(&self) -> Result<f64> {
        self.as_pod(|| {
            let times: Result<Vec<_>> = (0..CONNECTIONS).map(|_| first_byte()).collect();
            median(&times?).context("nothing was measured")
        })
    }

    /// How many requests were answered.
    fn requests(&self) -> Result<f64> {
        let clients = || (0..CLIENTS).map(|_| dial(WEB, HTTP)).collect::<Result<Vec<_>>>();
        let clients = self.as_pod(clients)?;
        thread::scope(|scope| -> Result<()> {
            let all: Vec<_> = clients.into_iter().map(|s| scope.spawn(|| requests(s))).collect();
            for client in all {
                client.join().map_err(|_| anyhow!("a client panicked"))??;
            }
            Ok(())
        })?;
        #[expect(clippy::cast_precision_loss, reason = "some thousands")]
        Ok((CLIENTS * REQUESTS) as f64)
    }
}

fn resources(tunnel: bool) -> String {
    let text = RESOURCES.replace("HOST", HOST).replace("TCP_SERVICE", TCP_SERVICE);
    if tunnel { text.replace(PLAIN, TUNNEL) } else { text }
}

fn dial(ip: &str, port: u16) -> Result<TcpStream> {
    let to = SocketAddr::new(ip.parse::<IpAddr>()?, port);
    let stream = TcpStream::connect(to).with_context(|| to.to_string())?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(stream)
}

/// Reads for a while: bytes, and the seconds they took.
fn read(mut stream: TcpStream) -> Result<(f64, f64)> {
    let mut block = vec![0; 256 << 10];
    // It is under way.
    let mut bytes = stream.read(&mut block)?;
    ensure!(bytes > 0, "the outside sent nothing");
    let start = Instant::now();
    while start.elapsed() < FOR {
        match stream.read(&mut block)? {
            0 => bail!("the outside stopped"),
            read => bytes += read,
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate of three digits")]
    Ok((bytes as f64, start.elapsed().as_secs_f64()))
}

fn first_byte() -> Result<f64> {
    let start = Instant::now();
    let mut stream = dial(TCP_SERVICE, BULK)?;
    stream.read_exact(&mut [0])?;
    Ok(start.elapsed().as_secs_f64())
}

/// Sends until nobody listens.
fn send(mut stream: TcpStream) {
    let block = vec![0; 256 << 10];
    while stream.write_all(&block).is_ok() {}
}

/// Requests on one connection, one after the other.
fn requests(stream: TcpStream) -> Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    let request = format!("HEAD /small HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let mut line = String::new();
    for _ in 0..REQUESTS {
        stream.write_all(request.as_bytes())?;
        line.clear();
        reader.read_line(&mut line)?;
        ensure!(line.starts_with("HTTP/1.1 ") && !line.contains(" 403"), "found {line:?}");
        while line != "\r\n" {
            line.clear();
            ensure!(reader.read_line(&mut line)? > 0, "the gateway closed the connection");
        }
    }
    Ok(())
}

/// User and system time of a process.
fn seconds_of(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // After the name, which may hold anything: state is field 3, utime 14, stime 15.
    let (_, rest) = text.rsplit_once(')').context("no such process")?;
    let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<u32>);
    let ticks: Result<Vec<u32>, _> = ticks.collect();
    Ok(ticks?.into_iter().map(f64::from).sum::<f64>() / TICKS)
}
