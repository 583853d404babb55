-- Fixed window: one claim. Twin: src/domain/fixed_window.rs.
--
--   input   unit  meaning
--   slot          index in KEYS
--   limit         index in limits
--   kind          TAKE, PEEK, REFUND or BOOK
--   hits    hits  hits that must fit, or those given back
--
--   returns  meaning
--   settled  state as it was, but pulled back if its window lies further ahead than the next one
--   passed   true if the hits fit
--
-- Also sets states[slot], tails[slot] and renewed[slot], and appends the integers of the reply. start is the begin of
-- the window in us, count its hits.

local function fixed_window(slot, limit_number, kind, hits)
  local limit = limits[limit_number]
  local capacity, period = limit[FIXED_CAPACITY], limit[FIXED_PERIOD]
  local state = states[slot] or stored[slot]
  local start, count = limit[WINDOW_START] or now - now % period, 0
  local counted = false
  local version, algorithm, written_start, written_count
  if state and #state == FIXED_SIZE then
    version, algorithm, written_start, written_count = unpack_at(FIXED, state)
  end
  if algorithm ~= FIXED_WINDOW or version ~= WINDOW_VERSION
    or not (written_start >= 0 and written_start <= 2 * SATURATION
      and written_count >= 0 and written_count <= 2 * SATURATION)
  then
    -- No state, one of another algorithm, or an unreadable one.
    state = states[slot] or first_state(slot)
  else
    if written_start > start then
      local stop = start + period
      if written_start > stop then --@window-ahead
        written_start = stop
        state = pack(FIXED, WINDOW_VERSION, FIXED_WINDOW, written_start, written_count)
        renewed[slot] = true --@pulled-window-expiry
      end
      start, count, counted = written_start, written_count, true
      if limit[NEXT_PERIOD] then
        -- A window ahead has a length of its own. One that begins between two edges ends with that of now.
        period = start == stop and limit[NEXT_PERIOD] or stop - start --@next-period
      end
    elseif written_start == start then --@this-window
      count, counted = written_count, true
    end
  end

  local settled, passed, charged = state, true, true
  if kind == REFUND then
    count = max(count - hits, 0)
  else
    local count_after = min(count + hits, SATURATION) --@bounded-count
    passed = count_after <= capacity
    charged = kind == TAKE and (passed or limit[ALWAYS] == 1) or kind == BOOK --@booked-count
    if charged then
      count = count_after
    end
  end

  if charged then
    if count == 0 then
      state = EMPTY
    else
      state = pack(FIXED, WINDOW_VERSION, FIXED_WINDOW, start, count)
    end
    renewed[slot] = renewed[slot] or not counted --@expiry-of-window
  end
  states[slot], tails[slot] = state, period - 1
  reply[replied + 1], reply[replied + 2] = passed and count or -count - 1, period - (now - start)
  replied = replied + 2
  return settled, passed
end
