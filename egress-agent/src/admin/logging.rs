//! `/logging`: which messages are written.

use http::StatusCode;

use crate::telemetry::LogFilter;

/// Envoy's levels, with those of this program that mean the same.
const LEVELS: [(&str, &str); 8] = [
    ("trace", "trace"),
    ("debug", "debug"),
    ("info", "info"),
    ("warning", "warn"),
    ("warn", "warn"),
    ("error", "error"),
    ("critical", "error"),
    ("off", "off"),
];

/// The level, changed before if one is given.
pub(super) fn page(level: Option<&str>, filter: Option<&LogFilter>) -> (StatusCode, String) {
    let Some(filter) = filter else {
        return (StatusCode::SERVICE_UNAVAILABLE, "this process writes no messages\n".into());
    };
    if let Some(level) = level {
        let Some((_, own)) = LEVELS.iter().find(|(name, _)| *name == level) else {
            let names = LEVELS.map(|(name, _)| name).join(", ");
            let text = format!("found level={level}, expected one of {names}\n");
            return (StatusCode::BAD_REQUEST, text);
        };
        // Libraries say more than anybody wants below this.
        let directives = match *own {
            "trace" | "debug" => format!("info,egress_agent={own}"),
            own => own.to_owned(),
        };
        if let Err(error) = filter.change(&directives) {
            return (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"));
        }
    }
    (StatusCode::OK, format!("active loggers:\n  egress-agent: {}\n", filter.directives()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_told_and_changed() {
        let filter = LogFilter::new("info".into(), |_| Ok(()));
        let told = |level| page(level, Some(&filter));
        assert_eq!(told(None), (StatusCode::OK, "active loggers:\n  egress-agent: info\n".into()));
        assert_eq!(
            told(Some("debug")).1,
            "active loggers:\n  egress-agent: info,egress_agent=debug\n"
        );
        assert_eq!(told(Some("critical")).1, "active loggers:\n  egress-agent: error\n");
        let (code, text) = told(Some("loud"));
        assert_eq!(code, StatusCode::BAD_REQUEST);
        assert!(text.contains("expected one of trace, debug, info, warning"), "{text}");
        assert_eq!(told(None).1, "active loggers:\n  egress-agent: error\n");
        assert_eq!(page(None, None).0, StatusCode::SERVICE_UNAVAILABLE);
    }
}
