//! What keeps a flow small: the history holds thousands, and workloads choose what is in them.

use crate::types::Labels;

/// How many bytes of a workload's labels a flow has, keys and values together.
const LABEL_BYTES: usize = 1024;

/// The labels of a workload that its flows have: in order, as long as they fit into 1 KiB. Kubernetes bounds
/// a label and not their number.
pub(crate) fn kept_labels(labels: &Labels) -> Labels {
    let mut left = LABEL_BYTES;
    let fits = labels.iter().take_while(|(key, value)| {
        let size = key.len() + value.len();
        let fits = size <= left;
        left = left.saturating_sub(size);
        fits
    });
    fits.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// At most so many bytes, in whole characters, with a sign that something is missing.
pub(crate) fn cut(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let mut end = bytes;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_labels_are_cut_and_few_are_not() {
        let few: Labels = [("app".into(), "web".into()), ("tier".into(), String::new())].into();
        assert_eq!(kept_labels(&few), few);
        let many: Labels =
            (0..9999).map(|number| (format!("key-{number:04}"), "x".repeat(56))).collect();
        let kept = kept_labels(&many);
        assert_eq!(kept.len(), LABEL_BYTES / 64);
        assert!(kept.iter().all(|(key, value)| many.get(key) == Some(value)));
        let long: Labels = [("app".into(), "x".repeat(LABEL_BYTES))].into();
        assert!(kept_labels(&long).is_empty());
    }

    #[test]
    fn a_cut_is_between_characters() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "abc…");
        assert_eq!(cut("aéb", 2), "a…");
    }
}
