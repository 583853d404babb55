//! Compiles `proto/` without protoc and writes the descriptor set that reflection serves.
//!
//! Envoy copies raw header bytes into fields that the protocol declares as `string`. A strict UTF-8
//! decoder would reject such a request, and Envoy would pass it without a limit. The Rust code is
//! therefore generated from a copy of the descriptors in which those fields are `bytes`; the wire
//! format is the same. Dynamic metadata is also `bytes`, because building its message costs more
//! than a decision.
//!
//! The messages of the control plane are a set of their own, which reflection does not serve. Their
//! tree of descriptors is `bytes` level by level: the decoder would recurse and stop at 100 levels.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorSet, field_descriptor_proto::Type};

const FILES: [&str; 5] = [
    "envoy/service/ratelimit/v3/rls.proto",
    "tollgate/v1/clients.proto",
    "tollgate/v1/hold.proto",
    "tollgate/v1/plans.proto",
    "tollgate/v1/policies.proto",
];

/// The protocol of the control plane, of which tollgate is a client.
const XDS_FILES: [&str; 2] =
    ["envoy/service/discovery/v3/ads.proto", "ratelimit/config/ratelimit/v3/rls_conf.proto"];

/// Fields that the code reads or writes as bytes: (message, fields).
type RawFields = [(&'static str, &'static [&'static str])];

/// Those of Envoy's messages.
const RAW: &RawFields = &[
    ("RateLimitRequest", &["domain"]),
    ("Entry", &["key", "value"]),
    ("RateLimitResponse", &["dynamic_metadata"]),
];

/// Those of the control plane's messages.
const XDS_RAW: &RawFields =
    &[("RateLimitConfig", &["descriptors"]), ("RateLimitDescriptor", &["descriptors", "metadata"])];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut set = read(&FILES)?;
    let mut served = set.clone();
    served.file.iter_mut().for_each(|file| file.source_code_info = None);
    fs::write(out.join("descriptors.bin"), served.encode_to_vec())?;
    // Only Envoy's messages: admin requests must be valid UTF-8.
    use_bytes(&mut set, "envoy.", RAW);
    generate(set, &out)?;

    let mut xds = read(&XDS_FILES)?;
    use_bytes(&mut xds, "ratelimit.", XDS_RAW);
    let out = out.join("xds");
    fs::create_dir_all(&out)?;
    generate(xds, &out)
}

fn read(files: &[&str]) -> Result<FileDescriptorSet, Box<dyn Error>> {
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(files)?;
    Ok(compiler.file_descriptor_set())
}

fn generate(set: FileDescriptorSet, out: &Path) -> Result<(), Box<dyn Error>> {
    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".")
        .btree_map(".tollgate")
        .disable_comments(["."])
        .out_dir(out)
        .include_file("pb.rs")
        .compile_fds(set)?;
    Ok(())
}

fn use_bytes(set: &mut FileDescriptorSet, package: &str, raw: &RawFields) {
    let files = set.file.iter_mut().filter(|file| file.package().starts_with(package));
    let found: usize =
        files.flat_map(|file| &mut file.message_type).map(|message| patch(message, raw)).sum();
    let expected: usize = raw.iter().map(|(_, fields)| fields.len()).sum();
    assert_eq!(found, expected, "a raw field is missing from proto/");
}

fn patch(message: &mut DescriptorProto, raw: &RawFields) -> usize {
    let fields = raw.iter().find(|(name, _)| message.name() == *name).map_or(&[][..], |(_, f)| f);
    let mut found = 0;
    for field in message.field.iter_mut().filter(|field| fields.contains(&field.name())) {
        field.set_type(Type::Bytes);
        field.type_name = None;
        found += 1;
    }
    found + message.nested_type.iter_mut().map(|nested| patch(nested, raw)).sum::<usize>()
}
