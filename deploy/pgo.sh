#!/usr/bin/env bash
# Builds tollgate for the calls that it serves, profile-guided, in target/pgo/tollgate. It takes
# minutes, and the binary is for machines like this one.
#
#   pgo.sh               everything
#   pgo.sh train BINARY  only the calls that are the profile, served and made by BINARY
#
# The calls are answered from memory, and from Redis if there is a redis-server. Engine hyper and
# denied calls are among them, so that their code is not laid out as if it never ran.
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.tools/bin:$PATH"

OUT=target/pgo
# The time for which each kind of calls is made.
DURATION=${PGO_DURATION:-5s}

say() { printf 'pgo: %s\n' "$*"; }

die() {
    say "$*" >&2
    exit 1
}

STARTED=()
SCRATCH=$(mktemp -d)
finish() {
    for process in "${STARTED[@]}"; do kill "$process" 2>/dev/null || true; done
    wait
    rm -rf "$SCRATCH"
}
trap finish EXIT

# The tool that merges profiles, of the LLVM of rustc.
profdata() {
    local found
    found=$(rustc --print target-libdir)/../bin/llvm-profdata
    if [ ! -x "$found" ] && command -v rustup >/dev/null; then rustup component add llvm-tools >&2; fi
    if [ ! -x "$found" ]; then
        found=$(command -v llvm-profdata) || die "llvm-profdata is missing: rustup component add llvm-tools"
    fi
    echo "$found"
}

# build RUSTFLAGS: the path of the binary.
build() {
    local target
    target=$(rustc -vV | sed -n 's/^host: //p')
    # With --target the flags are not those of build scripts.
    RUSTFLAGS="${RUSTFLAGS:-} $1" cargo build --profile release-lto --locked --bin tollgate \
        --target "$target" --target-dir "$OUT" >&2 || die "tollgate does not build with $1"
    echo "$OUT/$target/release-lto/tollgate"
}

# await WHAT COMMAND...: until the command succeeds.
await() {
    local what=$1 deadline=$((SECONDS + 30))
    shift
    until "$@"; do
        if ! kill -0 "${STARTED[-1]}" 2>/dev/null; then die "$what has ended"; fi
        if [ "$SECONDS" -ge "$deadline" ]; then die "$what was not ready within 30 s"; fi
        sleep 0.05
    done
}

# calls BINARY SETTING...: starts it with these settings, has it called, and ends it.
calls() {
    local binary=$1 server setting grpc arguments=(--policies "$SCRATCH/policies.yaml" --ready-file "$SCRATCH/ready")
    shift
    for setting in log.level=error "data_dir=$SCRATCH/data" {grpc,http,admin}.listen=127.0.0.1:0 "$@"; do
        arguments+=(--set "$setting")
    done
    rm -f "$SCRATCH/ready"
    "$binary" "${arguments[@]}" &
    server=$!
    STARTED+=("$server")
    await "$binary with $*" test -s "$SCRATCH/ready"
    grpc=$(sed -n 's/.*"grpc": *"\([^"]*\)".*/\1/p' "$SCRATCH/ready")
    for key in allowed denied; do
        "$binary" load "http://$grpc" --domain calls --key "$key" --keys 1000 --duration "$DURATION" >/dev/null
    done
    # It writes its profile at its end.
    kill "$server"
    wait "$server" || true
    unset 'STARTED[-1]'
}

# train BINARY: makes all the calls.
train() {
    cat >"$SCRATCH/policies.yaml" <<END
domain: calls
descriptors:
  - key: allowed
    rate_limit: {unit: second, requests_per_unit: 1000000}
  - key: denied
    rate_limit: {unit: hour, requests_per_unit: 1}
END
    say "calls answered from memory"
    for engine in lean hyper; do calls "$1" "grpc.engine=$engine"; done
    if ! command -v redis-server >/dev/null; then
        say "SKIPPED: calls answered from Redis: no redis-server"
        return
    fi
    say "calls answered from Redis"
    redis-server --port 0 --unixsocket "$SCRATCH/redis" --save '' --dir "$SCRATCH" >/dev/null &
    STARTED+=($!)
    await redis-server test -S "$SCRATCH/redis"
    calls "$1" "redis.url=redis+unix://$SCRATCH/redis" store.deadline=1s
}

everything() {
    local merge binary
    merge=$(profdata)
    say "building with counters"
    rm -rf "$OUT/counts"
    LLVM_PROFILE_FILE="$PWD/$OUT/counts/%p-%m.profraw"
    export LLVM_PROFILE_FILE
    binary=$(build "-Cprofile-generate=$PWD/$OUT/counts")
    train "$binary"
    "$merge" merge --output="$OUT/calls.profdata" "$OUT/counts"
    say "building for these calls"
    binary=$(build "-Cprofile-use=$PWD/$OUT/calls.profdata")
    install -m 755 "$binary" "$OUT/tollgate"
    say "$OUT/tollgate"
}

case "${1:-}" in
"") everything ;;
train)
    if [ "$#" -ne 2 ]; then die "train needs a binary"; fi
    train "$2"
    ;;
*) die "$1 is not train" ;;
esac
