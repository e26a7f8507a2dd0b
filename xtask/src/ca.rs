//! `cargo xtask ca`: a small certificate authority for demos and for trying things out. It is a
//! directory and a few `openssl` commands; nothing of it is meant for production.

mod files;

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};

use self::files::{date, openssl, private, publish};

/// Istio's name for its egress gateway.
const GATEWAY_ID: &str =
    "spiffe://cluster.local/ns/istio-system/sa/istio-egressgateway-service-account";
const NODE_ID: &str = "spiffe://cluster.local/ns/egress-system/sa/egress-node";
const WORKLOAD_ID: &str = "spiffe://cluster.local/ns/default/sa/curl";
/// The directory of the authority itself, below that of everything.
const AUTHORITY: &str = "authority";

/// What to do.
#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a root, and from it the identities of a gateway, a node and a workload.
    ///
    /// Each gets a directory that `--identity-dir` takes: tls.crt, tls.key, ca.crt and ca.crl.
    New {
        /// Where. It must not exist yet.
        dir: PathBuf,
        /// How long the root is valid.
        #[arg(long, value_name = "TIME", default_value = "3650d", value_parser = span)]
        root_valid: Duration,
        /// How long the certificates are valid.
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = span)]
        valid: Duration,
    },
    /// Issue a certificate, or renew one: files are swapped at once, as kubelet swaps a Secret's.
    Issue {
        /// The directory of `new`.
        dir: PathBuf,
        /// The directory of the certificate below it: gateway, node, workload, or a new one.
        name: String,
        /// The SPIFFE ID [default: that of the certificate so far].
        #[arg(long, value_name = "spiffe://DOMAIN/ns/NS/sa/SA")]
        id: Option<String>,
        /// DNS names besides, for clients that know nothing of SPIFFE.
        #[arg(long, value_name = "NAME")]
        dns: Vec<String>,
        /// How long it is valid: 90s, 15m, 24h or 30d. What is over at once can be had with 1s.
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = span)]
        valid: Duration,
    },
    /// Revoke a certificate of the newest root, and give every directory the new revocation list.
    Revoke {
        /// The directory of `new`.
        dir: PathBuf,
        /// Whose certificate.
        name: String,
    },
    /// Make a new root. Every directory gets it beside the old one; certificates stay those of the
    /// old one until `issue` renews them.
    Root {
        /// The directory of `new`.
        dir: PathBuf,
        /// Forget the old one instead: what it signed is trusted no more.
        #[arg(long)]
        forget: bool,
    },
}

/// `90s`, `15m`, `24h`, `30d`.
fn span(text: &str) -> Result<Duration, String> {
    let expected = || format!("found `{text}`, expected a time such as 90s, 15m, 24h or 30d");
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(expected()),
    };
    let number: u64 = number.parse().map_err(|_| expected())?;
    number.checked_mul(unit).filter(|s| *s > 0).map(Duration::from_secs).ok_or_else(expected)
}

/// Does it.
///
/// # Errors
/// `openssl` is missing or failed, or a directory isn't what it should be.
pub(crate) fn run(options: &Options) -> Result<()> {
    match &options.command {
        Command::New { dir, root_valid, valid } => new(dir, *root_valid, *valid),
        Command::Issue { dir, name, id, dns, valid } => {
            Authority::open(dir)?.issue(name, id.as_deref(), dns, *valid)
        }
        Command::Revoke { dir, name } => Authority::open(dir)?.revoke(name),
        Command::Root { dir, forget } => Authority::open(dir)?.roll(*forget),
    }
}

fn new(dir: &Path, root_valid: Duration, valid: Duration) -> Result<()> {
    if dir.exists() {
        bail!("{} exists already; `cargo xtask ca issue` renews what is in it", dir.display());
    }
    fs::create_dir_all(dir.join(AUTHORITY)).with_context(|| dir.display().to_string())?;
    // openssl's settings hold the path.
    let authority = Authority { dir: dir.canonicalize()? };
    private(&authority.own(""))?;
    authority.root(root_valid)?;
    fs::copy(authority.own("root.crt"), authority.own("trusted.crt"))?;
    for (name, id) in [("gateway", GATEWAY_ID), ("node", NODE_ID), ("workload", WORKLOAD_ID)] {
        authority.issue(name, Some(id), &[], valid)?;
    }
    println!(
        "\n{0} holds an authority and three identities. To use them:\n\
         \x20 egress-agent gateway … --identity-dir {0}/gateway\n\
         \x20 egress-agent node …    --identity-dir {0}/node\n\
         \x20 curl --cert {0}/workload/tls.crt --key {0}/workload/tls.key --cacert {0}/workload/ca.crt …\n\
         \x20 egress-agent certs show {0}/gateway\n\
         To see what follows from it: `cargo xtask ca issue {0} node --valid 60s`, `cargo xtask ca\n\
         revoke {0} workload`, `cargo xtask ca root {0}`.",
        dir.display()
    );
    Ok(())
}

/// The directory of everything.
struct Authority {
    dir: PathBuf,
}

impl Authority {
    fn open(dir: &Path) -> Result<Self> {
        let authority = Self { dir: dir.to_owned() };
        if !authority.own("root.key").is_file() {
            bail!("{0} holds no authority; make one with `cargo xtask ca new {0}`", dir.display());
        }
        Ok(authority)
    }

    /// A file of the authority itself.
    fn own(&self, name: &str) -> PathBuf {
        self.dir.join(AUTHORITY).join(name)
    }

    /// The arguments that make `openssl ca` work for the newest root.
    fn signer(&self) -> [OsString; 6] {
        let own = |name| self.own(name).into_os_string();
        let [config, key, certificate] = [own("openssl.cnf"), own("root.key"), own("root.crt")];
        ["-config".into(), config, "-keyfile".into(), key, "-cert".into(), certificate]
    }

    /// A new root, and empty books.
    fn root(&self, valid: Duration) -> Result<()> {
        // Nobody guesses the numbers of another root's certificates, and each has a name of its own,
        // by which revocation lists are found.
        let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let config = format!(
            "[ca]\ndefault_ca = small\n[small]\ndatabase = {0}/index.txt\nserial = {0}/serial\n\
             crlnumber = {0}/crlnumber\nnew_certs_dir = {0}/issued\ndefault_md = sha256\n\
             unique_subject = no\npolicy = any\ncopy_extensions = none\n\
             [any]\ncommonName = supplied\norganizationName = optional\n\
             [req]\ndistinguished_name = name\nx509_extensions = root\nprompt = no\n\
             [name]\nO = cluster.local\nCN = small authority {start}\n\
             [root]\nbasicConstraints = critical, CA:true\nkeyUsage = critical, keyCertSign, cRLSign\n\
             subjectKeyIdentifier = hash\n",
            self.own("").display(),
        );
        fs::write(self.own("openssl.cnf"), config)?;
        fs::create_dir_all(self.own("issued"))?;
        fs::write(self.own("index.txt"), "")?;
        for name in ["serial", "crlnumber"] {
            fs::write(self.own(name), format!("{start:016x}\n"))?;
        }
        let days = valid.as_secs().div_ceil(86_400).to_string();
        self.key(&self.own("root.key"))?;
        openssl(&["req", "-new", "-x509", "-days", &days])
            .arg("-config")
            .arg(self.own("openssl.cnf"))
            .arg("-key")
            .arg(self.own("root.key"))
            .arg("-out")
            .arg(self.own("root.crt"))
            .finish()
    }

    /// A key of the curve P-256.
    fn key(&self, path: &Path) -> Result<()> {
        openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"])
            .arg(path)
            .finish()?;
        private(path)
    }

    fn issue(&self, name: &str, id: Option<&str>, dns: &[String], valid: Duration) -> Result<()> {
        if name == AUTHORITY || name.contains('/') || name.starts_with('.') || name.is_empty() {
            bail!("found the name `{name}`, expected one for a directory beside `{AUTHORITY}`");
        }
        let home = self.dir.join(name);
        let known = fs::read_to_string(self.own(&format!("{name}.id"))).ok();
        let id = match (id, &known) {
            (Some(id), _) => id.to_owned(),
            (None, Some(known)) => known.trim().to_owned(),
            (None, None) => {
                bail!("there is no certificate `{name}` yet: say whose it is with --id")
            }
        };
        if !id.starts_with("spiffe://") || id.contains([',', '\n', ' ']) {
            bail!("found the identity `{id}`, expected spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT");
        }
        let names: String = dns.iter().map(|name| format!(", DNS:{name}")).collect();
        let extensions = format!(
            "basicConstraints = critical, CA:false\nkeyUsage = critical, digitalSignature\n\
             extendedKeyUsage = serverAuth, clientAuth\nsubjectAltName = critical, URI:{id}{names}\n"
        );
        let (request, extension) = (self.own("request.csr"), self.own("request.ext"));
        let (key, certificate) = (self.own("request.key"), self.own("request.crt"));
        fs::write(&extension, extensions)?;
        self.key(&key)?;
        openssl(&["req", "-new", "-subj", &format!("/CN={name}")])
            .arg("-config")
            .arg(self.own("openssl.cnf"))
            .arg("-key")
            .arg(&key)
            .arg("-out")
            .arg(&request)
            .finish()?;
        let now = SystemTime::now();
        // Clocks of different hosts differ a little.
        let begin = now.checked_sub(Duration::from_secs(60)).unwrap_or(now);
        openssl(&["ca", "-batch", "-notext", "-startdate", &date(begin)?, "-enddate"])
            .arg(date(now + valid)?)
            .args(self.signer())
            .arg("-extfile")
            .arg(&extension)
            .arg("-in")
            .arg(&request)
            .arg("-out")
            .arg(&certificate)
            .finish()?;
        fs::write(self.own(&format!("{name}.id")), format!("{id}\n"))?;
        let list = self.list()?;
        publish(
            &home,
            &[
                ("tls.crt", fs::read(&certificate)?),
                ("tls.key", fs::read(&key)?),
                ("ca.crt", fs::read(self.own("trusted.crt"))?),
                ("ca.crl", list),
            ],
        )?;
        println!("{}: {id}, valid for {} s", home.display(), valid.as_secs());
        fs::remove_file(&key)?;
        Ok(())
    }

    fn revoke(&self, name: &str) -> Result<()> {
        let certificate = self.dir.join(name).join("tls.crt");
        if !certificate.is_file() {
            bail!("there is no certificate `{name}` in {}", self.dir.display());
        }
        openssl(&["ca", "-batch", "-revoke"]).arg(&certificate).args(self.signer()).finish()?;
        self.everywhere()?;
        println!("{}: revoked; every directory has the new list", certificate.display());
        Ok(())
    }

    fn roll(&self, forget: bool) -> Result<()> {
        let trusted = fs::read(self.own("root.crt"))?;
        if forget {
            fs::write(self.own("trusted.crt"), &trusted)?;
            fs::remove_file(self.own("former.crl")).ok();
            self.everywhere()?;
            println!("every directory trusts the newest root alone");
            return Ok(());
        }
        fs::write(self.own("former.crl"), self.list()?)?;
        self.root(Duration::from_secs(3650 * 86_400))?;
        let mut both = fs::read(self.own("root.crt"))?;
        both.extend(trusted);
        fs::write(self.own("trusted.crt"), both)?;
        self.everywhere()?;
        println!(
            "every directory trusts the new root beside the old one. Next: `cargo xtask ca issue \
             {0} NAME` for each, then `cargo xtask ca root {0} --forget`",
            self.dir.display()
        );
        Ok(())
    }

    /// The list of what is revoked; those of a former root stay beside it while it is trusted.
    fn list(&self) -> Result<Vec<u8>> {
        let path = self.own("root.crl");
        openssl(&["ca", "-gencrl", "-crldays", "30"])
            .args(self.signer())
            .arg("-out")
            .arg(&path)
            .finish()?;
        let mut lists = fs::read(path)?;
        lists.extend(fs::read(self.own("former.crl")).unwrap_or_default());
        Ok(lists)
    }

    /// Gives every directory the roots and lists of now.
    fn everywhere(&self) -> Result<()> {
        let (roots, list) = (fs::read(self.own("trusted.crt"))?, self.list()?);
        for entry in fs::read_dir(&self.dir)? {
            let home = entry?.path();
            if home.file_name().is_some_and(|name| name == AUTHORITY) || !home.is_dir() {
                continue;
            }
            publish(
                &home,
                &[
                    ("tls.crt", fs::read(home.join("tls.crt"))?),
                    ("tls.key", fs::read(home.join("tls.key"))?),
                    ("ca.crt", roots.clone()),
                    ("ca.crl", list.clone()),
                ],
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read() {
        assert_eq!(span("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(span("2d"), Ok(Duration::from_secs(172_800)));
        for text in ["", "s", "0s", "10", "-1h", "1.5h", "1w", "99999999999999999999d"] {
            assert!(span(text).is_err(), "{text}");
        }
    }
}
