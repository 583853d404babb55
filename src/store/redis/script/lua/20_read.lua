-- Reads the keys and the limits of the frame.
--
--   input    meaning
--   KEYS     distinct keys of the counters; a slot is an index in it
--   ARGV[1]  groups, one after the other: GROUP, PART and CLAIM of the layout
--   ARGV[2]  limits, each once: LIMIT of the layout
--
--   output       index  unit  meaning
--   stored       slot         state as read; false: no key; '': unreadable
--   states       slot         state after the claims so far; nil before the first
--   tails        slot   us    time that a state counts after its first number; nil (0) for a bucket
--   renewed      slot         true: the key needs the expiry of its new state
--   limits       limit        numbers of LIMIT after the algorithm
--   reply        1..          integers of the reply
--   replied            count  length of reply
--   unreadable         count  states that cannot be read and count as empty
--
-- Numbers are doubles, exact to 2^53. A state is an immutable string: a reference is a snapshot of it.

local EMPTY = ''

-- Numbers of a limit that follows a calendar, beyond those of a fixed window.
local WINDOW_START = 5
local NEXT_PERIOD = 6

local keys, args, limit_args = KEYS, ARGV[1], ARGV[2]
local pack, unpack_at = struct.pack, struct.unpack
local byte, sub, rep, format, call = string.byte, string.sub, string.rep, string.format, redis.call
local floor, min, max = math.floor, math.min, math.max

local stored, states = {}, {}
local tails = {}
local renewed = {}

-- In steps of 1000: the stack of Lua takes some thousand values at once.
for first = 1, #keys, 1000 do
  local raws = call('MGET', unpack(keys, first, min(first + 999, #keys)))
  if first == 1 then
    stored = raws
  else
    for i = 1, #raws do
      stored[first + i - 1] = raws[i]
    end
  end
end

-- A time or a number of hits; false for values beyond any clock and count, and for NaN. Where every decision checks
-- one, the comparison is written out: a call costs more.
local function is_sane(number)
  return number >= 0 and number <= 2 * SATURATION
end

local function is_readable_bucket(raw)
  if #raw ~= BUCKET_SIZE and #raw ~= BUCKET_SIZE + LEASES_SIZE then
    return false
  end
  local _, _, full_at, rest, rate = unpack_at(BUCKET, raw)
  if not is_sane(full_at) or rest >= rate then
    return false
  elseif #raw == BUCKET_SIZE then
    return true
  end
  local early_until, early, early_rest, late_until, late, late_rest = unpack_at(LEASES, raw, BUCKET_SIZE + 1)
  return is_sane(early_until) and is_sane(early) and early_rest < rate
    and is_sane(late_until) and is_sane(late) and late_rest < rate
end

-- Older runs of a sliding window are checked when they are counted.
local function is_readable(raw)
  local version, algorithm = byte(raw, 1, 2)
  if version == BUCKET_VERSION and algorithm == TOKEN_BUCKET then
    return is_readable_bucket(raw)
  elseif version ~= WINDOW_VERSION then
    return false
  elseif algorithm == SLIDING_WINDOW then
    if #raw < SLIDING_SIZE or (#raw - SLIDING_SIZE) % RUN_SIZE ~= 0 then
      return false
    end
    local _, _, newest, hits, total = unpack_at(SLIDING, raw)
    return is_sane(newest) and is_sane(hits) and is_sane(total)
  elseif algorithm == FIXED_WINDOW and #raw == FIXED_SIZE then
    local _, _, start, count = unpack_at(FIXED, raw)
    return is_sane(start) and is_sane(count)
  end
  return false
end

-- A bucket of format 1 in format 2; any other state unchanged.
local function in_this_format(raw)
  local version, algorithm = byte(raw, 1, 2)
  if version == OLD_BUCKET_VERSION and algorithm == TOKEN_BUCKET
    and (#raw == OLD_BUCKET_SIZE or #raw == OLD_BUCKET_SIZE + LEASES_SIZE)
  then
    return pack('<BB', BUCKET_VERSION, TOKEN_BUCKET) .. sub(raw, BODY, OLD_BUCKET_SIZE)
      .. pack('<I4', UNBOUNDED) .. sub(raw, OLD_BUCKET_SIZE + 1)
  end
  return raw
end

local unreadable = 0

-- Counts a state that cannot be read. It counts as empty, and the next write replaces it.
local function drop_unreadable(slot)
  unreadable = unreadable + 1
  stored[slot], states[slot] = EMPTY, EMPTY
  return EMPTY
end

-- The state of `slot` before its first claim.
local function first_state(slot)
  local state = in_this_format(stored[slot] or EMPTY)
  if state ~= EMPTY and not is_readable(state) then
    return drop_unreadable(slot)
  end
  stored[slot], states[slot] = state, state
  return state
end

-- A claim without a limit, number 0, is conditional.
local limits = { [0] = { 0 } }
local limit_at = 1
while limit_at <= #limit_args do
  local algorithm = byte(limit_args, limit_at)
  local limit = { unpack_at(LIMIT[algorithm], limit_args, limit_at + 1) }
  limits[#limits + 1], limit_at = limit, limit[#limit]
  if algorithm == CALENDAR_WINDOW then
    -- From here on it is a fixed window that knows its begin, and the length of the next one.
    local first, second, third, last = unpack(limit, CALENDAR_FIRST, CALENDAR_LAST)
    local start, stop, next_period = first, second, third - second
    if now >= third then --@calendar-next
      start, stop, next_period = third, max(last, now + 1), last - third
    elseif now >= second then --@calendar-current
      start, stop, next_period = second, third, last - third
    end
    limit[FIXED_PERIOD], limit[WINDOW_START], limit[NEXT_PERIOD] = stop - start, start, next_period
  end
end

local reply = { 0, now }
local replied = 2
