//! The long-running roles and the commands: composition only.
