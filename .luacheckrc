-- For the scripts that Redis runs; deploy/luacheck.sh calls it.

-- Redis embeds Lua 5.1.
std = "lua51"

-- What Redis adds for scripts. They may read these globals and set none.
read_globals = { "KEYS", "ARGV", "redis", "struct", "cjson" }

-- As wide as the lines of the scripts are.
max_line_length = 120
