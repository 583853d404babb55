#!/usr/bin/env bash
# Checks the dependencies against deny.toml. Bans, licences and sources need no network once
# cargo-deny is installed. Advisories need their database from github.com. If it cannot be fetched,
# they are skipped with a message, or, with REQUIRE_ADVISORIES set, the run fails.
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.tools/bin:$PATH"

DENY_VERSION=0.20.2

if [ "$(cargo-deny --version 2>/dev/null)" != "cargo-deny $DENY_VERSION" ]; then
    cargo install --locked --root .tools --version "$DENY_VERSION" cargo-deny
fi

cargo deny --locked check --hide-inclusion-graph bans licenses sources
if cargo deny --locked fetch db; then
    cargo deny --locked check --disable-fetch advisories
elif [ -n "${REQUIRE_ADVISORIES:-}" ]; then
    echo "audit: the advisory database cannot be fetched" >&2
    exit 1
else
    echo "SKIPPED: advisories and yanked releases: the advisory database cannot be fetched" >&2
fi
