//! Compiles the protocol with a protobuf compiler written in Rust, so that no protoc is needed on the machine.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=klpfarm");
    let files =
        ["access", "client", "livepatch", "provenance", "worker"].map(|name| format!("klpfarm/v1/{name}.proto"));
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_source_info(true).open_files(files)?;
    let descriptors = compiler.file_descriptor_set();

    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("klpfarm.bin"), prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
