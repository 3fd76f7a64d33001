//! A small HTTP client, for tests that look at answers byte by byte.

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use serde_json::Value;

/// Asks one server.
#[derive(Clone)]
pub struct Http {
    base: String,
    agent: ureq::Agent,
}

/// What it answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut named = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("not JSON ({e}): {}", self.text()))
    }
}

impl Http {
    pub fn new(base: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(Duration::from_secs(120)))
            .build();
        Self {
            base: base.to_owned(),
            agent: config.into(),
        }
    }

    pub fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.call().expect("an answer"))
    }

    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = self.agent.post(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.send(body).expect("an answer"))
    }

    /// Asks for a removal, whether or not there is anybody to hear it.
    pub fn delete(&self, path: &str) {
        let _ = self.agent.delete(format!("{}{path}", self.base)).call();
    }

    /// The events of a stream, each with its kind, id and data; ends when the server ends it.
    pub fn events(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> impl Iterator<Item = (String, String, Value)> + use<> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        request = request.header("accept", "text/event-stream");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.call().expect("an answer");
        assert_eq!(response.status().as_u16(), 200, "{response:?}");
        let mut lines = BufReader::new(response.into_body().into_reader()).lines();
        std::iter::from_fn(move || {
            let (mut kind, mut id, mut data) = (String::new(), String::new(), String::new());
            loop {
                let line = lines.next()?.ok()?;
                match line.split_once(": ") {
                    Some(("event", text)) => kind = text.to_owned(),
                    Some(("id", text)) => id = text.to_owned(),
                    Some(("data", text)) => data.push_str(text),
                    _ if line.is_empty() && !data.is_empty() => {
                        return Some((kind, id, serde_json::from_str(&data).expect("JSON")));
                    }
                    _ => {}
                }
            }
        })
    }
}

fn answer(response: ureq::http::Response<ureq::Body>) -> Answer {
    let status = response.status().as_u16();
    let headers = response.headers().iter();
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()));
    let headers = headers.collect();
    let mut body = Vec::new();
    let mut reader = response.into_body().into_reader();
    reader.read_to_end(&mut body).expect("a whole answer");
    Answer { status, headers, body }
}
