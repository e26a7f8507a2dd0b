//! Why a format is none.

use thiserror::Error;

/// Why a format isn't one. The text says what was found and what would do.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum LogFormatError {
    /// A `%` that begins no operator.
    #[error("found {found:?}, expected %OPERATOR%, or %% for a percent sign")]
    Syntax {
        /// What follows the percent sign.
        found: String,
    },
    /// An operator that isn't there.
    #[error(
        "found the unknown operator %{found}%, expected %{nearest}% or another of docs/telemetry.md"
    )]
    UnknownOperator {
        /// Its name.
        found: String,
        /// The one that looks most like it.
        nearest: &'static str,
    },
    /// A header that isn't kept.
    #[error(
        "found %{operator}({found})%, expected one of {expected}: no other header is kept for the log"
    )]
    UnknownHeader {
        /// `REQ` or `RESP`.
        operator: &'static str,
        /// The header.
        found: String,
        /// Those that are kept.
        expected: String,
    },
    /// No header has this name.
    #[error("found %{operator}({found})%, expected the name of a header")]
    NoHeader {
        /// `REQ` or `RESP`.
        operator: &'static str,
        /// What stands there.
        found: String,
    },
    /// A header that is about one connection, or that the gateway accepts from no client.
    #[error(
        "found %{operator}({found})%, expected another header: the gateway takes {found} out of messages"
    )]
    TakenOut {
        /// `REQ` or `RESP`.
        operator: &'static str,
        /// The header.
        found: String,
    },
    /// A response's header, in one of the request.
    #[error(
        "found %RESP({found})% in a header of the request, expected it in one of the response: there is no response yet"
    )]
    NoResponse {
        /// The header.
        found: String,
    },
    /// An operator that takes none has arguments.
    #[error("found %{operator}({found})%, expected %{operator}% without arguments")]
    Argument {
        /// The operator.
        operator: String,
        /// What stands in its parentheses.
        found: String,
    },
    /// `:N` isn't a length.
    #[error("found the length {found:?} after %{operator}, expected a number of bytes from 1")]
    Length {
        /// The operator.
        operator: String,
        /// What stands after the colon.
        found: String,
    },
    /// The argument of `START_TIME` isn't a format.
    #[error("found the time format {found:?}, expected one as of strftime: {problem}")]
    Time {
        /// The format.
        found: String,
        /// What is wrong with it.
        problem: String,
    },
    /// With `accessLogEncoding: JSON` the format isn't an object of strings.
    #[error(
        "with accessLogEncoding JSON expected `istio`, `envoy`, nothing, or a JSON object whose values are format strings: {problem}"
    )]
    Json {
        /// What is wrong.
        problem: String,
    },
}
