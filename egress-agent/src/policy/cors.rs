//! Cross-origin requests (CORS): which pages' browsers may make them.

use http::HeaderValue;

use super::TextMatch;

/// `corsPolicy`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CorsPolicy {
    /// Origins that are allowed.
    pub origins: Vec<TextMatch>,
    /// `Access-Control-Allow-Methods`.
    pub methods: Option<HeaderValue>,
    /// `Access-Control-Allow-Headers`.
    pub headers: Option<HeaderValue>,
    /// `Access-Control-Expose-Headers`.
    pub exposed: Option<HeaderValue>,
    /// `Access-Control-Max-Age`.
    pub max_age: Option<HeaderValue>,
    /// `Access-Control-Allow-Credentials`.
    pub credentials: bool,
    /// Whether a preflight of an origin that is not allowed is answered here, without a permission.
    pub answers_unmatched: bool,
}

impl CorsPolicy {
    /// Whether pages of this origin are allowed. As in Envoy, what matches `*` allows any.
    #[must_use]
    pub fn allows(&self, origin: &str) -> bool {
        self.origins.iter().any(|wanted| wanted.matches("*") || wanted.matches(origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_compared_as_a_whole() {
        let policy = |origins: Vec<TextMatch>| CorsPolicy {
            origins,
            methods: None,
            headers: None,
            exposed: None,
            max_age: None,
            credentials: false,
            answers_unmatched: false,
        };
        let exact = policy(vec![TextMatch::Exact("https://a.example".into())]);
        assert!(exact.allows("https://a.example"));
        assert!(!exact.allows("https://a.example.org") && !exact.allows("http://a.example"));
        let any = policy(vec![TextMatch::Exact("*".into())]);
        assert!(any.allows("https://a.example") && any.allows("null"));
        assert!(!policy(Vec::new()).allows("https://a.example"));
        let regex =
            TextMatch::Regex(regex::Regex::new("^(?:https://[^.]+[.]a[.]example)$").unwrap());
        assert!(policy(vec![regex.clone()]).allows("https://x.a.example"));
        assert!(!policy(vec![regex]).allows("https://x.y.a.example"));
    }
}
