#!/usr/bin/env bash
# Checks the dependencies against deny.toml. Bans, licences and sources need no network once
# cargo-deny is installed. Advisories need their database from github.com. If it cannot be fetched,
# the copy of an earlier run decides, and its date is printed. Without a copy they are skipped with a
# message. With REQUIRE_ADVISORIES set, only a fetched database will do.
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.tools/bin:$PATH"

DENY_VERSION=0.20.2
# Where cargo-deny keeps the database.
COPY=$(compgen -G "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs/advisory-db-*" || true)

if [ "$(cargo-deny --version 2>/dev/null)" != "cargo-deny $DENY_VERSION" ]; then
    cargo install --locked --root .tools --version "$DENY_VERSION" cargo-deny
fi

cargo deny --locked check --hide-inclusion-graph bans licenses sources
if cargo deny --locked fetch db; then
    cargo deny --locked check advisories
elif [ -n "${REQUIRE_ADVISORIES:-}" ]; then
    echo "audit: the advisory database cannot be fetched" >&2
    exit 1
elif [ -d "$COPY/.git" ]; then
    date=$(git -C "$COPY" log -1 --format=%cs)
    echo "audit: the advisory database cannot be fetched: checking against the copy of $date" >&2
    cargo deny --offline --locked check advisories
else
    echo "SKIPPED: advisories and yanked releases: the advisory database cannot be fetched" >&2
fi
