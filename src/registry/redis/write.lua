-- Does one write of the registry: all of it or nothing. src/registry/redis/wire.rs writes the arguments and
-- reads the reply.
--
-- KEYS[1]   records: a hash; field: the key of a record; value: see Record
-- KEYS[2]   log: a stream; an entry per change, the ID of its newest entry holds the revision
--
-- ARGV[1]   how many entries the log keeps, at least 1
-- ARGV[2]   tag: bytes that no other write has. Tells this write from one that made the same revision before the
--           server lost it
-- ARGV[3]   channel of notices; a notice is the revision, decimal
-- then three for each change, at least one change, distinct keys
--   key
--   expect  '' anything, '+' a record, else the revision of the record, decimal
--   value   '=' and the value, or '-': nothing
--
-- Reply     {1, revision, before ...}: done; before: per change, the record that was there or false
--           {0, index, revision}: change index (from 0) expects what is not so; revision of the record there, or -1
--
-- Record    format version u8 (1), revision u64 little-endian, value
-- Entry     ID revision-sequence; sequence counts from 1, but that of a write's last change is the largest there is:
--           who finds it has the whole write. Fields: k key; v value, absent: nothing; on the last change also
--           t tag and n how many changes the write has
--
-- Atomicity: everything that can fail on stored data (a key of another type) happens before the first change. Without
-- memory the server refuses the first change. Nobody need hear a notice, so one that is refused is no failure.
-- Numbers: doubles, exact to 2^53 revisions.

local VERSION = '\1'
local HEADER = 9
local LAST = '18446744073709551615'

local records, log = KEYS[1], KEYS[2]
local kept, tag, channel = ARGV[1], ARGV[2], ARGV[3]
local FIRST, WIDTH = 4, 3
local changes = (#ARGV - FIRST + 1) / WIDTH

local function revision_of(record)
  if record and #record >= HEADER and string.sub(record, 1, 1) == VERSION then
    return (struct.unpack('<I8', record, 2))
  end
  return nil
end

local newest = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
local revision = 1
if newest then
  revision = tonumber(string.match(newest[1], '^%d+')) + 1
end

local reply = { 1, revision }
for i = 0, changes - 1 do
  local key, expect = ARGV[FIRST + WIDTH * i], ARGV[FIRST + WIDTH * i + 1]
  local before = redis.call('HGET', records, key)
  local found = revision_of(before)
  if (expect == '+' and not found) or (expect ~= '' and expect ~= '+' and found ~= tonumber(expect)) then
    return { 0, i, found or -1 }
  end
  reply[i + 3] = before
end

local written = string.format('%.0f', revision)
local header = VERSION .. struct.pack('<I8', revision)
for i = 0, changes - 1 do
  local key, value = ARGV[FIRST + WIDTH * i], ARGV[FIRST + WIDTH * i + 2]
  local entry = { 'XADD', log, written .. '-' .. (i + 1), 'k', key }
  local put = string.sub(value, 1, 1) == '='
  if put then
    value = string.sub(value, 2)
    entry[#entry + 1] = 'v'
    entry[#entry + 1] = value
    redis.call('HSET', records, key, header .. value)
  else
    redis.call('HDEL', records, key)
  end
  if i == changes - 1 then
    entry[3] = written .. '-' .. LAST
    for _, field in ipairs({ 't', tag, 'n', changes }) do
      entry[#entry + 1] = field
    end
  end
  redis.call(unpack(entry))
end
redis.call('XTRIM', log, 'MAXLEN', kept)
redis.pcall('PUBLISH', channel, written)
return reply
