//! What a coordinator assigns to a worker, of any bytes: read without a panic.
#![no_main]

use klp_proto::v1::Assignment;
use prost::Message;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(assignment) = Assignment::decode(bytes) {
        klp_worker::runner::fuzzing::assignment(assignment);
    }
});
