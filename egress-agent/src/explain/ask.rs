//! A question as texts: as a command line has it, and as the query of a request.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::{
    answer::explain,
    outcome::Explanation,
    question::{ExplainRequest, Url, split, with_pod, workload},
};
use crate::{policy::Snapshot, types::Labels};

/// A question about a configuration.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Query {
    /// `NAMESPACE/WORKLOAD`.
    pub from: String,
    /// `https://host:port/path`.
    pub url: String,
    /// The method; `GET` where absent.
    pub method: Option<String>,
    /// Headers, as `Name: value`.
    pub headers: Vec<String>,
    /// Labels of a pod that is in none of the files, as `key=value`.
    pub labels: Vec<String>,
    /// The address that is dialled.
    pub address: Option<String>,
}

/// What of a question means the same in every configuration.
struct ReadQuery {
    url: Url,
    method: Method,
    headers: HeaderMap,
    labels: Labels,
    address: Option<IpAddr>,
}

impl Query {
    /// Answers it.
    ///
    /// # Errors
    /// What of the question cannot be read, or is not in the configuration.
    pub fn answer(&self, snapshot: &Arc<Snapshot>) -> Result<Explanation, String> {
        let ReadQuery { url, method, headers, labels, address } = self.read()?;
        let (snapshot, workload) = if labels.is_empty() {
            (Arc::clone(snapshot), workload(snapshot, &self.from)?)
        } else {
            with_pod(snapshot, &self.from, labels)?
        };
        Ok(explain(&snapshot, &ExplainRequest { workload, url, method, headers, address }))
    }

    /// Whether it can be read, whatever the configuration is.
    ///
    /// # Errors
    /// What of it cannot be read.
    pub fn check(&self) -> Result<(), String> {
        self.read().map(drop)
    }

    fn read(&self) -> Result<ReadQuery, String> {
        split(&self.from)?;
        let address = self.address.as_ref().map(|text| {
            text.parse().map_err(|_| format!("found `{text}`, expected an IP address"))
        });
        let method = self.method.as_deref().unwrap_or("GET");
        Ok(ReadQuery {
            url: Url::parse(&self.url)?,
            method: Method::from_bytes(method.as_bytes())
                .map_err(|_| format!("found `{method}`, expected an HTTP method, such as POST"))?,
            headers: headers(&self.headers)?,
            labels: labels(&self.labels)?,
            address: address.transpose()?,
        })
    }

    /// As the query of a request.
    #[must_use]
    pub fn query(&self) -> String {
        let Self { from, url, method, headers, labels, address } = self;
        let mut pairs = vec![("from", from), ("url", url)];
        pairs.extend(method.iter().map(|method| ("method", method)));
        pairs.extend(headers.iter().map(|header| ("header", header)));
        pairs.extend(labels.iter().map(|label| ("label", label)));
        pairs.extend(address.iter().map(|address| ("address", address)));
        let encoded = pairs.into_iter().map(|(key, value)| format!("{key}={}", encode(value)));
        encoded.collect::<Vec<_>>().join("&")
    }

    /// From the query of a request.
    ///
    /// # Errors
    /// A parameter that is not known, or whose value cannot be read.
    pub fn from_query(query: &str) -> Result<Self, String> {
        let mut ask = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value).ok_or_else(|| format!("{key} has a wrong encoding"))?;
            match key {
                "from" => ask.from = value,
                "url" => ask.url = value,
                "method" => ask.method = Some(value),
                "header" => ask.headers.push(value),
                "label" => ask.labels.push(value),
                "address" => ask.address = Some(value),
                other => {
                    return Err(format!(
                        "unknown parameter {other}; expected from, url, method, header, label or \
                         address"
                    ));
                }
            }
        }
        Ok(ask)
    }
}

fn labels(texts: &[String]) -> Result<Labels, String> {
    let pairs = texts.iter().flat_map(|text| text.split(','));
    let read = pairs.map(|pair| match pair.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("found the label `{pair}`, expected key=value")),
    });
    read.collect()
}

fn headers(texts: &[String]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for text in texts {
        let wrong = || format!("found the header `{text}`, expected Name: value");
        let (name, value) = text.split_once(':').ok_or_else(wrong)?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong())?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| wrong())?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// Percent-encoding (RFC 3986 §2.1) of all but unreserved characters.
fn encode(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, others @ ..] = rest {
        rest = others;
        match (first, others) {
            (b'%', [high, low, others @ ..]) => {
                let digits = [*high, *low];
                let digits = digits.iter().all(u8::is_ascii_hexdigit).then_some(digits)?;
                let digits = std::str::from_utf8(&digits).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = others;
            }
            (b'%', _) => return None,
            (byte, _) => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn a_question_survives_the_query(
            (from, url) in (".*", ".*"),
            method in option::of(".*"),
            headers in vec(".*", 0..3),
            labels in vec(".*", 0..3),
            address in option::of(".*"),
        ) {
            let ask = Query { from, url, method, headers, labels, address };
            prop_assert_eq!(Query::from_query(&ask.query()), Ok(ask));
        }
    }

    #[test]
    fn what_is_not_known_is_an_error() {
        assert!(Query::from_query("form=a").unwrap_err().contains("unknown parameter form"));
        assert!(Query::from_query("from=%zz").is_err());
        assert!(Query::from_query("from=%f").is_err());
    }

    #[test]
    fn what_cannot_be_read_is_explained() {
        let snapshot = Arc::<Snapshot>::default();
        let url = "http://a.example".to_owned();
        let ask = Query { from: "shop/web".into(), url, ..Query::default() };
        let said = |ask: Query| ask.answer(&snapshot).unwrap_err();
        assert!(said(ask.clone()).contains("no workload shop/web"), "{}", said(ask.clone()));
        let pod = Query { labels: vec!["app=web".into()], ..ask.clone() };
        assert!(pod.answer(&snapshot).is_ok());
        assert!(said(Query { from: "web".into(), ..ask.clone() }).contains("NAMESPACE/WORKLOAD"));
        assert!(said(Query { labels: vec!["app".into()], ..ask.clone() }).contains("key=value"));
        assert!(said(Query { headers: vec!["x".into()], ..pod.clone() }).contains("Name: value"));
        assert!(said(Query { method: Some("G T".into()), ..pod.clone() }).contains("HTTP method"));
        assert!(said(Query { address: Some("a".into()), ..pod.clone() }).contains("IP address"));
        // Without a configuration, too, what means the same in each.
        assert_eq!((pod.check(), ask.check()), (Ok(()), Ok(())));
        let wrong = Query { url: "htp://a.example".into(), ..pod };
        assert!(wrong.check().unwrap_err().contains("htp"), "{:?}", wrong.check());
        assert!(Query { from: "web".into(), ..ask }.check().is_err());
    }
}
