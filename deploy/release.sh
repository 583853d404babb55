#!/usr/bin/env bash
# Makes a release in target/dist: static binaries, images, the SBOM, the section of CHANGELOG.md and
# the checksums of all of them. Each image of this machine's architecture passes a smoke test.
#
#   release.sh                      everything
#   release.sh image                only the image of this machine's architecture
#   release.sh static ARCH DIR BIN...  only the named static binaries, in DIR
#   release.sh notes                prints the section of CHANGELOG.md
#
# RELEASE_ARCHS="amd64 arm64" names the architectures.
#
# The binaries are linked with musl, so that they run on every Linux. A static glibc does not: its
# getaddrinfo loads the NSS modules of the host, and crashes if those belong to another glibc.
#
# A Rust without rustup has no standard library for musl. These variables build it from the source
# of the compiler (package rust-src): CARGO_UNSTABLE_BUILD_STD=std,panic_abort RUSTC_BOOTSTRAP=1
# RUSTFLAGS="-C link-self-contained=no".
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.tools/bin:$PATH"

DIST=target/dist
VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)

say() { printf 'release: %s\n' "$*"; }

die() {
    say "$*" >&2
    exit 1
}

# The architecture of this machine, as containers name it.
this_arch() {
    case "$(uname -m)" in
    x86_64) echo amd64 ;;
    aarch64 | arm64) echo arm64 ;;
    *) uname -m ;;
    esac
}

target_of() {
    case "$1" in
    amd64) echo x86_64-unknown-linux-musl ;;
    arm64) echo aarch64-unknown-linux-musl ;;
    *) die "$1 is none of the architectures amd64, arm64" ;;
    esac
}

binary_of() { echo "$DIST/tollgate-$VERSION-linux-$1"; }

image_of() { echo "$DIST/tollgate-$VERSION-image-$1.tar"; }

# Without the variables that build a standard library: they are for the static binaries alone, and
# programs for this machine do not build with them.
plain() { env -u CARGO_UNSTABLE_BUILD_STD -u RUSTC_BOOTSTRAP -u RUSTFLAGS "$@"; }

# need_tools TOOL...: as deploy/tools.sh names them. It reports a missing tool and goes on.
need_tools() {
    local tool
    plain deploy/tools.sh "$@"
    for tool in "$@"; do
        case "$tool" in
        zig) tool=cargo-zigbuild ;;
        cyclonedx) tool=cargo-cyclonedx ;;
        esac
        if ! command -v "$tool" >/dev/null; then die "cannot go on without $tool"; fi
    done
}

# need_std TARGET: the standard library of the target, from rustup if it is missing.
need_std() {
    if [ -n "${CARGO_UNSTABLE_BUILD_STD:-}" ]; then return; fi
    if compgen -G "$(rustc --print target-libdir --target "$1")/libstd-*.rlib" >/dev/null; then return; fi
    if command -v rustup >/dev/null && rustup target add "$1"; then return; fi
    die "Rust has no standard library for $1: run \`rustup target add $1\`, or leave its" \
        "architecture out with RELEASE_ARCHS"
}

# static ARCH DIR BIN...: builds without paths of this machine.
static() {
    local arch=$1 directory=$2 target bin
    shift 2
    target=$(target_of "$arch")
    need_std "$target"
    mkdir -p "$directory"
    for bin in "$@"; do
        say "building $bin $VERSION for $target"
        # zig ignores the -static-pie of rustc, and makes the same of -pie.
        RUSTFLAGS="${RUSTFLAGS:-} $(remap "$PWD" /tollgate) $(remap "${CARGO_HOME:-$HOME/.cargo}" /cargo)" \
            cargo-zigbuild rustc --profile release-lto --locked --target "$target" --bin "$bin" -- -C link-arg=-pie
        install -m 755 "target/$target/release-lto/$bin" "$directory/$bin"
        check_static "$directory/$bin"
    done
}

remap() { printf -- '--remap-path-prefix=%s=%s' "$1" "$2"; }

# check_static FILE: an executable without a loader, at an address that the kernel picks.
check_static() {
    local headers
    headers=$(readelf -hlW "$1") || die "cannot read $1"
    if [[ $headers == *INTERP* ]]; then die "$1 is not static: it names a dynamic loader"; fi
    if [[ $headers != *DYN* ]]; then die "$1 is not position-independent"; fi
}

# image ARCH: the binary and the image in target/dist.
image() {
    mkdir -p "$DIST"
    static "$1" "target/static/$1" tollgate
    cp "target/static/$1/tollgate" "$(binary_of "$1")"
    deploy/image.py pack --binary "$(binary_of "$1")" --arch "$1" --version "$VERSION" --output "$(image_of "$1")"
    if [ "$1" = "$(this_arch)" ]; then
        deploy/image.py smoke "$(image_of "$1")"
    else
        start_emulated "$1"
    fi
}

# start_emulated ARCH: proves that the binary starts, no more.
start_emulated() {
    local emulator
    emulator=qemu-$(target_of "$1")
    emulator=${emulator%%-unknown*}
    if command -v "$emulator" >/dev/null; then
        say "$emulator: $("$emulator" "$(binary_of "$1")" --version)"
    else
        say "SKIPPED: $(binary_of "$1") was not started: no $emulator (package qemu-user)" >&2
    fi
}

# The dependencies of the binaries with licences and checksums. cargo-cyclonedx writes beside
# Cargo.toml, and puts the path of the repository into its references.
sbom() {
    plain cargo cyclonedx --quiet --format json --spec-version 1.5 --no-build-deps --target "$(target_of amd64)" \
        --override-filename sbom
    sed "s|path+file://$PWD|path+file:///tollgate|g" sbom.json >"$DIST/tollgate-$VERSION.cdx.json"
    rm sbom.json
}

# The section of the version, without its heading.
notes() {
    local section
    section=$(awk -v heading="## [$VERSION]" '
        /^## / { inside = index($0, heading) == 1; next }
        inside' CHANGELOG.md)
    if [ -z "${section//[[:space:]]/}" ]; then die "CHANGELOG.md has no section \"## [$VERSION] - DATE\""; fi
    printf '%s\n' "$section"
}

checksums() {
    (cd "$DIST" && rm -f SHA256SUMS && sha256sum -- * >SHA256SUMS && sha256sum --check --quiet SHA256SUMS)
}

everything() {
    local arch text target
    # Before the builds, which take minutes.
    text=$(notes)
    for arch in $ARCHS; do
        target=$(target_of "$arch")
        need_std "$target"
    done
    need_tools zig cyclonedx bwrap
    rm -rf "$DIST"
    for arch in $ARCHS; do image "$arch"; done
    sbom
    printf '%s\n' "$text" >"$DIST/CHANGELOG-$VERSION.md"
    cp LICENSE "$DIST"
    checksums
    say "$DIST"
    ls -l "$DIST"
}

ARCHS=${RELEASE_ARCHS:-amd64 arm64}
# The same commit gives the same times, in the image and in the SBOM.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH
case "${1:-}" in
"") everything ;;
image)
    need_tools zig bwrap
    image "$(this_arch)"
    ;;
static)
    if [ "$#" -lt 4 ]; then die "static needs an architecture, a directory and the names of binaries"; fi
    need_tools zig
    static "${@:2}"
    ;;
notes) notes ;;
*) die "$1 is none of image, static, notes" ;;
esac
