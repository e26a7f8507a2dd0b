//! The headers of a tunnel's CONNECT.

use egress_agent::wire::hbone::{
    authority, baggage, forwarded, read_authority, read_baggage, read_forwarded,
};

/// What is read, and written again, is read as the same.
pub fn hbone(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(claim) = read_baggage(text) {
        let written = baggage(&claim);
        let written = written.to_str().unwrap_or_default();
        match read_baggage(written) {
            Ok(again) => assert_eq!(again, claim, "{written:?}"),
            // Encoded it may be longer than is taken.
            Err(error) => assert!(written.len() > text.len(), "{written:?}: {error}"),
        }
    }
    if let Ok(client) = read_forwarded(text) {
        let written = forwarded(client);
        let written = written.to_str().unwrap_or_default();
        assert_eq!(
            read_forwarded(written).map(|client| client.ip()),
            Ok(client.ip()),
            "{written:?}"
        );
    }
    if let Ok(dialled) = read_authority(text) {
        let written = authority(dialled);
        assert_eq!(read_authority(&written), Ok(dialled), "{written:?}");
    }
}
