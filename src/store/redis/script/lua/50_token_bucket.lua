-- Token bucket: one claim, with or without a lease. Twin: src/domain/token_bucket.rs.
--
--   input       unit   meaning
--   slot               index in KEYS
--   limit              index in limits
--   kind               TAKE, PEEK, REFUND or BOOK
--   cost        span   time in which the hits refill
--   ask                lease to grant; nil: none
--
--   returns     meaning
--   settled     state as it was, but pulled back if it lies further ahead than it could be written now. A denial
--               keeps it
--   passed      true if the hits fit
--
-- Also sets states[slot] and renewed[slot], and appends the integers of the reply. lag is the time until the bucket is
-- full, a span.

-- The furthest ahead of now, at `written_rate`, that another limit, of `reach` and of this period, writes; rounded up.
local function furthest(limit, reach, written_rate)
  if reach == UNBOUNDED then
    return SATURATION
  end
  local lag = reach * limit[BUCKET_PERIOD] / written_rate * (1 + 2 ^ -50)
  return min(floor(lag) + 1, SATURATION) --@reach-rounds-up
end

local function pack_bucket(lag, rest, rate, reach, leases)
  local state = pack(BUCKET, BUCKET_VERSION, TOKEN_BUCKET, now + lag, rest, rate, reach)
  if leases and (leases.early > 0 or leases.early_rest > 0 or leases.late > 0 or leases.late_rest > 0) then
    local early_until, late_until = leases.early_until, leases.late_until
    return state
      .. pack(LEASES, early_until, leases.early, leases.early_rest, late_until, leases.late, leases.late_rest)
  end
  return state
end

-- The sixth argument is the position after the claim, which struct.unpack appends.
local function token_bucket(slot, limit_number, kind, cost, cost_rest, _, ask)
  local limit = limits[limit_number]
  local rate, full, full_rest = limit[BUCKET_RATE], limit[BUCKET_FULL], limit[BUCKET_FULL_REST]
  local ceiling, ceiling_rest = limit[BUCKET_CEILING], limit[BUCKET_CEILING_REST]
  local reach = limit[BUCKET_REACH]
  local state = states[slot] or stored[slot]
  local lag, rest = 0, 0
  local version, algorithm, full_at, written_rest, written_rate, written_reach, leases
  if state and #state == BUCKET_SIZE then
    version, algorithm, full_at, written_rest, written_rate, written_reach = unpack_at(BUCKET, state)
  end
  if algorithm ~= TOKEN_BUCKET or version ~= BUCKET_VERSION
    or not (full_at >= 0 and full_at <= 2 * SATURATION) or written_rest >= written_rate
  then
    -- No state, one with leases, one of format 1 or of another algorithm, or an unreadable one.
    state, full_at, written_reach = states[slot] or first_state(slot), nil, reach
    if #state >= BUCKET_SIZE and byte(state, 2) == TOKEN_BUCKET then
      full_at, written_rest, written_rate, written_reach = unpack_at(BUCKET_BODY, state, BODY)
    end
  end
  if full_at then
    local pulled_back, beyond
    if full_at >= now then --@full-now
      lag, rest = full_at - now, written_rest
      -- Pulled back if it lies further ahead than it could have been written: the clock has stepped back since.
      local furthest_us, furthest_rest = ceiling, ceiling_rest
      if written_reach ~= reach or written_rate ~= rate or reach == UNBOUNDED then --@furthest
        furthest_us, furthest_rest = furthest(limit, written_reach, written_rate), 0
      end
      if lag > furthest_us or (lag == furthest_us and rest > furthest_rest) then --@pulled-back
        pulled_back, lag, rest = true, furthest_us, furthest_rest
      end
    end
    if #state > BUCKET_SIZE then
      leases, beyond = leases_of(state)
    end
    if pulled_back then
      state, renewed[slot] = pack_bucket(lag, rest, written_rate, written_reach, leases), true --@pulled-back-expiry
    elseif beyond then
      state, renewed[slot] = pack_bucket(full_at - now, written_rest, written_rate, written_reach, leases), true
    end
    if leases then
      lag, rest = expire(leases, lag, rest, written_rate) --@expiry-at-written-rate
      leases.early, leases.early_rest = leased_tokens(leases.early, leases.early_rest, written_rate, rate)
      leases.late, leases.late_rest = leased_tokens(leases.late, leases.late_rest, written_rate, rate)
    end
    if rate ~= written_rate and (full_at >= now or lag > 0 or rest > 0) then --@new-rate
      lag, rest = at_new_rate(lag, rest, written_rate, rate), 0
    end
  end

  -- A larger limit has used more than this one can hold: nothing fits, and debt grows no further.
  local over_ceiling = lag > ceiling or (lag == ceiling and rest > ceiling_rest)
  local settled, passed, charged, until_us = state, true, true, 0
  if kind > PEEK then
    if kind == BOOK then
      local lag_after, rest_after = plus(lag, rest, cost, cost_rest, rate)
      passed = not exceeds(lag_after, rest_after, full, full_rest) --@booked-fits
      -- Debt is at most one capacity, or the hits themselves if they are more, within the ceiling. A larger one stays.
      if exceeds(full, full_rest, cost, cost_rest) then --@booked-cost
        cost, cost_rest = full, full_rest
      end
      local most, most_rest = plus(full, full_rest, cost, cost_rest, rate)
      if exceeds(most, most_rest, ceiling, ceiling_rest) then --@booked-ceiling
        most, most_rest = ceiling, ceiling_rest
      end
      if exceeds(lag_after, rest_after, most, most_rest) then --@booked-bound
        lag_after, rest_after = most, most_rest
      end
      charged = exceeds(lag_after, rest_after, lag, rest) --@booked-larger-debt
      if charged then
        lag, rest = lag_after, rest_after
      end
    else
      lag, rest = minus(lag, rest, cost, cost_rest, rate)
    end
    if over_ceiling and exceeds(lag, rest, ceiling, ceiling_rest) then
      reach = written_reach --@reach-kept
    end
  elseif over_ceiling then
    passed, charged = false, false --@larger-debt
  else
    -- plus, without the call.
    local lag_after, rest_after = lag + cost, rest + cost_rest
    if rest_after >= rate then
      lag_after, rest_after = lag_after + 1, rest_after - rate --@carry
    end
    passed = lag_after < full or (lag_after == full and rest_after <= full_rest) --@fits
    charged = kind == TAKE and (passed or limit[ALWAYS] == 1)
    if charged then
      lag, rest = lag_after, rest_after
      if lag > ceiling or (lag == ceiling and rest > ceiling_rest) then --@debt-bound
        lag, rest = ceiling, ceiling_rest
      end
      if ask and passed then
        leases = leases or no_leases()
        lag, rest, until_us = lease(leases, ask, lag, rest, rate, full, full_rest)
      end
    end
  end

  if charged then
    local full_after = now + lag
    if leases then
      state = pack_bucket(lag, rest, rate, reach, leases)
    else
      state = pack(BUCKET, BUCKET_VERSION, TOKEN_BUCKET, full_after, rest, rate, reach)
    end
    if lag == 0 and rest == 0 and #state == BUCKET_SIZE then
      state = EMPTY
    end
    if not full_at or full_at - full_at % EXPIRY_STEP_US ~= full_after - full_after % EXPIRY_STEP_US then --@expiry-step
      renewed[slot] = true
    elseif leases then --@expiry-of-leases
      renewed[slot] = true
    end
  end
  states[slot] = state
  -- It decides, and reports, by at most its own ceiling.
  if over_ceiling and exceeds(lag, rest, ceiling, ceiling_rest) then --@own-ceiling
    lag, rest = ceiling, ceiling_rest
  end
  reply[replied + 1], reply[replied + 2] = passed and lag or -lag - 1, rest
  replied = replied + 2
  if ask then
    replied = replied + 1
    reply[replied] = until_us
  end
  return settled, passed
end
