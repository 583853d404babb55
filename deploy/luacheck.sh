#!/usr/bin/env bash
# Lints the scripts that Redis runs: the decision and the amendments, their parts joined behind each head as script.rs joins
# them, and the write of the registry. Line numbers are those of the joined chunk, target/lua/.
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."

parts=src/store/redis/script/lua
mkdir -p target/lua
for head in server_time manual_time; do
    cat "$parts/$head.lua" "$parts"/{[0-5]*,60_*,7*}.lua >"target/lua/decide_$head.lua"
    cat "$parts/$head.lua" "$parts"/{10_*,12_*,[2-4]*,5[0-2]_*,6[12]_*,7*}.lua >"target/lua/amend_$head.lua"
done
luacheck --no-color --codes --config .luacheckrc target/lua/*.lua src/control/registry/redis/write.lua
