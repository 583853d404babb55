//! Compiles `proto/` without protoc and writes the descriptor set that reflection serves.
//!
//! Envoy copies raw header bytes into fields that the protocol declares as `string`. A strict UTF-8
//! decoder would reject such a request, and Envoy would pass it without a limit. The Rust code is
//! therefore generated from a copy of the descriptors in which those fields are `bytes`; the wire
//! format is the same. Dynamic metadata is also `bytes`, because building its message costs more
//! than a decision.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorSet, field_descriptor_proto::Type};

const FILES: [&str; 3] = [
    "envoy/service/ratelimit/v3/rls.proto",
    "tollgate/v1/clients.proto",
    "tollgate/v1/policies.proto",
];

/// Fields of Envoy's messages that the code reads or writes as bytes: (message, fields).
const RAW: [(&str, &[&str]); 3] = [
    ("RateLimitRequest", &["domain"]),
    ("Entry", &["key", "value"]),
    ("RateLimitResponse", &["dynamic_metadata"]),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    let mut set = compiler.file_descriptor_set();
    let mut served = set.clone();
    served.file.iter_mut().for_each(|file| file.source_code_info = None);
    fs::write(out.join("descriptors.bin"), served.encode_to_vec())?;

    use_bytes(&mut set);
    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".")
        .btree_map(".tollgate")
        .disable_comments(["."])
        .include_file("pb.rs")
        .compile_fds(set)?;
    Ok(())
}

fn use_bytes(set: &mut FileDescriptorSet) {
    // Only Envoy's messages: admin requests must be valid UTF-8.
    let envoys = set.file.iter_mut().filter(|file| file.package().starts_with("envoy."));
    let messages = envoys.flat_map(|file| &mut file.message_type);
    let mut found = 0;
    for message in messages {
        found += patch(message);
    }
    assert_eq!(found, 4, "a raw field is missing from proto/");
}

fn patch(message: &mut DescriptorProto) -> usize {
    let raw = RAW.iter().find(|(name, _)| message.name() == *name).map_or(&[][..], |(_, f)| f);
    let mut found = 0;
    for field in message.field.iter_mut().filter(|field| raw.contains(&field.name())) {
        field.set_type(Type::Bytes);
        field.type_name = None;
        found += 1;
    }
    found + message.nested_type.iter_mut().map(patch).sum::<usize>()
}
