-- Decides a frame of whole requests in one atomic step: the twin of src/domain/group.rs and of the three
-- algorithms beside it. src/store/redis/script/ writes the arguments and reads the reply.
--
-- This file is the body. The head comes before it and sets two locals; nothing else differs between heads:
--   now       the time, microseconds since 1970; production: TIME of this server
--   keep_ms   milliseconds added to every expiry; production: 0. Keys expire by the server's own clock, so a
--             head that is told the time keeps them longer
--
-- KEYS      the distinct counter keys of the frame; none for a frame of blocked limits alone
--
-- ARGV[1]   little-endian, without padding: groups one after the other, each
--   group   commit u8 (0 together, 1 each, 2 never), parts u16, then its parts; or one claim whose algorithm has 16
--           added: a group of nothing else, whose failure needs no undoing
--   part    roles u8 (1 quota + 2 shadow), claims u16, then its claims
--   claim   algorithm u8, slot u16 (index in KEYS; 0: none), limit u16 (which of ARGV[2]; 0: none),
--           kind u8 (0 take, 1 peek, 2 refund), then by algorithm
--     0 blocked          nothing
--     1 token bucket     the cost of the hits, a span: f64 microseconds and u32 rate-ths of a microsecond
--     4 token bucket     as 1, and a lease to grant once the hits are charged: three spans: its tokens, the most
--       and a lease      that may be outstanding, those of a lease that is finished; then f64 until when that one
--                        counts (us; 0: none), f64 its time to live (us)
--     2, 3 windows       hits f64
--           hits: those that must fit (a peek: 1), or those given back; at most 2^52
--
-- ARGV[2]   the limits of the claims, each once, in the same manner
--   limit   algorithm u8, always u8 (1: charged whether it passes or not), then by algorithm
--     1 token bucket     rate u32 (requests per period); two spans: the capacity, the furthest ahead of now
--                        that this limit writes; the same in hits u32 (UNBOUNDED: at least as many), period f64 (us)
--     2 sliding window   capacity u32 (hits), period f64 (us), run width f64 (us), slots u32
--     3 fixed window     capacity u32 (hits), period f64 (us)
--
-- Reply     one flat list of integers
--   1       how many of the keys hold a state that cannot be read and counted as empty
--   then, for each claim in order; the first integer x stands for "passed" as x, for "failed" as -x - 1
--     blocked            nothing
--     token bucket       x = whole microseconds until full; then the rest in rate-ths of a microsecond; where a
--                        lease was asked for, until when it is outstanding (us; 0: not granted). It is granted only
--                        if the charge of its claim stands
--     sliding window     x = hits in the window; then us until the same hits would fit (0: passed, or
--                        never), us until the window is empty
--     fixed window       x = hits in the window; then us until it ends
--
-- State     one string per key; first byte: format version (token bucket: 2; windows: 1), second byte: algorithm as above
--   token bucket     full at f64 (us), rest u32 (rate-ths of a us), rate u32 it was written with, reach u32: the most
--                    hits by which the limit that wrote it lets a bucket lag; where replicas hold tokens, two slots:
--                    until f64 (us), span f64 (us) and u32 (rate-ths of a us), early then late
--                    Format 1, which is read: the same without the reach, which counts as UNBOUNDED
--   sliding window   newest run: time of its newest hit f64 (us), hits f64; hits in all runs f64; then the
--                    older runs, oldest first, each time f64 and hits f64. Runs of no hits, long past, may precede
--                    them: a state that does not become shorter can be written by SETRANGE
--   fixed window     start f64 (us), hits f64
--   No key: nothing used.
--
-- Atomicity: each key is read once and written at most once, after every decision. PSETEX comes before DEL, so
-- that a server without memory refuses the frame before anything of it is written.
-- Expiry: when the state counts as empty, rounded up to a multiple of EXPIRY_STEP, and two to three milliseconds. So a
-- key that is in use keeps its expiry from step to step, and SETRANGE, which leaves it alone, is half as dear as PSETEX.
-- Numbers: doubles, exact to 2^53. Nothing is multiplied by a rate except where a bucket changes its rate.

local TAKE, REFUND = 0, 2
local EACH, NEVER, SINGLE = 1, 2, 16
local TOKEN_BUCKET, SLIDING_WINDOW, FIXED_WINDOW = 1, 2, 3
-- The lengths of a bucket's state without leases, and with; and what format 1 has less.
local BUCKET, LEASED_BUCKET, NO_REACH = 22, 62, 4
-- As far ahead of now as a lease may be outstanding; the same as in src/domain/lease.rs.
local LONGEST_LEASE = 2000000
-- In microseconds: how much longer than it is needed a key may stay.
local EXPIRY_STEP = 1048576
local SATURATION = 4503599627370496
-- The reach of limits whose burst and debt have no bound in 32 bits.
local UNBOUNDED = 4294967295
local BUCKET_VERSION, VERSION = 2, 1
-- The shapes of a claim and of a limit after the algorithm, and the length of a claim with it.
local CLAIM = { [0] = '<HHB', '<HHBdI4', '<HHBd', '<HHBd', '<HHBdI4dI4dI4dI4dd' }
local CLAIM_SIZE = { [0] = 6, 18, 14, 14, 70 }
local LIMIT = { '<BI4dI4dI4I4d', '<BI4ddI4', '<BI4d' }
local EMPTY = ''

local keys, args, limit_args = KEYS, ARGV[1], ARGV[2]
local pack, unpack_at = struct.pack, struct.unpack
local byte, sub, rep, format, call = string.byte, string.sub, string.rep, string.format, redis.call
local floor, min, max = math.floor, math.min, math.max

-- States by slot: as read, false where there is none; and as they become, from the first claim on. A state is an immutable
-- string: keeping one is a snapshot, and an unchanged one needs no writing.
local stored, states = {}, {}
-- How long after the first time in its state a key's counter still counts, in microseconds; none for a bucket.
local spans = {}
-- By slot: whether the expiry that the key has may be another than that of its state.
local renewed = {}

-- In steps, because the stack of Lua takes some thousand values at once.
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

-- A time or a number of hits; false for what no clock and no count can be, and for what is no number.
local function is_sane(number)
  return number >= 0 and number <= 2 * SATURATION
end

local function is_readable_bucket(raw)
  if #raw ~= BUCKET and #raw ~= LEASED_BUCKET then
    return false
  end
  local full_at, rest, rate = unpack_at('<dI4I4', raw, 3)
  if not is_sane(full_at) or rest >= rate then
    return false
  elseif #raw == BUCKET then
    return true
  end
  local early_until, early, early_rest, late_until, late, late_rest = unpack_at('<ddI4ddI4', raw, 23)
  return is_sane(early_until) and is_sane(early) and early_rest < rate
    and is_sane(late_until) and is_sane(late) and late_rest < rate
end

-- Older runs are looked at when they are counted.
local function is_readable(raw)
  local version, algorithm = byte(raw, 1, 2)
  if version == BUCKET_VERSION and algorithm == TOKEN_BUCKET then
    return is_readable_bucket(raw)
  elseif version ~= VERSION then
    return false
  elseif algorithm == SLIDING_WINDOW then
    if #raw < 26 or (#raw - 26) % 16 ~= 0 then
      return false
    end
    local newest, hits, total = unpack_at('<ddd', raw, 3)
    return is_sane(newest) and is_sane(hits) and is_sane(total)
  elseif algorithm == FIXED_WINDOW and #raw == 18 then
    local start, count = unpack_at('<dd', raw, 3)
    return is_sane(start) and is_sane(count)
  end
  return false
end

-- A bucket of format 1 in format 2; anything else as it is.
local function in_this_format(raw)
  local version, algorithm = byte(raw, 1, 2)
  if version == 1 and algorithm == TOKEN_BUCKET and (#raw + NO_REACH == BUCKET or #raw + NO_REACH == LEASED_BUCKET) then
    return pack('<BB', BUCKET_VERSION, TOKEN_BUCKET) .. sub(raw, 3, 18) .. pack('<I4', UNBOUNDED) .. sub(raw, 19)
  end
  return raw
end

local unreadable = 0

-- Counts a state that cannot be read; it is as none, and the next that is written takes its place.
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

-- By number: what a limit has after its algorithm. A claim without one is never charged as one that always is.
local limits = { [0] = { 0 } }
local limit_at = 1
while limit_at <= #limit_args do
  local limit = { unpack_at(LIMIT[byte(limit_args, limit_at)], limit_args, limit_at + 1) }
  limits[#limits + 1], limit_at = limit, limit[#limit]
end

local reply = { 0 }
local replied = 1

-- Algorithms: (the fields of a claim) -> settled state, passed.
-- Each puts the state after the step in `states` and its integers in `reply`. Settled: as it was, but pulled back if it
-- lies further ahead than it could be written now; that outlives a denial.

-- Spans at one rate: whole microseconds, and rate-ths of one.

local function plus(a, a_rest, b, b_rest, rate)
  local sum, rest = a + b, a_rest + b_rest
  if rest >= rate then
    return sum + 1, rest - rate
  end
  return sum, rest
end

local function minus(a, a_rest, b, b_rest, rate)
  if a < b or (a == b and a_rest <= b_rest) then
    return 0, 0
  elseif a_rest < b_rest then
    return a - b - 1, a_rest - b_rest + rate
  end
  return a - b, a_rest - b_rest
end

local function exceeds(a, a_rest, b, b_rest)
  return a > b or (a == b and a_rest > b_rest)
end

-- The same number of hits in time at another rate, rounded up.
local function at_new_rate(span, rest, written_rate, rate)
  return min(floor((span * written_rate + rest) / rate * (1 + 2 ^ -50)) + 1, SATURATION)
end

-- The furthest ahead of now, at `written_rate`, that a limit of `reach` and of this period writes; rounded up for any
-- limit but this one.
local function furthest(limit, reach, written_rate)
  if reach == UNBOUNDED then
    return SATURATION, 0
  elseif reach == limit[7] and written_rate == limit[2] then
    return limit[5], limit[6]
  end
  return min(floor(reach * limit[8] / written_rate * (1 + 2 ^ -50)) + 1, SATURATION), 0
end

local function pack_bucket(lag, rest, rate, reach, leases)
  local state = pack('<BBdI4I4I4', BUCKET_VERSION, TOKEN_BUCKET, now + lag, rest, rate, reach)
  if leases and (leases.early > 0 or leases.early_rest > 0 or leases.late > 0 or leases.late_rest > 0) then
    return state
      .. pack('<ddI4ddI4', leases.early_until, leases.early, leases.early_rest, leases.late_until, leases.late, leases.late_rest)
  end
  return state
end

-- Leases of a bucket, as src/domain/lease.rs has them, at the rate they were written with. How long they last is pulled
-- back if that lies further ahead than it could be written now. -> leases, whether it was.
local function leases_of(state)
  local early_until, early, early_rest, late_until, late, late_rest = unpack_at('<ddI4ddI4', state, 23)
  local latest = now + LONGEST_LEASE
  local leases = {
    early_until = min(early_until, latest), early = early, early_rest = early_rest,
    late_until = min(late_until, latest), late = late, late_rest = late_rest,
  }
  return leases, late_until > latest
end

local function outstanding(leases, rate)
  return plus(leases.early, leases.early_rest, leases.late, leases.late_rest, rate)
end

-- Lets go what has expired; the bucket is full no earlier than what was outstanding then, and is now, refills.
local function expire(leases, lag, rest, rate)
  if (leases.early > 0 or leases.early_rest > 0) and leases.early_until <= now then
    local total, total_rest = outstanding(leases, rate)
    total = total + leases.early_until - now
    if total >= 0 and exceeds(total, total_rest, lag, rest) then
      lag, rest = total, total_rest
    end
    leases.early_until, leases.early, leases.early_rest = 0, 0, 0
  end
  if (leases.late > 0 or leases.late_rest > 0) and leases.late_until <= now then
    local total, total_rest = outstanding(leases, rate)
    total = total + leases.late_until - now
    if total >= 0 and exceeds(total, total_rest, lag, rest) then
      lag, rest = total, total_rest
    end
    leases.late_until, leases.late, leases.late_rest = 0, 0, 0
  end
  local total, total_rest = outstanding(leases, rate)
  if exceeds(total, total_rest, lag, rest) then
    lag, rest = total, total_rest
  end
  return lag, rest
end

-- Tokens outstanding, at the rate of the claim.
local function leased_tokens(span, rest, written_rate, rate)
  if written_rate ~= rate and (span > 0 or rest > 0) then
    return at_new_rate(span, rest, written_rate, rate), 0
  end
  return span, rest
end

-- When all that is outstanding will have expired and refilled, nothing else being taken.
local function leased_until(state)
  local rate, _, early_until, early, early_rest, late_until, late, late_rest = unpack_at('<I4I4ddI4ddI4', state, 15)
  return max(early_until + plus(early, early_rest, late, late_rest, rate), late_until + late)
end

-- Forgets a finished lease, and grants another. -> lag, rest, until (0: none)
local function lease(
  leases, lag, rest, rate, full, full_rest,
  tokens, tokens_rest, most, most_rest, finished, finished_rest, finished_until, ttl
)
  if finished_until > 0 and finished_until == leases.early_until then
    leases.early, leases.early_rest = minus(leases.early, leases.early_rest, finished, finished_rest, rate)
  elseif finished_until > 0 and finished_until == leases.late_until then
    leases.late, leases.late_rest = minus(leases.late, leases.late_rest, finished, finished_rest, rate)
  end
  if tokens == 0 and tokens_rest == 0 then
    return lag, rest, 0
  end
  local charged, charged_rest = plus(lag, rest, tokens, tokens_rest, rate)
  local total, total_rest = outstanding(leases, rate)
  local after, after_rest = plus(total, total_rest, tokens, tokens_rest, rate)
  if exceeds(charged, charged_rest, full, full_rest) or exceeds(after, after_rest, most, most_rest) then
    return lag, rest, 0
  end
  local until_us = max(now - now % ttl + 2 * ttl, leases.late_until)
  if until_us == leases.late_until then
    leases.late, leases.late_rest = plus(leases.late, leases.late_rest, tokens, tokens_rest, rate)
  else
    leases.early_until, leases.early, leases.early_rest = leases.late_until, total, total_rest
    leases.late_until, leases.late, leases.late_rest = until_us, tokens, tokens_rest
  end
  return charged, charged_rest, until_us
end

local function token_bucket(
  slot, limit, kind, cost, cost_rest,
  tokens, tokens_rest, most, most_rest, finished, finished_rest, finished_until, ttl
)
  limit = limits[limit]
  local rate, full, full_rest, ceiling, ceiling_rest, reach = limit[2], limit[3], limit[4], limit[5], limit[6], limit[7]
  local state = states[slot] or stored[slot]
  local lag, rest = 0, 0
  local version, algorithm, full_at, written_rest, written_rate, written_reach, leases
  if state and #state == BUCKET then
    version, algorithm, full_at, written_rest, written_rate, written_reach = unpack_at('<BBdI4I4I4', state)
  end
  if algorithm ~= TOKEN_BUCKET or version ~= BUCKET_VERSION
    or not is_sane(full_at) or written_rest >= written_rate
  then
    -- None, one with leases, of format 1 or of another algorithm, or one that cannot be read.
    state, full_at, written_reach = states[slot] or first_state(slot), nil, reach
    if (#state == BUCKET or #state == LEASED_BUCKET) and byte(state, 2) == TOKEN_BUCKET then
      full_at, written_rest, written_rate, written_reach = unpack_at('<dI4I4I4', state, 3)
    end
  end
  if full_at then
    -- Pulled back when it lies further ahead than it could have been written: the clock has stepped back since.
    local furthest_us, furthest_rest = furthest(limit, written_reach, written_rate)
    local pulled_back, beyond
    if full_at >= now then
      lag, rest = full_at - now, written_rest
      pulled_back = lag > furthest_us or (lag == furthest_us and rest > furthest_rest)
      if pulled_back then
        lag, rest = furthest_us, furthest_rest
      end
    end
    if #state > BUCKET then
      leases, beyond = leases_of(state)
    end
    if pulled_back then
      state, renewed[slot] = pack_bucket(lag, rest, written_rate, written_reach, leases), true
    elseif beyond then
      state, renewed[slot] = pack_bucket(full_at - now, written_rest, written_rate, written_reach, leases), true
    end
    if leases then
      lag, rest = expire(leases, lag, rest, written_rate)
      leases.early, leases.early_rest = leased_tokens(leases.early, leases.early_rest, written_rate, rate)
      leases.late, leases.late_rest = leased_tokens(leases.late, leases.late_rest, written_rate, rate)
    end
    if rate ~= written_rate and (full_at >= now or lag > 0 or rest > 0) then
      lag, rest = at_new_rate(lag, rest, written_rate, rate), 0
    end
  end

  -- A larger limit has used more than this one can hold: nothing fits, and debt grows no further.
  local used_up = lag > ceiling or (lag == ceiling and rest > ceiling_rest)
  local settled, passed, charged, until_us = state, true, true, 0
  if kind == REFUND then
    lag, rest = minus(lag, rest, cost, cost_rest, rate)
    if used_up and exceeds(lag, rest, ceiling, ceiling_rest) then
      reach = written_reach
    end
  elseif used_up then
    passed, charged = false, false
  else
    local lag_after, rest_after = lag + cost, rest + cost_rest
    if rest_after >= rate then
      lag_after, rest_after = lag_after + 1, rest_after - rate
    end
    passed = lag_after < full or (lag_after == full and rest_after <= full_rest)
    charged = kind == TAKE and (passed or limit[1] == 1)
    if charged then
      lag, rest = lag_after, rest_after
      if lag > ceiling or (lag == ceiling and rest > ceiling_rest) then
        lag, rest = ceiling, ceiling_rest
      end
      if ttl and passed then
        leases = leases or { early_until = 0, early = 0, early_rest = 0, late_until = 0, late = 0, late_rest = 0 }
        lag, rest, until_us = lease(
          leases, lag, rest, rate, full, full_rest,
          tokens, tokens_rest, most, most_rest, finished, finished_rest, finished_until, ttl
        )
      end
    end
  end

  if charged then
    state = pack_bucket(lag, rest, rate, reach, leases)
    if lag == 0 and rest == 0 and #state == BUCKET then
      state = EMPTY
    end
    local full_after = now + lag
    if leases or not full_at or full_at - full_at % EXPIRY_STEP ~= full_after - full_after % EXPIRY_STEP then
      renewed[slot] = true
    end
  end
  states[slot] = state
  -- It decides, and reports, by at most its own ceiling.
  if used_up and exceeds(lag, rest, ceiling, ceiling_rest) then
    lag, rest = ceiling, ceiling_rest
  end
  reply[replied + 1], reply[replied + 2] = passed and lag or -lag - 1, rest
  replied = replied + 2
  if ttl then
    replied = replied + 1
    reply[replied] = until_us
  end
  return settled, passed
end

-- A run that never counts: no window reaches back so far.
local NO_RUN = pack('<dd', -2 * SATURATION, 0)
-- As many of them as a state may have. In use, one run goes when another comes, or a little earlier.
local MOST_GONE = 2

-- The runs keep their distances and the newest counts as of now.
local function pull_runs_back(state, newest, hits, total)
  local moved = { pack('<BBddd', VERSION, SLIDING_WINDOW, now, hits, total) }
  for run = 27, #state, 16 do
    local time, count = unpack_at('<dd', state, run)
    if count > 0 then
      moved[#moved + 1] = pack('<dd', max(time - (newest - now), 0), count)
    end
  end
  return table.concat(moved)
end

-- The runs that still count: newest, its hits, total, older runs (packed, oldest first).
local function runs_in_window(state, period, newest, hits, total)
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

local sliding_window

-- Decides again, from nothing, what came out of runs that no window can hold.
local function without_runs(slot, limit, kind, hits)
  drop_unreadable(slot)
  return sliding_window(slot, limit, kind, hits)
end

sliding_window = function(slot, limit_number, kind, hits)
  local limit = limits[limit_number]
  local capacity, period, width, slots = limit[2], limit[3], limit[4], limit[5]
  local state = states[slot] or first_state(slot)
  local newest, newest_hits, total, older = 0, 0, 0, EMPTY
  if byte(state, 2) == SLIDING_WINDOW then
    newest, newest_hits, total = unpack_at('<ddd', state, 3)
    if newest > now then
      state, renewed[slot] = pull_runs_back(state, newest, newest_hits, total), true
      newest = now
    end
    newest, newest_hits, total, older = runs_in_window(state, period, newest, newest_hits, total)
  end
  local last = newest + period - 1

  local settled, passed, charged = state, true, true
  if kind == REFUND then
    newest_hits, older = refund_runs(newest_hits, older, hits)
    total = max(total - hits, 0)
  else
    local total_after = min(total + hits, SATURATION)
    passed = total_after <= capacity
    charged = kind == TAKE and (passed or limit[1] == 1) and total_after > total
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
    local last_after = newest + period - 1
    if last - last % EXPIRY_STEP ~= last_after - last_after % EXPIRY_STEP then
      renewed[slot] = true
    end
    if total == 0 then
      state = EMPTY
    else
      local gone = (#state - 26 - #older) / 16
      local padding = gone > 0 and gone <= MOST_GONE and not renewed[slot] and rep(NO_RUN, gone) or EMPTY
      state = pack('<BBddd', VERSION, SLIDING_WINDOW, newest, newest_hits, total) .. padding .. older
    end
  end
  local retry_us, empty_us = 0, 0
  if not passed then
    retry_us = fits_in(hits, capacity, period, newest, total, older)
  end
  if total > 0 then
    empty_us = period - (now - newest)
  end
  if not (total >= 0 and total <= 2 * SATURATION and retry_us >= 0 and retry_us <= period) then
    return without_runs(slot, limit_number, kind, hits)
  end
  states[slot], spans[slot] = state, period - 1
  reply[replied + 1], reply[replied + 2], reply[replied + 3] = passed and total or -total - 1, retry_us, empty_us
  replied = replied + 3
  return settled, passed
end

local function fixed_window(slot, limit, kind, hits)
  limit = limits[limit]
  local capacity, period = limit[2], limit[3]
  local state = states[slot] or first_state(slot)
  local start, count = now - now % period, 0
  local counted = false
  if byte(state, 2) == FIXED_WINDOW then
    local written_start, written_count = unpack_at('<dd', state, 3)
    if written_start > start + period then
      written_start = start + period
      state, renewed[slot] = pack('<BBdd', VERSION, FIXED_WINDOW, written_start, written_count), true
    end
    if written_start >= start then
      start, count, counted = written_start, written_count, true
    end
  end

  local settled, passed, charged = state, true, true
  if kind == REFUND then
    count = max(count - hits, 0)
  else
    local count_after = min(count + hits, SATURATION)
    passed = count_after <= capacity
    charged = kind == TAKE and (passed or limit[1] == 1)
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
    renewed[slot] = renewed[slot] or not counted
  end
  states[slot], spans[slot] = state, period - 1
  reply[replied + 1], reply[replied + 2] = passed and count or -count - 1, period - (now - start)
  replied = replied + 2
  return settled, passed
end

local function blocked(_, _, kind)
  return EMPTY, kind == REFUND
end

local algorithms = { [0] = blocked, token_bucket, sliding_window, fixed_window, token_bucket }

-- Decides the claim of `algorithm` at `at`.
local function decide_claim(algorithm, at)
  return algorithms[algorithm](unpack_at(CLAIM[algorithm], args, at + 1))
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
    local algorithm, slot, limit, kind = unpack_at('<BHHB', args, at)
    local before = undo_group and (states[slot] or first_state(slot))
    local settled, passed = decide_claim(algorithm, at)
    part_passed = part_passed and passed
    local conditional = kind ~= REFUND and limits[limit][1] == 0
    if undo_group and slot > 0 and not undo_group[slot] then
      undo_group[slot] = commit == NEVER and before or settled
    end
    if undo_group and not conditional then
      unconditional[#unconditional + 1] = at
    end
    if undo and conditional and slot > 0 then
      undo[#undo + 1] = { slot, settled }
    end
    at = at + CLAIM_SIZE[algorithm]
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
      local answered = replied
      for i = 1, #unconditional do
        decide_claim(byte(args, unconditional[i]), unconditional[i])
      end
      -- What they say of a second charge is not asked for.
      for i = replied, answered + 1, -1 do
        reply[i] = nil
      end
      replied = answered
    end
  end
  return at
end

local at, last = 1, #args
while at <= last do
  local algorithm = byte(args, at) - SINGLE
  if algorithm >= 0 then
    algorithms[algorithm](unpack_at(CLAIM[algorithm], args, at + 1))
    at = at + CLAIM_SIZE[algorithm]
  else
    at = decide_group(at)
  end
end

-- The last microsecond at which `state`, that of `slot`, counts.
local function counts_until(slot, state)
  local last = unpack_at('<d', state, 3) + (spans[slot] or 0)
  if #state == LEASED_BUCKET and byte(state, 2) == TOKEN_BUCKET then
    return max(last, leased_until(state))
  end
  return last
end

local emptied = {}
for slot = 1, #keys do
  local state = states[slot]
  local before = stored[slot] or EMPTY
  if state and state ~= before then
    if state == EMPTY then
      emptied[#emptied + 1] = keys[slot]
    elseif #state >= #before and before ~= EMPTY and not renewed[slot] then
      call('SETRANGE', keys[slot], '0', state)
    else
      local last = counts_until(slot, state)
      local expiry = last - last % EXPIRY_STEP + EXPIRY_STEP
      call('PSETEX', keys[slot], format('%d', (expiry - now) / 1000 + 2 + keep_ms), state)
    end
  end
end
for i = 1, #emptied do
  call('DEL', emptied[i])
end
reply[1] = unreadable
return reply
