#!/usr/bin/env python3
"""The image of a release without a container engine: an OCI layout in a tar archive.

  image.py pack --binary FILE --arch ARCH --version VERSION --output ARCHIVE
  image.py smoke ARCHIVE

`pack` puts a static tollgate and the CA certificates into one layer. `podman load`, `skopeo copy
oci-archive:ARCHIVE` and `docker load` read the archive. The Dockerfile makes the same image, and
tests/deploy compares both. The same input gives the same bytes; SOURCE_DATE_EPOCH sets the times.

`smoke` unpacks the archive and starts its programs with bwrap as an engine would: as the user of
the image, with a read-only root, without capabilities, in a network of its own.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time

USER = 65534
# Relative paths such as the default of data_dir begin here.
WORKING_DIRECTORY = "/"
ENTRYPOINT = ["/bin/tollgate"]
# Users of envoyproxy/ratelimit start this path.
OTHER_NAME = "/bin/ratelimit"
PORTS = ["6070/tcp", "8080/tcp", "8081/tcp"]
CA_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
# The certificates of Mozilla as Debian's ca-certificates has them. Not the bundle of this machine,
# because it may hold certificates of a company.
CA_SOURCE = pathlib.Path("/usr/share/ca-certificates/mozilla")
LABELS = {
    "org.opencontainers.image.title": "tollgate",
    "org.opencontainers.image.description": "A gRPC rate-limit decision service for Envoy and microservices",
    "org.opencontainers.image.licenses": "Apache-2.0",
}
READY_SECONDS = 20
DECISION = {
    "domain": "example",
    "descriptors": [{"entries": [{"key": "remote_address", "value": "10.0.0.7"}]}],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    pack_parser = commands.add_parser("pack")
    pack_parser.add_argument("--binary", type=pathlib.Path, required=True)
    pack_parser.add_argument("--arch", choices=["amd64", "arm64"], required=True)
    pack_parser.add_argument("--version", required=True)
    pack_parser.add_argument("--output", type=pathlib.Path, required=True)
    pack_parser.add_argument("--library", type=pathlib.Path, action="append", default=[],
                             help="a file that a dynamic binary needs, for tests; may be repeated")
    pack_parser.set_defaults(run=pack)
    smoke_parser = commands.add_parser("smoke")
    smoke_parser.add_argument("archive", type=pathlib.Path)
    smoke_parser.set_defaults(run=smoke)
    arguments = parser.parse_args()
    arguments.run(arguments)


def fail(reason):
    sys.exit(f"image: {reason}")


# === pack ===


def pack(arguments):
    layer = layer_of(arguments.binary, arguments.library)
    blobs = {}

    def blob(media_type, content):
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    packed = gzip.compress(layer, compresslevel=6, mtime=0)
    layer_descriptor = blob("application/vnd.oci.image.layer.v1.tar+gzip", packed)
    config = config_of(arguments.arch, arguments.version, hashlib.sha256(layer).hexdigest())
    config_descriptor = blob("application/vnd.oci.image.config.v1+json", to_json(config))
    manifest_type = "application/vnd.oci.image.manifest.v1+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": config_descriptor,
        "layers": [layer_descriptor],
    }
    name = f"tollgate:{arguments.version}"
    described = blob(manifest_type, to_json(manifest)) | {
        "platform": {"architecture": arguments.arch, "os": "linux"},
        "annotations": {"org.opencontainers.image.ref.name": arguments.version, "io.containerd.image.name": name},
    }
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [described]}
    # Engines without an OCI reader go by manifest.json.
    docker = [{
        "Config": blob_path(config_descriptor),
        "RepoTags": [name],
        "Layers": [blob_path(layer_descriptor)],
    }]
    write_layout(arguments.output, blobs, index, docker)
    print(f"image: {arguments.output} sha256:{described['digest'][7:19]} {arguments.output.stat().st_size} bytes")


def layer_of(binary, libraries):
    files = {"bin/tollgate": (binary.read_bytes(), 0o755), CA_CERTIFICATES[1:]: (ca_certificates(), 0o644)}
    for library in libraries:
        files[str(library)[1:]] = (library.read_bytes(), 0o755)
    links = {OTHER_NAME[1:]: "tollgate"}
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        parents = {str(parent) for path in files for parent in pathlib.PurePath(path).parents} - {"."}
        for path in sorted(parents):
            add(tar, path, kind=tarfile.DIRTYPE, mode=0o755)
        # The one place that the user of the image may write to, on a root that is not read-only.
        add(tar, "data", kind=tarfile.DIRTYPE, mode=0o700, owner=USER)
        for path, (text, mode) in sorted(files.items()):
            add(tar, path, content=text, mode=mode)
        for path, target in links.items():
            add(tar, path, kind=tarfile.SYMTYPE, mode=0o777, target=target)
    return content.getvalue()


def add(tar, path, *, mode, kind=tarfile.REGTYPE, owner=0, content=b"", target=""):
    info = tarfile.TarInfo(path)
    info.type, info.mode, info.uid, info.gid = kind, mode, owner, owner
    info.size, info.linkname, info.mtime = len(content), target, epoch()
    tar.addfile(info, io.BytesIO(content))


def ca_certificates():
    certificates = sorted(CA_SOURCE.glob("*.crt"))
    if not certificates:
        fail(f"no certificates in {CA_SOURCE}: install the package ca-certificates")
    return b"".join(certificate.read_bytes() for certificate in certificates)


def config_of(arch, version, layer_digest):
    return {
        "created": created(),
        "architecture": arch,
        "os": "linux",
        "config": {
            "User": f"{USER}:{USER}",
            "ExposedPorts": {port: {} for port in PORTS},
            "Entrypoint": ENTRYPOINT,
            "WorkingDir": WORKING_DIRECTORY,
            "Labels": LABELS | {"org.opencontainers.image.version": version},
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
        "history": [{"created": created(), "created_by": "deploy/image.py"}],
    }


def epoch():
    return int(os.environ.get("SOURCE_DATE_EPOCH", "0"))


def created():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch()))


def to_json(value):
    return json.dumps(value, indent=2, sort_keys=True).encode()


def blob_path(descriptor):
    return "blobs/" + descriptor["digest"].replace(":", "/")


def write_layout(output, blobs, index, docker):
    with tarfile.open(output, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        add(tar, "oci-layout", content=to_json({"imageLayoutVersion": "1.0.0"}), mode=0o644)
        add(tar, "index.json", content=to_json(index), mode=0o644)
        add(tar, "manifest.json", content=to_json(docker), mode=0o644)
        for path in ["blobs", "blobs/sha256"]:
            add(tar, path, kind=tarfile.DIRTYPE, mode=0o755)
        for digest, content in sorted(blobs.items()):
            add(tar, f"blobs/sha256/{digest}", content=content, mode=0o644)


# === smoke ===


def smoke(arguments):
    for tool, package in [("bwrap", "bubblewrap"), ("nsenter", "util-linux"), ("curl", "curl")]:
        if shutil.which(tool) is None:
            fail(f"no {tool}: install the package {package}")
    with tempfile.TemporaryDirectory() as directory:
        # The user of the image has to reach its root.
        os.chmod(directory, 0o755)
        root = pathlib.Path(directory) / "root"
        root.mkdir(mode=0o755)
        config = unpack(arguments.archive, root)["config"]
        for program in [config["Entrypoint"], [OTHER_NAME]]:
            serve_once(root, config, program)


def unpack(archive, root):
    """Unpacks the layers of the one image, whose digests it checks. Returns the config."""
    with tarfile.open(archive) as tar:

        def read(descriptor):
            content = tar.extractfile(blob_path(descriptor)).read()
            if f"sha256:{hashlib.sha256(content).hexdigest()}" != descriptor["digest"]:
                fail(f"{archive}: {descriptor['digest']} does not match its content")
            return content

        [image] = json.load(tar.extractfile("index.json"))["manifests"]
        manifest = json.loads(read(image))
        config = json.loads(read(manifest["config"]))
        for descriptor, digest in zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True):
            layer = gzip.decompress(read(descriptor))
            if f"sha256:{hashlib.sha256(layer).hexdigest()}" != digest:
                fail(f"{archive}: {digest} does not match the unpacked layer")
            with tarfile.open(fileobj=io.BytesIO(layer)) as files:
                files.extractall(root, filter="tar")
    return config


def serve_once(root, config, program):
    """Starts a program of the image, asks for its health and a decision, and stops it."""
    name = program[0]
    process, inner, log = start(root, config, program)
    try:
        health = ask(process, inner, log, "/healthcheck")
        answer = ask(process, inner, log, "/json", "--data", json.dumps(DECISION))
        if json.loads(answer).get("overallCode") != "OK":
            fail(f"{name} decided {answer}")
        if "CapEff:\t0000000000000000\n" not in pathlib.Path(f"/proc/{inner}/status").read_text():
            fail(f"{name} has capabilities")
        run(["kill", "-TERM", inner])
        code = process.wait(timeout=READY_SECONDS)
        if code != 0:
            fail(f"{name} ended with {code}\n{tail(log)}")
    finally:
        process.kill()
    problems = [line for line in log.read_text().splitlines() if '"level":"ERROR"' in line]
    if problems:
        fail(f"{name} reports\n" + "\n".join(problems))
    print(f"image: {name} as {config['User']}: /healthcheck {health.strip()}, /json {answer.strip()}, exit code 0")


def start(root, config, program):
    """Starts the sandbox. Returns it, the process id of the program, and the file of its log."""
    user, group = map(int, config["User"].split(":"))
    # Without this, the user of the image would be root outside of the sandbox.
    identity = {"user": user, "group": group, "extra_groups": []} if os.geteuid() == 0 else {}
    # The log is beside the root, where the sandbox cannot see it.
    log = root.parent / "log"
    reader, writer = os.pipe()
    command = [
        "bwrap", "--unshare-all", "--die-with-parent", "--as-pid-1", "--clearenv", "--info-fd", str(writer),
        "--uid", str(user), "--gid", str(group), "--cap-drop", "ALL",
        "--ro-bind", str(root), "/", "--proc", "/proc", "--dev", "/dev", "--chdir", config["WorkingDir"],
        "--", *program,
    ]
    # bwrap makes these mount points if they are missing, which a read-only root refuses.
    for mount_point in ["proc", "dev"]:
        (root / mount_point).mkdir(exist_ok=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=[writer], **identity)
    os.close(writer)
    with os.fdopen(reader) as told:
        text = told.read()
    if not text:
        process.wait()
        fail(f"bwrap did not start {program[0]}\n{tail(log)}")
    return process, str(json.loads(text)["child-pid"]), log


def ask(process, inner, log, path, *options):
    """The answer to an HTTP request, from inside of the sandbox's network, once there is one."""
    curl = ["curl", "--silent", "--show-error", "--fail", "--max-time", "5"]
    enter = ["nsenter", "--target", inner, "--user", "--net", "--preserve-credentials"]
    deadline = time.monotonic() + READY_SECONDS
    while True:
        asked = run([*enter, *curl, *options, f"http://127.0.0.1:8080{path}"])
        if asked.returncode == 0:
            return asked.stdout
        if process.poll() is not None or time.monotonic() > deadline:
            fail(f"no answer to {path}: {asked.stderr}\n{tail(log)}")
        time.sleep(0.1)


def run(command):
    return subprocess.run(command, capture_output=True, text=True, check=False)


def tail(log):
    return "\n".join(log.read_text().splitlines()[-15:])


if __name__ == "__main__":
    main()
