//! Compiles the interface definitions, without protoc.

use std::{env, error::Error, path::PathBuf};

const FILES: [&str; 3] = ["mvccpb/kv.proto", "etcdserverpb/rpc.proto", "quorate/coord/v1/command.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let server = env::var_os("CARGO_FEATURE_SERVER").is_some();
    if server {
        let out = PathBuf::from(env::var("OUT_DIR")?);
        std::fs::write(out.join("descriptors.bin"), prost::Message::encode_to_vec(&descriptors))?;
    }
    // Without the server only messages are generated, which need nothing but prost.
    tonic_prost_build::configure()
        .build_client(server)
        .build_server(server)
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
