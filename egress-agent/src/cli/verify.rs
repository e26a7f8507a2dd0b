//! The `verify` command: what is enforced for a namespace's pods, and whether that holds, from one of them.

mod dial;
mod plan;
mod survey;

use std::{
    collections::BTreeSet,
    io::{self, Write},
    net::IpAddr,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::time::timeout;

use self::{
    dial::{Answer, addresses_of, ask},
    plan::{Check, allowed, forbidden},
    survey::{Row, rows, text},
};
use super::{
    exit::{FAILURE, USAGE},
    output::{complain, stdout},
    probe::attempts,
    wrap::{fitted, width, wrap},
};
use crate::{
    config,
    pods::{ClusterPods, Pod},
    policy::Snapshot,
    probe::{Errno, Outcome, Report},
    source::{
        kubernetes::{self, Kubernetes, More, Scope, Settings},
        namespaced,
    },
};

/// How long the API server's first lists are waited for.
const FIRST_LISTS: Duration = Duration::from_secs(30);
/// Exit code where nothing got out, and nothing that is allowed could be tried.
const INCONCLUSIVE: u8 = 3;
/// What is tried and should work, and what should not.
const ALLOWED: &str = "allowed";
const DENIED: &str = "denied";

const HELP: &str = "\
It reads what node agents read, says for each pod of the namespace what is
enforced for it, and then tries it as the pod that it runs in: each host that
the pod may reach is asked, the same connection for another host is refused, and
every bypass technique of `probe` is tried on the address of the first host.

Exit code: 0 what is allowed works, and nothing else does; 1 something got out,
an allowed host does not answer, or the API server does not; 2 usage; 3 nothing
got out, and the pod may reach no host that could be asked, so the result proves
little.

Examples:
  # In a pod of the namespace, with the agent's image:
  egress-agent verify --kubernetes --namespace shop --pod web-0

  # Only say what is enforced where, from anywhere.
  egress-agent verify --kubernetes --kubeconfig ~/.kube/config \\
      --namespace shop --dry-run

  # As the chart's test does it.
  helm test egress-enforcer --namespace istio-system --logs";

/// Options of `verify`.
#[derive(clap::Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct VerifyArgs {
    /// Ask the API server of a cluster.
    #[arg(long)]
    kubernetes: bool,
    /// The namespace.
    #[arg(long, value_name = "NAMESPACE")]
    namespace: String,
    /// The pod that this runs in [default: the host's name].
    #[arg(long, value_name = "NAME")]
    pod: Option<String>,
    /// Say what is enforced, and try nothing.
    #[arg(long)]
    dry_run: bool,
    /// How to reach the API server [default: the pod's service account].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<std::path::PathBuf>,
    /// The ConfigMap whose key `mesh.yaml` has the mesh-wide settings.
    #[arg(long, value_name = "NAMESPACE/NAME", default_value = "istio-system/egress-enforcer", value_parser = namespaced)]
    mesh_config_map: (String, String),
    /// The namespace of the gateways' Services.
    #[arg(long, value_name = "NAMESPACE", default_value = "istio-system")]
    gateway_namespace: String,
    /// Services of type ExternalName are hosts of the registry.
    #[arg(long)]
    external_name_services: bool,
}

/// Runs it.
///
/// # Errors
/// The API server does not answer, or its configuration does not compile.
pub(super) fn run(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    if !args.kubernetes {
        complain(format_args!("error: say --kubernetes: nothing else can be asked"));
        return Ok(ExitCode::from(USAGE));
    }
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let pod = args.pod.clone().unwrap_or(host);
    let (snapshot, pods) = read(&args)?;
    let rows = rows(&snapshot, &args.namespace, &pods);
    let mut out = stdout();
    let width = width(out.is_terminal());
    write!(out, "{}", text(&args.namespace, &rows, width))?;
    if args.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    if !rows.iter().any(|row| row.pod == pod) {
        complain(format_args!(
            "error: {pod} is no pod of {}: run it in a pod of the namespace and name it with --pod, or say \
             --dry-run",
            args.namespace
        ));
        return Ok(ExitCode::from(USAGE));
    }
    out.flush()?;
    let mut page = Page { out, width };
    let verdict = try_it(&snapshot, &args.namespace, &pod, &rows, &mut page)?;
    Ok(ExitCode::from(verdict))
}

/// The configuration with the pods of the namespace.
fn read(args: &VerifyArgs) -> anyhow::Result<(Arc<Snapshot>, Vec<Pod>)> {
    let settings = Settings {
        kubeconfig: args.kubeconfig.clone(),
        mesh: args.mesh_config_map.clone(),
        external_names: args.external_name_services,
        gateways: args.gateway_namespace.clone(),
        scope: Scope::Namespace(args.namespace.clone()),
        more: More::default(),
        silence: FIRST_LISTS,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (files, pods) = runtime.block_on(async {
        let Kubernetes { mut files, pods } = kubernetes::start(settings).await?;
        let listed = timeout(FIRST_LISTS, files.wait_for(Option::is_some)).await;
        let Ok(Ok(files)) = listed else {
            bail!(
                "the API server has not given every list within {} s: is the right to list all of them there, \
                 as node agents have it?",
                FIRST_LISTS.as_secs()
            )
        };
        let files = files.clone().context("no configuration")?;
        let pods = pods.borrow().clone().unwrap_or_default();
        Ok((files, pods))
    })?;
    let compiled = config::compile_in(&files.discovered, &files.resources, files.mesh.as_ref());
    let mut snapshot = match compiled {
        Ok(compiled) => compiled.snapshot,
        Err(problems) => {
            let first = problems.0.iter().map(ToString::to_string).next().unwrap_or_default();
            bail!("the configuration is refused, and what was in force before stays: {first}");
        }
    };
    let mut known = ClusterPods::default();
    known.replace(pods.iter().cloned());
    snapshot.mesh.workloads.extend(known.workloads());
    Ok((Arc::new(snapshot), pods.to_vec()))
}

/// Where results go, line by line as they come.
struct Page<W> {
    out: W,
    width: usize,
}

impl<W: Write> Page<W> {
    fn line(&mut self, line: &str) -> io::Result<()> {
        self.out.write_all(fitted(line, self.width).as_bytes())?;
        self.out.flush()
    }

    /// What one thing came to that was tried.
    fn tried(&mut self, good: bool, kind: &str, what: &str) -> io::Result<()> {
        let word = if good { "ok" } else { "FAIL" };
        let first = format!("  {word:<4}  {kind:<7}  ");
        let next = " ".repeat(first.len());
        self.out.write_all(wrap(what, &first, &next, self.width).as_bytes())?;
        self.out.flush()
    }
}

/// Tries what the pod may and may not do, and says so.
fn try_it(
    snapshot: &Arc<Snapshot>,
    namespace: &str,
    pod: &str,
    rows: &[Row],
    page: &mut Page<impl Write>,
) -> anyhow::Result<u8> {
    let checks = allowed(snapshot, &format!("{namespace}/{pod}"));
    let (mut failed, mut asked) = (0, 0);
    let mut targets: Vec<IpAddr> = Vec::new();
    page.line(&format!("\nfrom {namespace}/{pod}:"))?;
    let mut others: BTreeSet<(IpAddr, Check)> = BTreeSet::new();
    for check in &checks {
        let found = match addresses_of(&check.host) {
            Ok(found) => found,
            Err(error) => {
                failed += 1;
                page.tried(false, ALLOWED, &format!("{check}: {error}"))?;
                continue;
            }
        };
        let Some(addr) = found.first().copied() else { continue };
        for target in found {
            if !targets.iter().any(|known| known.is_ipv6() == target.is_ipv6()) {
                targets.push(target);
            }
        }
        asked += 1;
        let answer = ask(check, addr);
        let good = matches!(answer, Answer::Reached(_));
        failed += u32::from(!good);
        page.tried(good, ALLOWED, &format!("{check}: {answer}"))?;
        others.extend(forbidden(check).map(|other| (addr, other)));
    }
    for (addr, check) in others {
        let answer = ask(&check, addr);
        let good = matches!(answer, Answer::Refused(_));
        failed += u32::from(!good);
        page.tried(good, DENIED, &format!("{check} at {addr}: {answer}"))?;
    }
    if targets.is_empty() {
        // Nobody is there; the kernel's answer is all that counts.
        targets.push(IpAddr::from([192, 0, 2, 1]));
    }
    let enforced = rows.iter().any(|row| row.pod == pod && row.mode == "enforce");
    let reports = attempts(targets)?;
    failed += bypasses(&reports, page)?;
    if !enforced {
        failed += 1;
        page.line(
            "  FAIL  the pod is not under enforcement: what is denied is only reported, if at all",
        )?;
    }
    let verdict = match (failed, asked) {
        (0, 0) => INCONCLUSIVE,
        (0, _) => 0,
        (_, _) => FAILURE,
    };
    page.line(&summary(verdict, failed))?;
    Ok(verdict)
}

/// Says which techniques got out. Without a canary at the other end, what the own kernel refuses is certain, and an
/// ordinary connection must be among that.
fn bypasses(reports: &[Report], page: &mut Page<impl Write>) -> anyhow::Result<u32> {
    let refused = reports.iter().filter(|report| is_refused_here(report)).count();
    let got_out: Vec<String> = reports
        .iter()
        .filter(|report| matches!(report.outcome, Outcome::Answered(_)))
        .map(|report| report.case.name())
        .collect();
    let plain = |report: &&Report| report.case.attempt.name == "tcp";
    let direct = reports.iter().filter(plain).all(is_refused_here);
    let good = got_out.is_empty() && direct;
    let tried = reports.len();
    let got_out = if got_out.is_empty() { "none".to_owned() } else { got_out.join(", ") };
    let what = format!(
        "{refused} of {tried} bypass techniques are refused by the kernel, {got_out} got out"
    );
    page.tried(good, DENIED, &what)?;
    if !direct {
        page.line("        a direct TCP connection is not refused by this pod's kernel")?;
    }
    Ok(u32::from(!good))
}

/// Whether it is certain that the own kernel refused it: a host that is there refuses connections too, with another
/// error.
fn is_refused_here(report: &Report) -> bool {
    matches!(report.outcome, Outcome::Refused { errno, .. } if Errno(errno).is_forbidden())
}

fn summary(verdict: u8, failed: u32) -> String {
    match verdict {
        0 => "what is allowed works, and nothing else does".into(),
        INCONCLUSIVE => "nothing got out; the pod may reach no host that could be asked".into(),
        _ => format!("{failed} of these are not as they should be"),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{testing::golden, wrap::WIDTH},
        plan::CheckKind,
        *,
    };
    use crate::probe::{Call, cases};

    fn reports(outcomes: [Outcome; 2]) -> Vec<Report> {
        let with = |(case, outcome)| Report { case, outcome, time: Duration::from_millis(5) };
        cases(&[7]).into_iter().zip(outcomes).map(with).collect()
    }

    #[test]
    fn what_was_tried_is_shown_in_80_columns() {
        let mut page = Page { out: Vec::new(), width: WIDTH };
        let check = Check { host: "edition.cnn.com".into(), port: 443, what: CheckKind::Tls };
        let reached = Answer::Reached("a certificate of edition.cnn.com that verifies".into());
        page.tried(true, ALLOWED, &format!("{check}: {reached}")).unwrap();
        let error = "its name: failed to lookup address information: Name or service not known";
        page.tried(false, ALLOWED, &format!("{check}: {error}")).unwrap();
        let refused = Answer::Refused("the connection was closed before the handshake".into());
        page.tried(true, DENIED, &format!("{check} at 198.51.100.7: {refused}")).unwrap();
        let refused = || Outcome::Refused { call: Call::Connect, errno: 13 };
        let held = bypasses(&reports([refused(), refused()]), &mut page).unwrap();
        let out = Outcome::Answered("an answer came back".into());
        let leaked = bypasses(&reports([out, refused()]), &mut page).unwrap();
        assert_eq!((held, leaked), (0, 1));
        for verdict in [0, FAILURE, INCONCLUSIVE] {
            page.line(&summary(verdict, 2)).unwrap();
        }
        golden("verify-tried.txt", &String::from_utf8(page.out).unwrap());
    }
}
