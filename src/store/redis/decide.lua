-- Decides a frame of whole requests in one atomic step: the twin of src/domain/group.rs and of the three
-- algorithms beside it. src/store/redis/script.rs writes the arguments and reads the reply.
--
-- This file is the body. The head comes before it and sets two locals; nothing else differs between heads:
--   now       the time, microseconds since 1970; production: TIME of this server
--   keep_ms   milliseconds added to every expiry; production: 0. Keys expire by the server's own clock, so a
--             head that is told the time keeps them longer
--
-- KEYS      the distinct counter keys of the frame; none for a frame of blocked limits alone
--
-- ARGV[1]   little-endian, without padding: groups one after the other, each
--   group   commit u8 (0 together, 1 each, 2 never), parts u16, then its parts
--   part    roles u8 (1 quota + 2 shadow), claims u16, then its claims
--   claim   slot u16 (index in KEYS; 0: none), algorithm u8, kind u8 (0 take, 1 peek, 2 refund),
--           always u8 (1: charged whether it passes or not), then by algorithm
--     0 blocked          nothing
--     1 token bucket     rate u32 (requests per period); then three spans: the cost of the hits, the
--                        capacity, the furthest ahead of now that state may lie. A span is f64 microseconds
--                        and u32 rate-ths of a microsecond
--     2 sliding window   hits f64, capacity u32 (hits), period f64 (us), run width f64 (us), slots u32
--     3 fixed window     hits f64, capacity u32 (hits), period f64 (us)
--           hits: those that must fit (a peek: 1), or those given back; at most 2^52
--
-- Reply     one flat list of integers
--   1       how many of the keys hold a state that cannot be read and counted as empty
--   then, for each claim in order; the first integer x stands for "passed" as x, for "failed" as -x - 1
--     blocked            nothing
--     token bucket       x = whole microseconds until full; then the rest in rate-ths of a microsecond
--     sliding window     x = hits in the window; then us until the same hits would fit (0: passed, or
--                        never), us until the window is empty
--     fixed window       x = hits in the window; then us until it ends
--
-- State     one string per key; first byte: format version (1), second byte: algorithm as above
--   token bucket     full at f64 (us), rest u32 (rate-ths of a us), rate u32 it was written with
--   sliding window   newest run: time of its newest hit f64 (us), hits f64; hits in all runs f64; then the
--                    older runs, oldest first, each time f64 and hits f64
--   fixed window     start f64 (us), hits f64
--   No key: nothing used.
--
-- Atomicity: each key is read once and written at most once, after every decision. SET comes before DEL, so
-- that a server without memory refuses the frame before anything of it is written.
-- Expiry: PX, two to three milliseconds after the state counts as empty.
-- Numbers: doubles, exact to 2^53. Nothing is multiplied by a rate except where a bucket changes its rate.

local TAKE, REFUND = 0, 2
local EACH, NEVER = 1, 2
local TOKEN_BUCKET, SLIDING_WINDOW, FIXED_WINDOW = 1, 2, 3
local SATURATION = 4503599627370496
local VERSION = 1
-- The length of a claim's numbers, by algorithm.
local CLAIM_BODY = { [0] = 0, 40, 32, 20 }
local EMPTY = ''

local args = ARGV[1]
local pack, unpack_at = struct.pack, struct.unpack
local byte, sub, format = string.byte, string.sub, string.format
local floor, min, max = math.floor, math.min, math.max

-- States of all keys, by slot: as read, and as they become. A state is an immutable string: keeping one is a
-- snapshot, and an unchanged one needs no writing.

local function is_readable(raw)
  local version, algorithm = byte(raw, 1, 2)
  if version ~= VERSION then
    return false
  elseif algorithm == SLIDING_WINDOW then
    return #raw >= 26 and (#raw - 26) % 16 == 0
  end
  return #raw == 18 and (algorithm == TOKEN_BUCKET or algorithm == FIXED_WINDOW)
end

local unreadable = 0
local stored, states = {}, {}
-- How long after the first time in its state a key's counter is empty, in microseconds.
local spans = {}

-- In steps, because the stack of Lua takes some thousand values at once.
for first = 1, #KEYS, 1000 do
  local last = min(first + 999, #KEYS)
  local raws = redis.call('MGET', unpack(KEYS, first, last))
  for i = 1, last - first + 1 do
    local state = raws[i] or EMPTY
    if state ~= EMPTY and not is_readable(state) then
      unreadable = unreadable + 1
      state = EMPTY
    end
    stored[first + i - 1], states[first + i - 1] = state, state
  end
end

-- Algorithms: (slot, place of the claim's numbers, kind, always) -> settled state, passed, integers of the reply.
-- Each puts the state after the step in `states`. Settled: as it was, but pulled back if it lies further ahead
-- than it could be written now; that outlives a denial.

local function token_bucket(slot, at, kind, always)
  local state = states[slot]
  local rate, cost, cost_rest, full, full_rest, ceiling, ceiling_rest =
    unpack_at('<I4dI4dI4dI4', args, at)
  local lag, rest = 0, 0
  if byte(state, 2) == TOKEN_BUCKET then
    local full_at, written_rest, written_rate = unpack_at('<dI4I4', state, 3)
    if full_at >= now then
      lag, rest = full_at - now, written_rest
      if written_rate ~= rate then
        lag = floor((lag * written_rate + rest) / rate * (1 + 2 ^ -50)) + 1
        rest = 0
      end
      if lag > ceiling or (lag == ceiling and rest > ceiling_rest) then
        lag, rest = ceiling, ceiling_rest
        state = pack('<BBdI4I4', VERSION, TOKEN_BUCKET, now + lag, rest, rate)
      end
    end
  end

  local settled, passed, charged = state, true, true
  if kind == REFUND then
    if lag > cost or (lag == cost and rest > cost_rest) then
      lag, rest = lag - cost, rest - cost_rest
      if rest < 0 then
        lag, rest = lag - 1, rest + rate
      end
    else
      lag, rest = 0, 0
    end
  else
    local lag_after, rest_after = lag + cost, rest + cost_rest
    if rest_after >= rate then
      lag_after, rest_after = lag_after + 1, rest_after - rate
    end
    passed = lag_after < full or (lag_after == full and rest_after <= full_rest)
    charged = kind == TAKE and (passed or always)
    if charged then
      lag, rest = lag_after, rest_after
      if lag > ceiling or (lag == ceiling and rest > ceiling_rest) then
        lag, rest = ceiling, ceiling_rest
      end
    end
  end

  if charged then
    if lag == 0 and rest == 0 then
      state = EMPTY
    else
      state = pack('<BBdI4I4', VERSION, TOKEN_BUCKET, now + lag, rest, rate)
    end
  end
  states[slot], spans[slot] = state, 1
  return settled, passed, lag, rest
end

-- The runs keep their distances and the newest counts as of now.
local function pull_runs_back(state)
  local newest, hits, total = unpack_at('<ddd', state, 3)
  local moved = { pack('<BBddd', VERSION, SLIDING_WINDOW, now, hits, total) }
  for run = 27, #state, 16 do
    local time, count = unpack_at('<dd', state, run)
    moved[#moved + 1] = pack('<dd', max(time - (newest - now), 0), count)
  end
  return table.concat(moved)
end

-- The runs that still count: newest, its hits, total, older runs (packed, oldest first).
local function runs_in_window(state, period)
  if byte(state, 2) ~= SLIDING_WINDOW then
    return 0, 0, 0, EMPTY
  end
  local newest, hits, total = unpack_at('<ddd', state, 3)
  if newest + period <= now then
    return 0, 0, 0, EMPTY
  end
  local first = 27
  while first < #state do
    local time, count = unpack_at('<dd', state, first)
    if time + period > now then
      break
    end
    total = total - count
    first = first + 16
  end
  return newest, hits, total, sub(state, first)
end

-- Gives `given` hits back, the oldest first.
local function refund_runs(hits, older, given)
  local first = 1
  while given > 0 and first < #older do
    local time, count = unpack_at('<dd', older, first)
    first = first + 16
    if count > given then
      return hits, pack('<dd', time, count - given) .. sub(older, first)
    end
    given = given - count
  end
  return max(hits - given, 0), sub(older, first)
end

-- When `hits` more would fit; 0 if never.
local function fits_in(hits, capacity, period, newest, total, older)
  local left = total
  for run = 1, #older, 16 do
    local time, count = unpack_at('<dd', older, run)
    left = left - count
    if left + hits <= capacity then
      return period - (now - time)
    end
  end
  if total > 0 and hits <= capacity then
    return period - (now - newest)
  end
  return 0
end

local function sliding_window(slot, at, kind, always)
  local state = states[slot]
  local hits, capacity, period, width, slots = unpack_at('<dI4ddI4', args, at)
  if byte(state, 2) == SLIDING_WINDOW and unpack_at('<d', state, 3) > now then
    state = pull_runs_back(state)
  end
  local newest, newest_hits, total, older = runs_in_window(state, period)

  local settled, passed, charged = state, true, true
  if kind == REFUND then
    newest_hits, older = refund_runs(newest_hits, older, hits)
    total = max(total - hits, 0)
  else
    local total_after = min(total + hits, SATURATION)
    passed = total_after <= capacity
    charged = kind == TAKE and (passed or always) and total_after > total
    if charged then
      local full = #older / 16 + 1 > slots
      local same_cell = newest - newest % width == now - now % width
      if total > 0 and (full or same_cell) then
        newest_hits = newest_hits + total_after - total
      else
        if total > 0 then
          older = older .. pack('<dd', newest, newest_hits)
        end
        newest_hits = total_after - total
      end
      newest, total = now, total_after
    end
  end

  if charged then
    if total == 0 then
      state = EMPTY
    else
      state = pack('<BBddd', VERSION, SLIDING_WINDOW, newest, newest_hits, total) .. older
    end
  end
  local retry_us, empty_us = 0, 0
  if not passed then
    retry_us = fits_in(hits, capacity, period, newest, total, older)
  end
  if total > 0 then
    empty_us = period - (now - newest)
  end
  states[slot], spans[slot] = state, period
  return settled, passed, total, retry_us, empty_us
end

local function fixed_window(slot, at, kind, always)
  local state = states[slot]
  local hits, capacity, period = unpack_at('<dI4d', args, at)
  local start, count = now - now % period, 0
  if byte(state, 2) == FIXED_WINDOW then
    local written_start, written_count = unpack_at('<dd', state, 3)
    if written_start > start + period then
      written_start = start + period
      state = pack('<BBdd', VERSION, FIXED_WINDOW, written_start, written_count)
    end
    if written_start >= start then
      start, count = written_start, written_count
    end
  end

  local settled, passed, charged = state, true, true
  if kind == REFUND then
    count = max(count - hits, 0)
  else
    local count_after = min(count + hits, SATURATION)
    passed = count_after <= capacity
    charged = kind == TAKE and (passed or always)
    if charged then
      count = count_after
    end
  end

  if charged then
    if count == 0 then
      state = EMPTY
    else
      state = pack('<BBdd', VERSION, FIXED_WINDOW, start, count)
    end
  end
  states[slot], spans[slot] = state, period
  return settled, passed, count, period - (now - start)
end

local function blocked(_, _, kind)
  return EMPTY, kind == REFUND
end

local algorithms = { [0] = blocked, token_bucket, sliding_window, fixed_window }

local reply = { unreadable }
local replied = 1

local function answer(passed, x, y, z)
  if x then
    reply[replied + 1] = passed and x or -x - 1
    reply[replied + 2] = y
    replied = replied + 2
  end
  if z then
    replied = replied + 1
    reply[replied] = z
  end
end

-- Decides the part at `at`. Where given, `undo_group` keeps what its states go back to: settled, unless nothing
-- is to remain; `unconditional` keeps the places of claims that no verdict undoes. -> next place, whether it
-- passed, its roles.
local function decide_part(at, commit, undo_group, unconditional)
  local roles, claims
  roles, claims, at = unpack_at('<BH', args, at)
  local part_passed = true
  local undo = claims > 1 and {} or nil
  for _ = 1, claims do
    local slot, algorithm, kind, always, numbers = unpack_at('<HBBB', args, at)
    local before = states[slot]
    local settled, passed, x, y, z = algorithms[algorithm](slot, numbers, kind, always == 1)
    answer(passed, x, y, z)
    part_passed = part_passed and passed
    local conditional = kind ~= REFUND and always == 0
    if undo_group and slot > 0 and not undo_group[slot] then
      undo_group[slot] = commit == NEVER and before or settled
    end
    if undo_group and not conditional then
      unconditional[#unconditional + 1] = at
    end
    if undo and conditional and slot > 0 then
      undo[#undo + 1] = { slot, settled }
    end
    at = numbers + CLAIM_BODY[algorithm]
  end
  if undo and not part_passed then
    for i = #undo, 1, -1 do
      states[undo[i][1]] = undo[i][2]
    end
  end
  return at, part_passed, roles
end

local function decide_group(at)
  local commit, parts
  commit, parts, at = unpack_at('<BH', args, at)
  -- A single part that fails has undone itself.
  local undo_group = (parts > 1 or commit == NEVER) and {} or nil
  local unconditional = undo_group and {} or nil
  local denied, quotas, quotas_left = false, false, false
  for _ = 1, parts do
    local passed, roles
    at, passed, roles = decide_part(at, commit, undo_group, unconditional)
    local harmless = passed or roles >= 2
    if roles % 2 == 1 then
      quotas = true
      quotas_left = quotas_left or harmless
    elseif not harmless then
      denied = true
    end
  end
  denied = denied or (quotas and not quotas_left)

  local undo = commit == NEVER or (commit ~= EACH and denied)
  if undo and undo_group then
    for slot, state in pairs(undo_group) do
      states[slot] = state
    end
    if commit ~= NEVER then
      for i = 1, #unconditional do
        local slot, algorithm, kind, always, numbers = unpack_at('<HBBB', args, unconditional[i])
        algorithms[algorithm](slot, numbers, kind, always == 1)
      end
    end
  end
  return at
end

local at = 1
while at <= #args do
  at = decide_group(at)
end

local emptied = {}
for slot, key in ipairs(KEYS) do
  local state = states[slot]
  if state ~= stored[slot] then
    if state == EMPTY then
      emptied[#emptied + 1] = key
    else
      local ahead = unpack_at('<d', state, 3) - now + spans[slot]
      redis.call('SET', key, state, 'PX', format('%d', floor(ahead / 1000) + 2 + keep_ms))
    end
  end
end
for i = 1, #emptied do
  redis.call('DEL', emptied[i])
end
return reply
