-- Does one write of the registry: all of it or nothing. src/control/registry/redis/wire.rs writes the arguments and
-- reads the reply.
--
-- KEYS[1]   records: a hash; field: the key of a record; value: see Record
-- KEYS[2]   log: a stream; an entry per change. The last ID that it has had holds the revision
--
-- ARGV[1]   how many entries the log keeps, at least 1
-- ARGV[2]   tag: bytes that no other write has. Tells this write from one that made the same revision before the
--           server lost it
-- ARGV[3]   channel of notices; a notice is the revision, decimal
-- then three for each change, at least one change, distinct keys
--   key
--   expect  '' anything, '-' no record, '+' a record, '!' a record that has expired, or the revision of the record,
--           decimal
--   value   '=' and the value, or '-': nothing
--
-- Reply     {1, revision, previous, before ...}: done; previous: the tag of the write before this one,
--           or false without one in the log; before: per change, the record that was there or false
--           {0, index, revision}: change index (from 0) expects what is not so; revision of the record there, or -1
--
-- Record    format version u8 (1), revision u64 little-endian, value
-- Entry     ID revision-sequence; sequence counts from 1, but that of a write's last change is the largest there is:
--           who finds it has the whole write. Fields: k key; v value, absent: nothing; on the last change also
--           t tag and n how many changes the write has
--
-- Atomicity: everything that can fail on stored data (a key of another type) happens before the first change. Without
-- memory the server refuses the first change. Nobody need hear a notice, so one that is refused is no failure.
-- Expiry: a record has expired when its value is a JSON object whose expires_at, in microseconds since
-- 1970, is not later than TIME. src/control/registry/mod.rs has the twin: has_expired.
-- Numbers: doubles, exact to 2^53 revisions.

local VERSION = '\1'
local HEADER = 9
local LAST = '18446744073709551615'

-- A global is looked up by its name each time, and the loops below use these for every change.
local args, call, sub = ARGV, redis.call, string.sub

local records, log = KEYS[1], KEYS[2]
local kept, tag, channel = args[1], args[2], args[3]
local FIRST, WIDTH = 4, 3
-- How many arguments are handed to a command at once, even: Lua's stack has an end.
local MOST = 2000
local changes = (#args - FIRST + 1) / WIDTH

local function revision_of(record)
  if record and #record >= HEADER and sub(record, 1, 1) == VERSION then
    return (struct.unpack('<I8', record, 2))
  end
  return nil
end

local now
local function has_expired(record)
  local is_json, object = pcall(cjson.decode, sub(record, HEADER + 1))
  local at = is_json and type(object) == 'table' and object.expires_at
  if type(at) ~= 'number' then
    return false
  end
  if not now then
    local time = call('TIME')
    now = time[1] * 1000000 + time[2]
  end
  return at <= now
end

-- Whether the record, of revision found or nil, is the one that a change expects.
local function is_expected(expect, found, record)
  if not found then
    return expect == '-' and not record
  elseif expect == '!' then
    return has_expired(record)
  end
  return expect == '+' or found == tonumber(expect)
end

local newest = call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
local revision, previous = 1, false
if newest then
  revision = tonumber(string.match(newest[1], '^%d+')) + 1
  local fields = newest[2]
  for i = 1, #fields, 2 do
    if fields[i] == 't' then
      previous = fields[i + 1]
    end
  end
else
  -- Trimmed to nothing, the stream still refuses the IDs that it has had.
  local stream = redis.pcall('XINFO', 'STREAM', log)
  for i = 1, #stream, 2 do
    if stream[i] == 'last-generated-id' then
      revision = tonumber(string.match(stream[i + 1], '^%d+')) + 1
    end
  end
end

local keys = {}
for i = 1, changes do
  keys[i] = args[FIRST + WIDTH * (i - 1)]
end

local BEFORE = 3
local reply = { 1, revision, previous }
for from = 1, changes, MOST do
  local before = call('HMGET', records, unpack(keys, from, math.min(from + MOST - 1, changes)))
  for j = 1, #before do
    local i = from + j - 1
    local expect = args[FIRST + WIDTH * (i - 1) + 1]
    if expect ~= '' then
      local found = revision_of(before[j])
      if not is_expected(expect, found, before[j]) then
        return { 0, i - 1, found or -1 }
      end
    end
    reply[BEFORE + i] = before[j]
  end
end

local written = string.format('%.0f', revision)
local header = VERSION .. struct.pack('<I8', revision)
local put, gone = {}, {}
for i = 1, changes do
  local key, value = keys[i], args[FIRST + WIDTH * (i - 1) + 2]
  local id = written .. '-' .. (i == changes and LAST or i)
  if sub(value, 1, 1) == '=' then
    value = sub(value, 2)
    put[#put + 1] = key
    put[#put + 1] = header .. value
    if i < changes then
      call('XADD', log, id, 'k', key, 'v', value)
    else
      call('XADD', log, id, 'k', key, 'v', value, 't', tag, 'n', changes)
    end
  else
    gone[#gone + 1] = key
    if i < changes then
      call('XADD', log, id, 'k', key)
    else
      call('XADD', log, id, 'k', key, 't', tag, 'n', changes)
    end
  end
end
for from = 1, #put, MOST do
  call('HSET', records, unpack(put, from, math.min(from + MOST - 1, #put)))
end
for from = 1, #gone, MOST do
  call('HDEL', records, unpack(gone, from, math.min(from + MOST - 1, #gone)))
end
call('XTRIM', log, 'MAXLEN', kept)
redis.pcall('PUBLISH', channel, written)
return reply
