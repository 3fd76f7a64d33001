//! A connection to the dashboard, with any bytes: what is answered is HTTP, and never that the coordinator failed.
#![no_main]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use klp_fuzz::served;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut socket = TcpStream::connect(served().http).expect("the coordinator listens");
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a timeout can be set");
    // It may have hung up by then.
    let _ = socket.write_all(bytes);
    let _ = socket.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    if answer.starts_with(b"HTTP/1") {
        assert!(
            !answer[8..].starts_with(b" 500"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
});
