//! The gateway beside other proxies, on the same work: processor time of the proxy alone, and its memory.
//!
//! The proxies run on one processor, each by itself; clients and origins on another. Runs of one kind of work
//! go from proxy to proxy and begin again, so that what else the machine does meets all of them alike.

mod peers;
mod plan;
mod report;
mod usage;
mod world;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use egress_tests::{
    ca::{Authority, issue_pem},
    netns::{End, link},
    process::{Place, Process},
    site::Site,
    wait::{START, until},
};
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CpuSet, sched_setaffinity},
};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, version::TLS13};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};

use self::{
    peers::Proxy,
    plan::{HTTP, HTTPS, PASS, PASS_BULK, PROXY, WORLD, hosts},
    report::Line,
    world::{Client, Origin, World},
};

/// Processors.
const WORLDS_CORE: usize = 0;
const PROXYS_CORE: usize = 1;

const ROUNDS: usize = 5;
/// Connections that are busy at once.
const CONNECTIONS: usize = 32;
/// Requests before those that count.
const WARM: usize = 2_000;
const REQUESTS: usize = 50_000;
const PASSED: usize = 5_000;
/// Bytes of one bulk transfer.
const BULK: usize = 1 << 29;
/// Connections that lie idle.
const IDLE: usize = 2_000;

/// Measures, prints the table, and puts it into docs/performance.md if asked.
///
/// # Errors
/// A proxy that is there does not do the work.
pub(crate) fn run(site: &Site, write: bool) -> Result<()> {
    let bed = Bed::new(site)?;
    let world = bed.world.clone();
    let (table, proxies) = world.enter(|| bed.measure())??;
    println!("\n### The gateway beside other proxies\n\n{table}");
    for missing in Proxy::ALL.into_iter().filter(|proxy| !proxies.contains(proxy)) {
        println!("{} is not on this machine and was left out.", missing.name());
    }
    if write {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/performance.md");
        report::write(&page, &table)?;
    }
    Ok(())
}

/// Two hosts: all the world, and the proxy.
struct Bed {
    world: egress_tests::netns::NetNs,
    place: Place,
    dir: PathBuf,
    authority: Authority,
}

/// A proxy that runs.
struct Running {
    proxy: Proxy,
    process: Process,
}

impl Running {
    /// Seconds of processor time that it uses meanwhile.
    fn used(&self, work: impl FnOnce() -> Result<()>) -> Result<f64> {
        let before = usage::seconds(self.process.pid())?;
        work().with_context(|| format!("{}: {}", self.proxy.name(), self.process.stderr()))?;
        Ok(usage::seconds(self.process.pid())? - before)
    }

    fn memory(&self) -> Result<f64> {
        usage::memory(self.process.pid())
    }
}

impl Bed {
    fn new(site: &Site) -> Result<Self> {
        let (world, proxy) = (site.netns("world")?, site.netns("proxy")?);
        let address = |ip: &str| format!("{ip}/24");
        link(
            &End {
                ns: &world,
                name: "eth0",
                mac: "02:00:00:00:02:01",
                addresses: &[&address(WORLD)],
            },
            &End {
                ns: &proxy,
                name: "eth0",
                mac: "02:00:00:00:02:02",
                addresses: &[&address(PROXY)],
            },
        )?;
        for ns in [&world, &proxy] {
            // Thousands of connections in a row between the same two addresses, from ports on which nobody listens.
            ns.sysctl("ipv4/tcp_tw_reuse", "1")?;
            ns.sysctl("ipv4/ip_local_port_range", "20000 65535")?;
        }
        let authority = Authority::new("Measuring")?;
        let dir = site.dir();
        let ca = dir.join("ca.pem");
        fs::write(&ca, authority.pem())?;
        let env = vec![("SSL_CERT_FILE".to_owned(), ca.to_string_lossy().into_owned())];
        let cgroup = site.cgroup("proxy")?;
        let place = Place { ns: proxy, cgroup, resolv_conf: None, env };
        Ok(Self { world, place, dir, authority })
    }

    /// Everything, on one processor, in the world's network.
    fn measure(&self) -> Result<(String, Vec<Proxy>)> {
        let mut core = CpuSet::new();
        core.set(WORLDS_CORE);
        sched_setaffinity(None, &core).context("two processors are needed")?;
        let files = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files })?;
        let proxies: Vec<(Proxy, String)> =
            Proxy::ALL.into_iter().filter_map(|proxy| Some((proxy, proxy.version()?))).collect();
        ensure!(proxies.iter().any(|(proxy, _)| *proxy == Proxy::Ours), "no egress-agent");
        let mut world = World::new(vec![
            (at(WORLD, HTTP)?, Origin::Http),
            (at(WORLD, HTTPS)?, Origin::Https(self.server()?)),
            (at(WORLD, PASS)?, Origin::Any),
        ])?;
        let bulk = TcpListener::bind(at(WORLD, PASS_BULK)?)?;
        thread::spawn(move || {
            for stream in bulk.incoming().flatten() {
                thread::spawn(move || send_bulk(stream));
            }
        });
        let mut lines = vec![
            Line::new("HTTP/1.1 by Host, CPU s for 100,000 requests", 2),
            Line::new("TLS originated, pooled, CPU s for 100,000 requests", 2),
            Line::new("passthrough, CPU s for 100,000 connections", 2),
            Line::new("passthrough in bulk, CPU s for a GB", 3),
        ];
        for round in 0..ROUNDS {
            for (proxy, _) in &proxies {
                eprintln!("round {} of {ROUNDS}: {}", round + 1, proxy.name());
                let running = self.start(*proxy, &mut world)?;
                for (line, value) in lines.iter_mut().zip(Self::work(&running, &mut world)?) {
                    line.add(*proxy, value);
                }
            }
        }
        let mut memory = vec![
            Line::new("memory of an idle keep-alive connection, KiB", 2),
            Line::new("memory of an idle passthrough connection, KiB", 2),
            Line::new("memory at start, MB", 1),
        ];
        for (proxy, _) in &proxies {
            eprintln!("memory: {}", proxy.name());
            let running = self.start(*proxy, &mut world)?;
            memory[2].add(*proxy, running.memory()? * 1024.0 / 1e6);
            memory[0].add(*proxy, idle(&running, &mut world, 80, &request(hosts()[0]))?);
            drop(running);
            let running = self.start(*proxy, &mut world)?;
            memory[1].add(*proxy, idle(&running, &mut world, 443, &hello(hosts()[2])?)?);
        }
        lines.extend(memory);
        let versions: Vec<&str> = proxies.iter().map(|(_, version)| &**version).collect();
        let note =
            format!("Measured {}, in {ROUNDS} rounds: {}.", report::machine(), versions.join(", "));
        let proxies: Vec<Proxy> = proxies.into_iter().map(|(proxy, _)| proxy).collect();
        Ok((report::markdown(&lines, &proxies, &note), proxies))
    }

    fn server(&self) -> Result<Arc<ServerConfig>> {
        let (chain, key) = issue_pem(&self.authority, hosts()[1])?;
        let chain =
            CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
        Ok(Arc::new(config))
    }

    /// Starts a proxy, and waits until it serves.
    fn start(&self, proxy: Proxy, world: &mut World) -> Result<Running> {
        let process = proxy.start(&self.place, &self.dir, PROXYS_CORE)?;
        let running = Running { proxy, process };
        let served = until(START, "a proxy that serves", || {
            let client = world.connect(at(PROXY, 80).ok()?).ok()?;
            // One that has no configuration yet closes the connection.
            let asked = world.say(client, &request(hosts()[0]));
            let answered = asked.and_then(|()| world.until(1, |_, _| Ok(())));
            world.close(client);
            answered.ok()
        });
        served.with_context(|| format!("{}: {}", proxy.name(), running.process.stderr()))?;
        Ok(running)
    }

    /// One round of a proxy: a value for each kind of work.
    fn work(running: &Running, world: &mut World) -> Result<[f64; 4]> {
        let [plain, tls, pass, bulk] = hosts();
        let mut values = [0.0; 4];
        for (value, host) in values.iter_mut().zip([plain, tls]) {
            let request = request(host);
            let clients = (0..CONNECTIONS).map(|_| world.connect(at(PROXY, 80)?));
            let clients: Vec<Client> = clients.collect::<Result<_>>()?;
            keep_asking(world, &clients, &request, WARM)?;
            let used = running.used(|| keep_asking(world, &clients, &request, REQUESTS))?;
            *value = used * 100_000.0 / per(REQUESTS);
            clients.iter().for_each(|client| world.close(*client));
            world.settle()?;
        }
        let said = hello(pass)?;
        pass_through(world, &said, WARM / 4)?;
        let used = running.used(|| pass_through(world, &said, PASSED))?;
        values[2] = used * 100_000.0 / per(PASSED);
        let said = hello(bulk)?;
        values[3] = running.used(|| receive_bulk(&said))? * 1e9 / per(BULK);
        Ok(values)
    }
}

fn per(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn at(host: &str, port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::new(host.parse()?, port))
}

fn request(host: &str) -> Vec<u8> {
    format!(
        "GET /path/of/some/length?with=a&query HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench/1\r\n\
         Accept: */*\r\nAccept-Encoding: gzip\r\n\r\n"
    )
    .into_bytes()
}

/// A ClientHello for this host. What comes after it no proxy looks at.
fn hello(host: &'static str) -> Result<Vec<u8>> {
    let client = ClientConfig::builder_with_protocol_versions(&[&TLS13])
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(client), ServerName::try_from(host)?)?;
    let mut said = Vec::new();
    client.write_tls(&mut said)?;
    Ok(said)
}

/// So many requests, on all connections at once, one after the other on each.
fn keep_asking(world: &mut World, clients: &[Client], request: &[u8], count: usize) -> Result<()> {
    let mut left = count - clients.len();
    for client in clients {
        world.say(*client, request)?;
    }
    world.until(count, |world, client| {
        if left == 0 {
            return Ok(());
        }
        left -= 1;
        world.say(client, request)
    })
}

/// So many connections, some of them at once, each for one answer.
fn pass_through(world: &mut World, said: &[u8], count: usize) -> Result<()> {
    let open = |world: &mut World| {
        let client = world.connect(at(PROXY, 443)?)?;
        world.say(client, said)
    };
    let mut left = count - CONNECTIONS;
    for _ in 0..CONNECTIONS {
        open(world)?;
    }
    world.until(count, |world, client| {
        world.close(client);
        if left == 0 {
            return Ok(());
        }
        left -= 1;
        open(world)
    })?;
    world.settle()
}

/// Sends much after whatever it hears, and again.
fn send_bulk(mut stream: TcpStream) {
    let block = vec![b'x'; 256 << 10];
    let mut heard = [0; 4096];
    if !matches!(stream.read(&mut heard), Ok(1..)) {
        return;
    }
    let mut left = BULK;
    while left > 0 {
        let part = left.min(block.len());
        if stream.write_all(&block[..part]).is_err() {
            return;
        }
        left -= part;
    }
}

fn receive_bulk(said: &[u8]) -> Result<()> {
    let mut stream = TcpStream::connect(at(PROXY, 443)?)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(said)?;
    let (mut block, mut received) = (vec![0; 256 << 10], 0);
    while received < BULK {
        match stream.read(&mut block)? {
            0 => bail!("{received} bytes of {BULK}"),
            read => received += read,
        }
    }
    Ok(())
}

/// Memory that each of many connections takes that have said this once, and have their answer.
fn idle(running: &Running, world: &mut World, port: u16, said: &[u8]) -> Result<f64> {
    let mut clients = Vec::new();
    let mut open = |world: &mut World, count: usize| -> Result<()> {
        for _ in 0..count {
            let client = world.connect(at(PROXY, port)?)?;
            world.say(client, said)?;
            world.until(1, |_, _| Ok(()))?;
            clients.push(client);
        }
        world.settle()
    };
    // What the first ones need is not theirs alone.
    open(world, IDLE / 10)?;
    let before = running.memory()?;
    open(world, IDLE)?;
    let grown = running.memory()? - before;
    clients.iter().for_each(|client| world.close(*client));
    world.settle()?;
    Ok(grown / per(IDLE))
}
