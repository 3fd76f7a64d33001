//! Envelopes and the statements in them, which come with a livepatch from anywhere: read without a panic, and what was read is
//! written so that it reads the same. Statements also without their envelopes, so that the fuzzer need not know base64.
#![no_main]

use klp_livepatch::provenance::{Envelope, Signed, read};

libfuzzer_sys::fuzz_target!(|text: &str| {
    for envelope in Envelope::parse_all(text).unwrap_or_default() {
        assert_eq!(Envelope::parse(&envelope.to_line()).as_ref(), Ok(&envelope));
        statement(&envelope.payload);
    }
    statement(text.as_bytes());
});

fn statement(payload: &[u8]) {
    let Ok(statement) = read(payload) else { return };
    let written = match &statement {
        Signed::Extraction(statement) => statement.to_payload(),
        Signed::Codestream(statement) => statement.to_payload(),
    };
    let written = written.expect("what was read can be written");
    assert_eq!(read(&written), Ok(statement));
}
