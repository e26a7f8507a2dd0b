//! Where a collector is.

use http::Uri;

/// A URL of `OTEL_EXPORTER_OTLP_…ENDPOINT`, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Whether it is reached over TLS.
    pub tls: bool,
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// `Host` of the requests.
    pub authority: String,
    /// Path and query.
    pub path: String,
}

impl Endpoint {
    /// Reads a URL. `append` is put behind its path: that of the signal, where the URL is of all signals.
    ///
    /// # Errors
    /// What was found, and what was expected.
    pub(super) fn parse(text: &str, append: &str) -> Result<Self, String> {
        let expected = "expected a URL such as http://collector:4318";
        let uri: Uri = text.parse().map_err(|_| format!("found `{text}`, {expected}"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) | None => {
                return Err(format!(
                    "found `{text}`, expected http:// or https:// at its beginning"
                ));
            }
        };
        let authority = uri.authority().ok_or_else(|| format!("found `{text}`, {expected}"))?;
        if authority.as_str().contains('@') {
            // The text is not repeated: it holds a password.
            return Err(
                "found a user in the URL, expected none: put what the collector asks for into \
                        OTEL_EXPORTER_OTLP_HEADERS"
                    .into(),
            );
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(format!("found `{text}`, {expected}"));
        }
        let port = match authority.as_str().rsplit_once(':') {
            Some((_, port)) if !port.ends_with(']') => {
                authority.port_u16().filter(|port| *port != 0).ok_or_else(|| {
                    format!("found the port `{port}` in `{text}`, expected 1 to 65535")
                })?
            }
            Some(_) | None if tls => 443,
            Some(_) | None => 80,
        };
        let path = if append.is_empty() {
            uri.path_and_query().map_or("/", |path| path.as_str()).to_owned()
        } else {
            format!("{}{append}", uri.path().trim_end_matches('/'))
        };
        Ok(Self { tls, host: host.into(), port, authority: authority.as_str().into(), path })
    }

    /// As messages name it.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let plain = Endpoint::parse("http://collector:4318", "/v1/logs").unwrap();
        assert_eq!((plain.tls, &*plain.host, plain.port), (false, "collector", 4318));
        assert_eq!(plain.url(), "http://collector:4318/v1/logs");
        let below = Endpoint::parse("https://otel.example/ingest/", "/v1/traces").unwrap();
        assert_eq!((below.tls, below.port), (true, 443));
        assert_eq!(below.path, "/ingest/v1/traces");
        // A URL of one signal is taken as it is.
        assert_eq!(Endpoint::parse("http://[::1]:4318", "").unwrap().path, "/");
        let six = Endpoint::parse("http://[fd00::1]/x?y=1", "").unwrap();
        assert_eq!((&*six.host, six.port, &*six.path), ("fd00::1", 80, "/x?y=1"));
    }

    #[test]
    fn what_is_no_url_is_said() {
        for (text, what) in [
            ("collector:4318", "http:// or https://"),
            ("grpc://collector:4317", "http:// or https://"),
            ("/v1/logs", "http:// or https://"),
            ("http://", "expected a URL"),
            ("http://collector:0", "the port `0`"),
            ("http://collector:99999", "expected"),
            ("http://a b", "expected a URL"),
        ] {
            let error = Endpoint::parse(text, "").unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
        let error = Endpoint::parse("http://me:secret@collector", "").unwrap_err();
        assert!(error.contains("OTEL_EXPORTER_OTLP_HEADERS") && !error.contains("secret"));
    }
}
