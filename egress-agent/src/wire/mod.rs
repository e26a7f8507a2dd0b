//! Sans-I/O parsers. They know `Incomplete`.
