//! The wire contract of klp-farm: messages and services generated from `klpfarm/v1/*.proto`, and their conversions to
//! and from the domain's types, which are the only place where a wire value becomes a trusted one. Which programs can talk to
//! each other is decided in [`protocol`].

pub mod convert;
pub mod protocol;
pub mod view;

pub mod v1 {
    //! Generated code; the documentation is in the .proto files.
    #![allow(clippy::all, clippy::unwrap_used)]
    tonic::include_proto!("klpfarm.v1");

    /// The descriptors of all services, for reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/klpfarm.bin"));
}

/// The largest message that is accepted, in bytes, except for answers to clients.
pub const MAX_MESSAGE: usize = 4 << 20;

/// The largest answer a client accepts from the coordinator, in bytes: a livepatch with hundreds of reports is one message.
pub const MAX_ANSWER: usize = 64 << 20;

/// The most that one `AppendLogRequest`, `UploadArtifactRequest` or `ArtifactChunk` carries, in bytes.
pub const MAX_CHUNK: usize = 256 << 10;

/// The largest artifact, in bytes.
pub const MAX_ARTIFACT: u64 = 64 << 20;

/// The most that is kept of one attempt's log, in bytes.
pub const MAX_LOG: u64 = 4 << 20;
