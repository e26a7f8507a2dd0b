//! The query of a request's target.

/// The value of `name` in a query, percent-decoded; empty where it stands without one. A `+` is
/// itself, as in a regular expression.
pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then(|| decode(value))
    })
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = |b: &u8| char::from(*b).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match (first, after) {
            (b'%', [high, low, after @ ..]) if hex(high).is_some() && hex(low).is_some() => {
                bytes.push(hex(high).unwrap_or(0) << 4 | hex(low).unwrap_or(0));
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_and_decoded() {
        let query = "usedonly&filter=outbound%7C443.%2a+x&format=json&bad=%zz%4";
        assert_eq!(parameter(query, "usedonly").as_deref(), Some(""));
        assert_eq!(parameter(query, "filter").as_deref(), Some("outbound|443.*+x"));
        assert_eq!(parameter(query, "format").as_deref(), Some("json"));
        assert_eq!(parameter(query, "bad").as_deref(), Some("%zz%4"));
        assert_eq!(parameter(query, "form"), None);
        assert_eq!(parameter("", "format"), None);
    }
}
