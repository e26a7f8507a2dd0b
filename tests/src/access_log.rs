//! Reading the access log in the default text format, Istio's.

/// One line, field by field.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// `%START_TIME%`.
    pub start_time: String,
    /// Method, path and protocol; `- - -` without HTTP.
    pub request: String,
    /// `%RESPONSE_CODE%`.
    pub code: u16,
    /// `%RESPONSE_FLAGS%`.
    pub flags: String,
    /// `%BYTES_RECEIVED%`.
    pub received: u64,
    /// `%BYTES_SENT%`.
    pub sent: u64,
    /// `%DURATION%`, milliseconds.
    pub duration: u64,
    /// `%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%`, milliseconds.
    pub service_time: Option<u64>,
    /// `%REQ(X-FORWARDED-FOR)%`.
    pub forwarded_for: String,
    /// `%REQ(USER-AGENT)%`.
    pub user_agent: String,
    /// `%REQ(X-REQUEST-ID)%`.
    pub request_id: String,
    /// `%REQ(:AUTHORITY)%`.
    pub authority: String,
    /// `%UPSTREAM_HOST%`.
    pub upstream_host: String,
    /// `%UPSTREAM_CLUSTER_RAW%`.
    pub upstream_cluster: String,
    /// `%DOWNSTREAM_REMOTE_ADDRESS%`.
    pub downstream_remote: String,
    /// `%REQUESTED_SERVER_NAME%`.
    pub server_name: String,
    /// The line itself.
    pub text: String,
}

/// Reads a line; `None` where it isn't exactly of the format.
#[must_use]
pub fn parse(line: &str) -> Option<Line> {
    let fields = fields(line)?;
    let [
        start,
        request,
        code,
        flags,
        _details,
        _termination,
        _failure,
        received,
        sent,
        duration,
        service,
        forwarded,
        agent,
        id,
        authority,
        upstream,
        cluster,
        _upstream_local,
        _downstream_local,
        remote,
        server_name,
        _route,
    ] = fields.as_slice()
    else {
        return None;
    };
    let service_time = match service.as_str() {
        "-" => None,
        time => Some(time.parse().ok()?),
    };
    Some(Line {
        start_time: start.strip_prefix('[')?.strip_suffix(']')?.to_owned(),
        request: quoted(request)?,
        code: code.parse().ok()?,
        flags: flags.clone(),
        received: received.parse().ok()?,
        sent: sent.parse().ok()?,
        duration: duration.parse().ok()?,
        service_time,
        forwarded_for: quoted(forwarded)?,
        user_agent: quoted(agent)?,
        request_id: quoted(id)?,
        authority: quoted(authority)?,
        upstream_host: quoted(upstream)?,
        upstream_cluster: cluster.clone(),
        downstream_remote: remote.clone(),
        server_name: server_name.clone(),
        text: line.to_owned(),
    })
}

/// All lines of a log that are of the format.
#[must_use]
pub fn lines(log: &str) -> Vec<Line> {
    log.lines().filter_map(parse).collect()
}

fn quoted(field: &str) -> Option<String> {
    Some(field.strip_prefix('"')?.strip_suffix('"')?.to_owned())
}

/// Splits at single spaces outside brackets and quotes.
fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut end = None;
    for c in line.chars() {
        match (c, end) {
            (' ', None) => fields.push(String::new()),
            (c, Some(closing)) if c == closing => {
                end = None;
                fields.last_mut()?.push(c);
            }
            (c, inside) => {
                let field = fields.last_mut()?;
                if inside.is_none() && field.is_empty() {
                    end = match c {
                        '[' => Some(']'),
                        '"' => Some('"'),
                        _ => None,
                    };
                }
                field.push(c);
            }
        }
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_walkthrough_is_read() {
        let line = "[2019-09-03T20:57:49.103Z] \"GET /politics HTTP/2\" 301 - via_upstream - \
                    \"-\" 0 0 90 89 \
                    \"10.244.2.10\" \"curl/7.64.0\" \"ea379962-9b5c-4431-ab66-f01994f5a5a5\" \
                    \"edition.cnn.com\" \"151.101.65.67:80\" outbound|80||edition.cnn.com \
                    192.0.2.10:55394 192.0.2.10:80 10.244.2.10:40404 - default";
        let line = parse(line).unwrap();
        assert_eq!((line.code, line.flags.as_str()), (301, "-"));
        assert_eq!(line.request, "GET /politics HTTP/2");
        assert_eq!(line.service_time, Some(89));
        assert_eq!(line.upstream_host, "151.101.65.67:80");
        assert_eq!(line.downstream_remote, "10.244.2.10:40404");
        assert_eq!(parse("2019 INFO ready"), None);
    }
}
