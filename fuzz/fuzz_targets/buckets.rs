#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| selfsame_fuzz::buckets::check(input));
