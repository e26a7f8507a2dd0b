//! The form of names.

/// RFC 1123 label.
pub(in crate::config) fn is_label(text: &str) -> bool {
    let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(fine)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// RFC 1123 subdomain.
pub(in crate::config) fn is_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}
