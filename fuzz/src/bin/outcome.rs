//! Outcomes with their reports, which workers commit and clients read: read without a panic, and what was read is written so
//! that it reads the same.
#![no_main]

use klp_proto::convert::{attempt, commit_request, outcome};
use klp_proto::v1::CommitRequest;
use prost::Message;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(request) = CommitRequest::decode(bytes) else {
        return;
    };
    let id = attempt(request.attempt.clone());
    let (worker, incarnation) = (request.worker.clone(), request.incarnation.clone());
    if let (Ok(id), Ok(read)) = (id, outcome(request)) {
        let again = commit_request(id, &worker, &incarnation, &read);
        assert_eq!(outcome(again).as_ref(), Ok(&read));
    }
});
