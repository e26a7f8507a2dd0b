//! Which names are those of secrets.

/// Parts of the names of secrets, in small letters and without `-`, `_` and `.`.
const SECRET: [&str; 16] = [
    "accesskey",
    "apikey",
    "auth",
    "clientkey",
    "cookie",
    "credential",
    "encryptionkey",
    "passphrase",
    "passw",
    "privatekey",
    "pwd",
    "secret",
    "signature",
    "signingkey",
    "tlskey",
    "token",
];

/// Keys that have such a part, and whose values are names.
const NAMES: [&str; 6] = [
    "authorizationPolicies",
    "authorizationPolicy",
    "authorization_policy",
    "credentialName",
    "secretName",
    "signatureAlgorithm",
];

/// Ends of the names of statistics.
const STATISTICS: [&str; 4] = ["_bytes", "_count", "_seconds", "_total"];

/// Whether values with this name are secret.
pub(super) fn is_secret(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let plain: String = name.chars().filter(|c| !matches!(c, '-' | '_' | '.')).collect();
    // An authority is a host.
    let plain = plain.to_ascii_lowercase().replace("authority", "|").replace("authorities", "|");
    // `OTEL_EXPORTER_OTLP_HEADERS`, and those of one signal: a collector's credentials, as the standard has it.
    let of_collector = plain.starts_with("otel") && plain.ends_with("headers");
    !NAMES.contains(&last) && (of_collector || SECRET.iter().any(|part| plain.contains(part)))
}

/// Whether a value is none, or the path of a file with a key, as configuration has it.
pub(super) fn is_open(name: &str, value: &str) -> bool {
    let path = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'-' | b'_');
    let file = value.starts_with('/')
        && [".key", ".pem"].iter().any(|end| value.ends_with(end))
        && value.bytes().all(path);
    matches!(value, "true" | "false" | "null" | "[]" | "{}")
        || (file && name.to_ascii_lowercase().ends_with("key"))
}

pub(super) fn is_statistic(name: &str) -> bool {
    STATISTICS.iter().any(|end| name.ends_with(end))
}
