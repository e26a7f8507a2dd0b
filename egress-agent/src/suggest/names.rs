//! Names of resources of a host.

use aws_lc_rs::digest::{SHA256, digest};

/// Bytes of a resource's name at most (RFC 1123 subdomain).
const NAME: usize = 253;
/// Bytes of a file's name before `.yaml` (Linux's `NAME_MAX`).
const FILE: usize = 250;

/// The name of a host's resources: no two hosts share one. A host that is no name of a resource, or too
/// long for one, is named by its hash, with what can be read of it.
pub(super) fn name(host: &str) -> String {
    let plain = match host.strip_prefix("*.") {
        Some(domain) => format!("suggested-all.{domain}"),
        None => format!("suggested.{host}"),
    };
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    if plain.len() <= NAME && plain.bytes().all(allowed) {
        return plain;
    }
    let hash = digest(&SHA256, host.as_bytes());
    let hash: String = hash.as_ref().iter().take(16).map(|b| format!("{b:02x}")).collect();
    let legible = host.bytes().map(|b| if allowed(b) { char::from(b) } else { 'x' });
    let name: String = format!("suggested-{hash}.").chars().chain(legible).take(NAME).collect();
    name.trim_end_matches(['-', '.']).to_owned()
}

/// The name of the file for resources of this name in this namespace: no two have one. Both may come from
/// flows, so what is no name of a resource, or too long for a file (255 bytes), is named by its hash.
pub(super) fn file_name(namespace: &str, name: &str) -> String {
    let plain = format!("{namespace}.{name}");
    let label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let is_namespace = !namespace.is_empty() && namespace.bytes().all(label);
    let is_name = !name.is_empty() && name.bytes().all(|b| label(b) || b == b'.');
    if is_namespace && is_name && plain.len() <= FILE {
        return format!("{plain}.yaml");
    }
    let hash = digest(&SHA256, format!("{namespace}\n{name}").as_bytes());
    let hash: String = hash.as_ref().iter().take(16).map(|b| format!("{b:02x}")).collect();
    format!("suggested-{hash}.yaml")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_hosts_share_a_name() {
        let long = ["a", "b", "c", "d"].map(|label| label.repeat(62)).join(".");
        let (other, below) = (long.replace("dd", "de"), format!("*.{long}"));
        let hosts = [
            "a-b.example",
            "a.b.example",
            "a--b.example",
            "*.e.com",
            "x.e.com",
            "all.e.com",
            "e.com",
            "a_b.example",
            "axb.example",
            "_a.example",
            "xa.example",
            "a_.b_",
            &long,
            &other,
            &below,
        ];
        let mut names = BTreeSet::new();
        for host in hosts {
            let name = name(host);
            assert!(name.len() <= NAME, "{name}");
            for label in name.split('.') {
                let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
                assert!((1..=63).contains(&label.len()) && label.bytes().all(fine), "{name}");
                assert!(!label.starts_with('-') && !label.ends_with('-'), "{name}");
            }
            assert!(names.insert(name.clone()), "{name} of {host} twice");
        }
        let mut files = BTreeSet::new();
        for namespace in ["shop", "a", "../etc", "a/b", "", ".", "a.b"] {
            for name in hosts.map(name).iter().map(String::as_str).chain(["", "..", "x/../y"]) {
                let file = file_name(namespace, name);
                assert!(file.len() <= 255 && !file.starts_with('.'), "{file}");
                assert!(!file.contains('/') && file.ends_with(".yaml"), "{file}");
                assert!(files.insert(file.clone()), "{file} of {namespace} {name} twice");
            }
        }
        assert_eq!(file_name("shop", "suggested.a.example"), "shop.suggested.a.example.yaml");
        assert_eq!(name("a-b.example"), "suggested.a-b.example");
        assert_eq!(name("*.e.com"), "suggested-all.e.com");
    }
}
