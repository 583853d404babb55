-- Sliding window: one claim. Twin: src/domain/sliding_window.rs.
--
--   input   unit  meaning
--   slot          index in KEYS
--   limit         index in limits
--   kind          TAKE, PEEK, REFUND or BOOK
--   hits    hits  hits that must fit, or those given back
--
--   returns  meaning
--   settled  state as it was, but pulled back if it lies ahead of now
--   passed   true if the hits fit
--
-- Also sets states[slot], tails[slot] and renewed[slot], and appends the integers of the reply. newest is the time of
-- the newest hit in us, total the hits in all runs, older the other runs packed, oldest first.

-- A run that no window reaches back to. Padding of such runs keeps the length of a state, for SETRANGE.
local NO_RUN = pack(RUN, -2 * SATURATION, 0) --@no-run
local FIRST_RUN = SLIDING_SIZE + 1

-- The runs keep their distances and the newest counts as of now.
local function pull_runs_back(state, newest, hits, total)
  local moved = { pack(SLIDING, WINDOW_VERSION, SLIDING_WINDOW, now, hits, total) }
  for run = FIRST_RUN, #state, RUN_SIZE do
    local time, count = unpack_at(RUN, state, run)
    if count > 0 then --@padding-dropped
      moved[#moved + 1] = pack(RUN, max(time - (newest - now), 0), count) --@distances
    end
  end
  return table.concat(moved)
end

-- The runs that still count. -> newest, its hits, total, older
local function runs_in_window(state, period, newest, hits, total)
  if newest + period <= now then --@window-end
    return 0, 0, 0, EMPTY
  end
  local first = FIRST_RUN
  while first < #state do
    local time, count = unpack_at(RUN, state, first)
    if time + period > now then --@run-end
      break
    end
    total = total - count
    first = first + RUN_SIZE
  end
  return newest, hits, total, sub(state, first)
end

-- Gives `given` hits back, the oldest first. -> hits of the newest run, older
local function refund_runs(hits, older, given)
  local first = 1
  while given > 0 and first < #older do
    local time, count = unpack_at(RUN, older, first)
    first = first + RUN_SIZE
    if count > given then
      return hits, pack(RUN, time, count - given) .. sub(older, first) --@run-refund
    end
    given = given - count
  end
  return max(hits - given, 0), sub(older, first) --@newest-refund
end

-- The time in us until `hits` more fit; 0 if never.
local function fits_in(hits, capacity, period, newest, total, older)
  local left = total
  for run = 1, #older, RUN_SIZE do
    local time, count = unpack_at(RUN, older, run)
    left = left - count
    if left + hits <= capacity then --@fits-after-run
      return period - (now - time)
    end
  end
  if total > 0 and hits <= capacity then
    return period - (now - newest)
  end
  return 0
end

local sliding_window

-- Decides again, from nothing, a claim on runs that no window can hold.
local function without_runs(slot, limit_number, kind, hits)
  drop_unreadable(slot)
  return sliding_window(slot, limit_number, kind, hits)
end

sliding_window = function(slot, limit_number, kind, hits)
  local limit = limits[limit_number]
  local capacity, period = limit[SLIDING_CAPACITY], limit[SLIDING_PERIOD]
  local width, slots = limit[SLIDING_RUN_WIDTH], limit[SLIDING_SLOTS]
  local state = states[slot] or stored[slot]
  local newest, newest_hits, total, older = 0, 0, 0, EMPTY
  local version, algorithm
  if state and #state >= SLIDING_SIZE and (#state - SLIDING_SIZE) % RUN_SIZE == 0 then
    version, algorithm, newest, newest_hits, total = unpack_at(SLIDING, state)
  end
  if algorithm ~= SLIDING_WINDOW or version ~= WINDOW_VERSION
    or not (newest >= 0 and newest <= 2 * SATURATION and newest_hits >= 0 and newest_hits <= 2 * SATURATION
      and total >= 0 and total <= 2 * SATURATION)
  then
    -- No state, one of another algorithm, or an unreadable one.
    state, algorithm = states[slot] or first_state(slot), nil
    newest, newest_hits, total = 0, 0, 0
  end
  if algorithm then
    if newest > now then
      state, renewed[slot] = pull_runs_back(state, newest, newest_hits, total), true --@pulled-runs-expiry
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
    if passed then
      charged = kind ~= PEEK
    elseif kind == BOOK then
      total_after = min(total_after, capacity + max(hits, capacity)) --@booked-runs-bound
    else
      charged = kind == TAKE and limit[ALWAYS] == 1
    end
    charged = charged and total_after > total
    if charged then
      local full = #older / RUN_SIZE + 1 > slots --@slots
      local same_cell = newest - newest % width == now - now % width
      if total > 0 and (full or same_cell) then --@same-cell
        newest_hits = newest_hits + total_after - total
      else
        if total > 0 then
          older = older .. pack(RUN, newest, newest_hits)
        end
        newest_hits = total_after - total
      end
      newest, total = now, total_after --@joined-run
    end
  end

  if charged then
    local last_after = newest + period - 1
    if last - last % EXPIRY_STEP_US ~= last_after - last_after % EXPIRY_STEP_US then --@expiry-of-runs
      renewed[slot] = true
    end
    if total == 0 then
      state = EMPTY
    else
      local padding = EMPTY
      local expired = (#state - SLIDING_SIZE - #older) / RUN_SIZE
      if expired > 0 and expired <= MAX_PADDING and not renewed[slot] then
        padding = rep(NO_RUN, expired)
      end
      state = pack(SLIDING, WINDOW_VERSION, SLIDING_WINDOW, newest, newest_hits, total) .. padding .. older
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
  states[slot], tails[slot] = state, period - 1
  reply[replied + 1], reply[replied + 2], reply[replied + 3] = passed and total or -total - 1, retry_us, empty_us
  replied = replied + 3
  return settled, passed
end
