//! Which pod a cgroup belongs to, by its path below the cgroup2 mount.
//!
//! kubelet lays the paths out in two ways. With the driver `cgroupfs`:
//! `/kubepods[/burstable|/besteffort]/pod<UID>/<container>`. With the driver `systemd`:
//! `/kubepods.slice[/kubepods-burstable.slice]/kubepods-burstable-pod<UID>.slice/cri-containerd-<container>.scope`,
//! where the UID has `_` in place of `-`. kubelet's own root (`--cgroup-root`) may come before.
//!
//! A process may make cgroups below its own, of any name, if its pod mounts the hierarchy. So the
//! outermost directory that is a pod's decides, and nothing below it is read but the container.

use std::{
    fmt,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

/// Hexadecimal digits of a UID, and of a static pod's configuration hash.
const DIGITS: usize = 32;
/// Where a UUID's hyphens are (RFC 9562 §4).
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// The UID of a pod in a cgroup's path: a UUID, or the hash of a static pod's configuration.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PodUid(Arc<str>);

impl PodUid {
    /// A UUID in lower case with hyphens, or 32 digits without.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let hash = bytes.len() == DIGITS && bytes.iter().all(digit);
        let uuid = bytes.len() == DIGITS + HYPHENS.len()
            && bytes.iter().enumerate().all(|(index, byte)| {
                if HYPHENS.contains(&index) { *byte == b'-' } else { digit(byte) }
            });
        (hash || uuid).then(|| Self(text.into()))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of a container, as its runtime names it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ContainerId(Arc<str>);

impl ContainerId {
    /// Hexadecimal digits, which is what every runtime gives.
    fn parse(text: &str) -> Option<Self> {
        let plain = text.len() >= 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        plain.then(|| Self(text.into()))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a cgroup's path says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PodCgroup {
    /// The pod.
    pub pod: PodUid,
    /// The cgroup of the whole pod.
    pub path: PathBuf,
    /// The container, where the path leads into one.
    pub container: Option<ContainerId>,
}

impl PodCgroup {
    /// Reads a path below the cgroup2 mount. `None` for what is no pod's, `/kubepods` included.
    #[must_use]
    pub fn parse(path: &Path) -> Option<Self> {
        let mut pods = false;
        let mut above = PathBuf::new();
        let mut components = path.components();
        while let Some(component) = components.next() {
            above.push(component);
            let Component::Normal(name) = component else {
                // Neither `.` nor `..` is part of a cgroup's path.
                if component == Component::RootDir { continue } else { return None }
            };
            let name = name.to_str()?;
            if let Some(pod) = pod_in(name, pods) {
                let container =
                    components.next().and_then(|below| container_in(below.as_os_str().to_str()?));
                return Some(Self { pod, path: above, container });
            }
            pods = match name {
                "kubepods" => true,
                // The classes of service below it.
                "burstable" | "besteffort" => pods,
                _ => false,
            };
        }
        None
    }
}

/// The pod of a directory. `below`: it is below `/kubepods`, apart from the class of service.
fn pod_in(name: &str, below: bool) -> Option<PodUid> {
    if let Some(slice) = name.strip_suffix(".slice") {
        // Every part of a slice's name is a slice above it (systemd.slice(5)).
        let (parents, uid) = slice.rsplit_once("-pod")?;
        return parents
            .split('-')
            .any(|parent| parent == "kubepods")
            .then(|| PodUid::parse(&uid.replace('_', "-")))
            .flatten();
    }
    below.then(|| PodUid::parse(name.strip_prefix("pod")?)).flatten()
}

/// The container of a directory below a pod's.
fn container_in(name: &str) -> Option<ContainerId> {
    let id = match name.strip_suffix(".scope") {
        Some(scope) => scope.rsplit_once('-').map_or(scope, |(_, id)| id),
        None => name,
    };
    ContainerId::parse(id)
}

/// The path of a process's cgroup in the unified hierarchy, from `/proc/<pid>/cgroup`
/// (cgroups(7)). On a hybrid host there are lines of other hierarchies too, which are not read.
#[must_use]
pub fn unified_path(text: &str) -> Option<&Path> {
    text.lines().find_map(|line| line.strip_prefix("0::")).map(Path::new)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UID: &str = "0f3f1c1e-7a5b-4c3d-9e8f-0123456789ab";
    const HASH: &str = "0123456789abcdef0123456789abcdef";
    const ID: &str = "aa0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd";

    fn parse(path: &str) -> Option<(String, String, Option<String>)> {
        PodCgroup::parse(Path::new(path)).map(|PodCgroup { pod, path, container }| {
            let container = container.map(|id| id.as_str().to_owned());
            (pod.to_string(), path.display().to_string(), container)
        })
    }

    #[test]
    fn both_drivers_and_all_classes_are_read() {
        let escaped = UID.replace('-', "_");
        for (pod, uid) in [
            (format!("/kubepods/pod{UID}"), UID),
            (format!("/kubepods/burstable/pod{UID}"), UID),
            (format!("/kubepods/besteffort/pod{HASH}"), HASH),
            (format!("/kubelet/kubepods/besteffort/pod{UID}"), UID),
            (format!("/kubepods.slice/kubepods-pod{escaped}.slice"), UID),
            (
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{escaped}.slice"
                ),
                UID,
            ),
            (
                format!(
                    "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{HASH}.slice"
                ),
                HASH,
            ),
            (
                format!(
                    "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{escaped}.slice"
                ),
                UID,
            ),
        ] {
            assert_eq!(parse(&pod), Some((uid.into(), pod.clone(), None)), "{pod}");
            let some = |below: &str| {
                let expected = Some((uid.into(), pod.clone(), Some(ID.into())));
                assert_eq!(parse(&format!("{pod}/{below}")), expected, "{pod}/{below}");
            };
            some(ID);
            some(&format!("cri-containerd-{ID}.scope"));
            some(&format!("crio-{ID}.scope"));
            some(&format!("cri-containerd-{ID}.scope/init/more"));
            assert_eq!(parse(&format!("{pod}/inner")), Some((uid.into(), pod.clone(), None)));
        }
    }

    #[test]
    fn other_cgroups_are_not_read() {
        let escaped = UID.replace('-', "_");
        for path in [
            "/".into(),
            "/kubepods".into(),
            "/kubepods/burstable".into(),
            "/kubepods.slice/kubepods-burstable.slice".into(),
            format!("/pod{UID}"),
            format!("/other/pod{UID}"),
            format!("/kubepods/other/pod{UID}"),
            format!("/kubepods/pod{}", UID.to_uppercase()),
            format!("/kubepods/pod{escaped}"),
            format!("/kubepods/pod{UID}0"),
            format!("/kubepods/../kubepods/pod{UID}"),
            format!("/system.slice/my-pod{escaped}.slice"),
            format!("/xkubepods.slice/xkubepods-pod{escaped}.slice"),
            format!("/kubepods.slice/kubepods-pod{escaped}.scope"),
        ] {
            assert_eq!(parse(&path), None, "{path}");
        }
    }

    /// A pod that makes cgroups below its own is not taken for another pod by their names.
    #[test]
    fn the_outermost_pod_counts() {
        let other = "ffffffff-ffff-4fff-bfff-ffffffffffff";
        let own = format!("/kubepods/burstable/pod{UID}");
        let escaped = other.replace('-', "_");
        for below in [
            format!("{ID}/kubepods/pod{other}"),
            format!("kubepods/pod{other}/{ID}"),
            format!("{ID}/kubepods.slice/kubepods-pod{escaped}.slice"),
        ] {
            assert_eq!(parse(&format!("{own}/{below}")).unwrap().0, UID, "{below}");
        }
    }

    #[test]
    fn of_several_hierarchies_the_unified_one_counts() {
        let hybrid =
            format!("3:cpu:/a\n1:name=systemd:/kubepods/pod{HASH}\n0::/kubepods/pod{UID}\n");
        assert_eq!(unified_path(&hybrid), Some(Path::new(&format!("/kubepods/pod{UID}"))));
        assert_eq!(unified_path("1:name=systemd:/x\n"), None);
    }

    fn uid() -> impl Strategy<Value = String> {
        prop_oneof!["[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "[0-9a-f]{32}"]
    }

    proptest! {
        #[test]
        fn a_path_that_was_laid_out_is_read_back(
            uid in uid(),
            class in prop_oneof![Just(""), Just("burstable"), Just("besteffort")],
            systemd in any::<bool>(),
            id in "[0-9a-f]{64}",
        ) {
            let pod = if systemd {
                let dash = if class.is_empty() { "" } else { "-" };
                let uid = uid.replace('-', "_");
                let parent = if class.is_empty() { String::new() } else { format!("/kubepods-{class}.slice") };
                format!("/kubepods.slice{parent}/kubepods{dash}{class}-pod{uid}.slice")
            } else {
                let slash = if class.is_empty() { "" } else { "/" };
                format!("/kubepods{slash}{class}/pod{uid}")
            };
            let path = if systemd { format!("{pod}/cri-containerd-{id}.scope") } else { format!("{pod}/{id}") };
            prop_assert_eq!(parse(&path), Some((uid, pod, Some(id))));
        }

        /// No path makes it panic, and what is found is a prefix of the path and a UID.
        #[test]
        fn any_path_is_read_or_not(path in "(/(kubepods(\\.slice)?|kubepods-pod[0-9a-f_]{0,36}\\.slice|burstable|pod[0-9a-f-]{0,36}|\\.\\.|[a-z]{1,4})){0,6}") {
            if let Some(found) = PodCgroup::parse(Path::new(&path)) {
                prop_assert!(Path::new(&path).starts_with(&found.path));
                prop_assert_eq!(PodUid::parse(found.pod.as_str()), Some(found.pod));
            }
        }
    }
}
