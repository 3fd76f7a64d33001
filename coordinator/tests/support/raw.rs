//! Messages as the bytes a test wants them to be, right or wrong.
#![allow(dead_code, reason = "not every test file uses all of it")]

use klp_proto::v1;
use prost::Message;
use prost::bytes::{Buf, BufMut};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = v1::FarmState;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = v1::FarmState;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<v1::FarmState>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        let state = v1::FarmState::decode(bytes).map_err(|e| Status::internal(e.to_string()))?;
        Ok(Some(state))
    }
}

/// A worker's session whose messages are these bytes, and which stays open.
pub async fn session(
    channel: &Channel,
    messages: &[Vec<u8>],
) -> Result<(mpsc::Sender<Vec<u8>>, Streaming<v1::FarmState>), Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
    let (sender, receiver) = mpsc::channel(messages.len().max(1));
    for message in messages {
        sender
            .try_send(message.clone())
            .map_err(|e| Status::internal(e.to_string()))?;
    }
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/klpfarm.v1.WorkerService/Session");
    let answers = client
        .streaming(Request::new(ReceiverStream::new(receiver)), path, Raw)
        .await?;
    Ok((sender, answers.into_inner()))
}
