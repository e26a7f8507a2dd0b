//! Mirror of `corsPolicy` of a virtual service's rule.

use std::time::Duration;

use super::{
    decode::{List, Records, Spanned, choice, record},
    text::StringMatch,
};

record! {
    /// `corsPolicy`.
    struct CorsPolicy {
        /// Origins of pages that may make requests, one of these; `exact: "*"` is any.
        "allowOrigins" allow_origins: Records<StringMatch> = "none",
        /// Old form of `allowOrigins`: whole origins, or `*`.
        "allowOrigin" allow_origin: List<String> = "none",
        /// Methods that they may use, `*` for any.
        "allowMethods" allow_methods: List<String> = "none",
        /// Headers that their requests may have, `*` for any.
        "allowHeaders" allow_headers: List<String> = "none",
        /// Headers of responses that they may read, `*` for any.
        "exposeHeaders" expose_headers: List<String> = "none",
        /// How long a browser may keep the answer, in whole seconds.
        "maxAge" max_age: Option<Spanned<Duration>> = "as the browser does",
        /// Whether requests may carry credentials.
        "allowCredentials" allow_credentials: Option<Spanned<bool>> = "`false`",
        /// What becomes of a preflight of another origin: `FORWARD` sends it to the destination, `IGNORE` answers it without a permission.
        "unmatchedPreflights" unmatched_preflights: Option<Spanned<UnmatchedPreflights>> = "`FORWARD`",
    }
}

choice! {
    /// What becomes of a preflight of another origin.
    enum UnmatchedPreflights {
        /// The default.
        Unspecified = "UNSPECIFIED",
        /// It goes to the destination.
        Forward = "FORWARD",
        /// It is answered here.
        Ignore = "IGNORE",
    }
}
