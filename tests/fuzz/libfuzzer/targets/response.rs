#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| egress_fuzz::response(bytes));
