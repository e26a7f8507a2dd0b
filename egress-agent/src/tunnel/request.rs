//! The CONNECT request of a stream.

use std::sync::Arc;

use http::{Method, Request, Uri, Version, uri::Authority};

use super::Origin;
use crate::{
    types::{AssertedWorkload, ClientAddr, Workload},
    wire::hbone,
};

/// `CONNECT <original destination>`, with the workload that is spoken for and its address.
///
/// # Errors
/// The destination can't be written as an authority.
pub(super) fn request(
    origin: &Origin,
    peer: ClientAddr,
    workload: Option<&Arc<Workload>>,
) -> Result<Request<()>, http::Error> {
    let authority = Authority::try_from(hbone::authority(origin.original))?;
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = Uri::builder().authority(authority).build()?;
    let headers = request.headers_mut();
    if let Some(workload) = workload {
        headers.insert(hbone::BAGGAGE, hbone::baggage(&AssertedWorkload::of(workload)));
    }
    headers.insert(hbone::FORWARDED, hbone::forwarded(peer));
    Ok(request)
}
