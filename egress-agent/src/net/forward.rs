//! What a wrapper of a connection leaves as it is.

/// The methods of `AsyncRead` and `AsyncWrite` that a wrapper passes on, unchanged, to the connection
/// in its field `io`. What the wrapper is for then stands alone in its implementation:
///
/// ```text
/// impl<I: AsyncWrite + Unpin> AsyncWrite for Counted<I> {
///     fn poll_write(…) { … }
///     forward_to_io!(poll_write_vectored, is_write_vectored, poll_flush, poll_shutdown);
/// }
/// ```
macro_rules! forward_to_io {
    (poll_read) => {
        fn poll_read(
            mut self: ::std::pin::Pin<&mut Self>,
            cx: &mut ::std::task::Context<'_>,
            buf: &mut ::tokio::io::ReadBuf<'_>,
        ) -> ::std::task::Poll<::std::io::Result<()>> {
            ::std::pin::Pin::new(&mut self.io).poll_read(cx, buf)
        }
    };
    (poll_write) => {
        fn poll_write(
            mut self: ::std::pin::Pin<&mut Self>,
            cx: &mut ::std::task::Context<'_>,
            buf: &[u8],
        ) -> ::std::task::Poll<::std::io::Result<usize>> {
            ::std::pin::Pin::new(&mut self.io).poll_write(cx, buf)
        }
    };
    (poll_write_vectored) => {
        fn poll_write_vectored(
            mut self: ::std::pin::Pin<&mut Self>,
            cx: &mut ::std::task::Context<'_>,
            bufs: &[::std::io::IoSlice<'_>],
        ) -> ::std::task::Poll<::std::io::Result<usize>> {
            ::std::pin::Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
        }
    };
    (is_write_vectored) => {
        fn is_write_vectored(&self) -> bool {
            self.io.is_write_vectored()
        }
    };
    (poll_flush) => {
        fn poll_flush(
            mut self: ::std::pin::Pin<&mut Self>,
            cx: &mut ::std::task::Context<'_>,
        ) -> ::std::task::Poll<::std::io::Result<()>> {
            ::std::pin::Pin::new(&mut self.io).poll_flush(cx)
        }
    };
    (poll_shutdown) => {
        fn poll_shutdown(
            mut self: ::std::pin::Pin<&mut Self>,
            cx: &mut ::std::task::Context<'_>,
        ) -> ::std::task::Poll<::std::io::Result<()>> {
            ::std::pin::Pin::new(&mut self.io).poll_shutdown(cx)
        }
    };
    ($first:ident, $($more:ident),+) => {
        forward_to_io!($first);
        $(forward_to_io!($more);)+
    };
}

pub(crate) use forward_to_io;
