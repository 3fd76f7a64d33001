//! Messages of workers and clients, of any bytes, to any method of a running coordinator: it answers, and goes on.
//!
//! First comes the method's name on a line, then the messages of one call, each after its length in two bytes. What of them is no
//! message at all tonic refuses by itself, as an internal error.
#![no_main]

use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::Duration;

use klp_fuzz::served;
use klp_proto::v1::FILE_DESCRIPTOR_SET;
use prost::Message;
use prost::bytes::{Buf, BufMut, Bytes};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// How long a call may go on: some streams end when their caller goes.
const PATIENCE: Duration = Duration::from_millis(50);
/// Answers of one call that are read.
const ANSWERS: usize = 4;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return;
    };
    let (name, rest) = (&bytes[..end], &bytes[end + 1..]);
    let Some(method) = methods().get(name) else { return };
    served().runtime.block_on(async {
        match tokio::time::timeout(PATIENCE, call(method.clone(), messages(rest))).await {
            Ok(Err(status)) if status.code() == Code::Internal => {
                let text = status.message();
                let by_tonic = text.contains("decode") || text == "Missing request message.";
                assert!(by_tonic, "{method}: {status}");
            }
            _ => {}
        }
    });
});

/// The paths of all methods by their names, of which there is one each.
fn methods() -> &'static HashMap<Vec<u8>, PathAndQuery> {
    static METHODS: OnceLock<HashMap<Vec<u8>, PathAndQuery>> = OnceLock::new();
    METHODS.get_or_init(|| {
        let files = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("descriptors");
        let mut paths = HashMap::new();
        for file in &files.file {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    let path = PathAndQuery::try_from(path).expect("a path");
                    paths.insert(method.name().as_bytes().to_vec(), path);
                }
            }
        }
        paths
    })
}

fn messages(mut bytes: &[u8]) -> Vec<Bytes> {
    let mut all = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (message, rest) = rest.split_at(rest.len().min(u16::from_le_bytes(*length).into()));
        all.push(Bytes::copy_from_slice(message));
        bytes = rest;
    }
    all
}

async fn call(method: PathAndQuery, messages: Vec<Bytes>) -> Result<(), Status> {
    static CHANNEL: OnceLock<Channel> = OnceLock::new();
    let channel = CHANNEL.get_or_init(|| {
        let address = format!("http://{}", served().grpc);
        Endpoint::try_from(address).expect("an address").connect_lazy()
    });
    let mut client = Grpc::new(channel.clone());
    client
        .ready()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let request = Request::new(tokio_stream::iter(messages));
    let mut answers = client.streaming(request, method, Raw).await?.into_inner();
    for _ in 0..ANSWERS {
        if answers.message().await?.is_none() {
            break;
        }
    }
    Ok(())
}

/// Bytes as they are.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, target: &mut EncodeBuf<'_>) -> Result<(), Status> {
        target.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = source.remaining();
        Ok(Some(source.copy_to_bytes(length)))
    }
}
