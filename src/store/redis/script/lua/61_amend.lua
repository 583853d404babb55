-- Amendments of counters of rates. Twin: Counter::amend in src/domain/counter.rs.
--
--   argument  meaning
--   slot      index in KEYS
--   limit     index in limits
--   change    of CHANGES in the layout
--   cost      span of the hits of a bucket
--   hits      hits of a window
--   at        us: time of the charge (GIVE_BACK, RETURN); age of the newest hit, or end of the fixed window (TELL,
--             TELL_BOOKED)
--
--   function      returns
--   decided       the first two integers of the answer to a claim, which is not part of the reply
--   charge      the same of a charge that goes into debt
--   amend_bucket, amend_log, amend_count   what was given back or charged

-- The first integer says "failed" as -x - 1.
local function decided(algorithm, ...)
  local before = replied
  algorithm(...)
  local first, second = reply[before + 1], reply[before + 2]
  for i = replied, before + 1, -1 do
    reply[i] = nil
  end
  replied = before
  return first < 0 and -first - 1 or first, second
end

-- The limit charges what does not fit either, until its debt is as large as may be.
local function charge(algorithm, slot, limit_number, ...)
  local limit = limits[limit_number]
  local always = limit[ALWAYS]
  limit[ALWAYS] = 1
  local first, second = decided(algorithm, slot, limit_number, TAKE, ...)
  limit[ALWAYS] = always
  return first, second
end

local function is_plain(state, rate)
  local _, _, _, _, written_rate = unpack_at(BUCKET, state)
  return #state == BUCKET_SIZE and written_rate == rate --@plain
end

-- Given back is at most what cannot have refilled since the charge.
local function amend_bucket(slot, limit_number, change, cost, cost_rest, at)
  local limit = limits[limit_number]
  local rate = limit[BUCKET_RATE]
  local lag, rest = decided(token_bucket, slot, limit_number, PEEK, 0, 0)
  local kind = TAKE
  if change == GIVE_BACK then
    local unused = lag == 0 and rest == 0
    if unused or at > now or not is_plain(states[slot], rate) then --@charge-ahead
      return 0
    end
    kind = REFUND
    cost, cost_rest = minus(cost, cost_rest, now - at, 0, rate) --@age
  elseif change == RETURN then
    if lag == 0 and rest == 0 then
      return 0
    end
    kind = REFUND --@returned
  elseif change == CHARGE then
    if cost == 0 and cost_rest == 0 or not exceeds(limit[BUCKET_CEILING], limit[BUCKET_CEILING_REST], lag, rest) then
      return 0
    end
    local lag_after, rest_after = charge(token_bucket, slot, limit_number, cost, cost_rest) --@charged-to-debt
    return (minus(lag_after, rest_after, lag, rest, rate))
  elseif change == TELL_BOOKED then
    kind = BOOK --@told-to-debt
  else
    local most, most_rest = limit[BUCKET_CEILING], limit[BUCKET_CEILING_REST]
    if limit[ALWAYS] == 0 then --@told-to-full
      most, most_rest = limit[BUCKET_FULL], limit[BUCKET_FULL_REST]
    end
    local room, room_rest = minus(most, most_rest, lag, rest, rate)
    if exceeds(cost, cost_rest, room, room_rest) then --@told-to-ceiling
      cost, cost_rest = room, room_rest
    end
  end
  if cost == 0 and cost_rest == 0 then
    return 0
  end
  local lag_after, rest_after = decided(token_bucket, slot, limit_number, kind, cost, cost_rest)
  local given = minus(lag, rest, lag_after, rest_after, rate)
  local charged = minus(lag_after, rest_after, lag, rest, rate)
  return max(given, charged)
end

local function pack_runs(runs)
  local newest = runs[#runs]
  local total, packed = newest[2], {}
  for i = 1, #runs - 1 do
    total, packed[i] = total + runs[i][2], pack(RUN, runs[i][1], runs[i][2])
  end
  return pack(SLIDING, WINDOW_VERSION, SLIDING_WINDOW, newest[1], newest[2], total) .. table.concat(packed)
end

-- The runs of `state` that still count, oldest first; of a damaged state no others than a decision leaves behind. An
-- amount below zero, or a state that expires in the past, would fail the whole call. -> runs, their hits
local function unpack_runs(state, period)
  local runs, total = {}, 0
  if byte(state, 2) ~= SLIDING_WINDOW then
    return runs, total
  end
  local function add(time, hits)
    if hits > 0 and time <= now and time + period > now then
      runs[#runs + 1], total = { time, hits }, total + hits
    end
  end
  local newest, hits, _, older = runs_in_window(state, period, unpack_at(SLIDING_BODY, state, BODY))
  for run = 1, #older, RUN_SIZE do
    add(unpack_at(RUN, older, run))
  end
  add(newest, hits)
  return runs, total
end

-- Gives back hits of the oldest run that can hold those of the charge, then of newer ones. -> hits, runs left
local function give_back_runs(runs, hits, charged_at)
  local left, given = {}, 0
  for i = 1, #runs do
    local time, count = runs[i][1], runs[i][2]
    if time >= charged_at then --@run-of-charge
      local back = min(count, hits - given)
      given, count = given + back, count - back
    end
    if count > 0 then
      left[#left + 1] = { time, count }
    end
  end
  return given, left
end

-- Charges hits to the oldest run that leaves the window no earlier than they do.
local function tell_runs(runs, hits, at, limit)
  for i = 1, #runs do
    if runs[i][1] >= at then --@run-of-telling
      runs[i][2] = runs[i][2] + hits
      return
    end
  end
  local last, width = runs[#runs], limit[SLIDING_RUN_WIDTH]
  local full = #runs > limit[SLIDING_SLOTS] --@told-slots
  if last and (full or last[1] - last[1] % width == at - at % width) then --@told-cell
    last[1], last[2] = at, last[2] + hits
  else
    runs[#runs + 1] = { at, hits }
  end
end

local function amend_log(slot, limit_number, change, hits, at)
  local limit = limits[limit_number]
  local period = limit[SLIDING_PERIOD]
  decided(sliding_window, slot, limit_number, PEEK, 1)
  local runs, total = unpack_runs(states[slot], period)
  if change == CHARGE then
    hits = max(min(hits, SATURATION - total), 0) --@charged-runs
    if hits > 0 then
      charge(sliding_window, slot, limit_number, hits)
    end
    return hits
  end
  local gives_back = change == GIVE_BACK or change == RETURN
  if not gives_back then
    local capacity = limit[SLIDING_CAPACITY]
    local most = change == TELL_BOOKED and capacity + max(hits, capacity) or capacity --@told-runs-to-debt
    at = max(now - at, 0) --@told-age
    hits = min(hits, max(min(most, SATURATION) - total, 0)) --@told-to-capacity
  end
  if at + period <= now then --@charge-in-window
    return 0
  end
  if gives_back then
    hits, runs = give_back_runs(runs, hits, at)
  elseif hits > 0 then
    tell_runs(runs, hits, at, limit)
  end
  if hits > 0 then
    states[slot] = #runs > 0 and pack_runs(runs) or EMPTY
    renewed[slot] = true --@amended-runs-expiry
  end
  return hits
end

-- Only the window that now is in changes: another one counts other hits.
local function amend_count(slot, limit_number, change, hits, at)
  local limit = limits[limit_number]
  local period = limit[FIXED_PERIOD]
  local count, ends_in = decided(fixed_window, slot, limit_number, PEEK, 1)
  local start, kind = limit[WINDOW_START] or now - now % period, REFUND
  if change == CHARGE then
    hits = max(min(hits, SATURATION - count), 0)
    if hits > 0 then
      charge(fixed_window, slot, limit_number, hits) --@charged-count
    end
    return hits
  end
  if ends_in > start + period - now then --@amended-window-ahead
    return 0
  end
  if change == GIVE_BACK or change == RETURN then
    if at > now or at < start then --@window-of-charge
      return 0
    end
    hits = min(hits, count)
  else
    if at ~= start + period then --@window-of-telling
      return 0
    end
    local most = change == TELL_BOOKED and SATURATION or limit[FIXED_CAPACITY] --@told-count-to-debt
    hits = min(hits, max(most - count, 0)) --@told-to-count
    kind = BOOK
  end
  if hits > 0 then
    decided(fixed_window, slot, limit_number, kind, hits)
  end
  return hits
end
