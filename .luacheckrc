-- For the scripts that Redis runs; deploy/luacheck.sh calls it.

-- Redis embeds Lua 5.1.
std = "lua51"

-- What Redis adds for scripts. They may read these globals and set none.
read_globals = { "KEYS", "ARGV", "redis", "struct", "cjson" }

-- As wide as the lines of the scripts are.
max_line_length = 120

-- Constants of the layout that one of two scripts names. The layout test renders no others.
ignore = { "211/[A-Z][A-Z0-9_]*" }
