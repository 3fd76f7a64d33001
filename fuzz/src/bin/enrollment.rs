//! What somebody comes with who wants to be let in: a token, and a request for a certificate.
#![no_main]

use std::sync::OnceLock;
use std::time::Duration;

use klp_identity::authority::Span;
use klp_identity::{Authority, Certificate, Token};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(token) = text.parse::<Token>() {
        assert_eq!(token.reveal(), text.trim());
    }
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    let span = Span::from_now(0, Duration::from_secs(3_600)).expect("a span");
    let authority = AUTHORITY.get_or_init(|| Authority::new("farm", span).expect("an authority").0);
    let worker = "w".parse().expect("a name");
    if let Ok(issued) = authority.worker(text, &worker, span) {
        let certificate = Certificate::first_of(&issued.pem).expect("what was issued can be read");
        assert_eq!(certificate.worker.as_ref(), Some(&worker));
    }
});
