-- Leases of a token bucket: tokens that replicas hold. Twin: src/domain/lease.rs.
--
--   leases       unit  meaning
--   early_until  us    expiry of the earlier slot, since 1970
--   early        span  its tokens: early and early_rest
--   late_until   us    expiry of the later slot, since 1970
--   late         span  its tokens: late and late_rest
--
--   ask             unit  meaning
--   tokens          span  tokens to lease; 0: none
--   most            span  most tokens that may be outstanding
--   finished        span  tokens of a lease that has ended
--   finished_until  us    expiry of that lease; 0: none
--   ttl             us    time to live
--
--   function       returns
--   leases_of      leases of a state, true if they lay too far ahead and were pulled back
--   no_leases      leases without tokens
--   outstanding    span of all tokens outstanding
--   expire         lag and rest of the bucket after its leases have expired
--   leased_tokens  span of leased tokens at the rate of the claim
--   leased_until   us: the time at which all tokens outstanding have expired and refilled
--   lease          lag and rest after the ask, expiry of the granted lease in us (0: none)

-- The rate is the one at which the state was written. A lease that lies further ahead than it could be written now was
-- written before the clock stepped back.
local function leases_of(state)
  local early_until, early, early_rest, late_until, late, late_rest = unpack_at(LEASES, state, BUCKET_SIZE + 1)
  local latest = now + MAX_LEASE_US
  local leases = {
    early_until = min(early_until, latest), early = early, early_rest = early_rest,
    late_until = min(late_until, latest), late = late, late_rest = late_rest,
  }
  return leases, late_until > latest --@lease-beyond-clock
end

local function no_leases()
  return { early_until = 0, early = 0, early_rest = 0, late_until = 0, late = 0, late_rest = 0 }
end

local function outstanding(leases, rate)
  return plus(leases.early, leases.early_rest, leases.late, leases.late_rest, rate)
end

-- A bucket is full no earlier than the tokens outstanding refill: those at each expiry, and those now.
local function expire(leases, lag, rest, rate)
  if (leases.early > 0 or leases.early_rest > 0) and leases.early_until <= now then --@early-expiry
    local total, total_rest = outstanding(leases, rate)
    total = total + leases.early_until - now
    if total >= 0 and exceeds(total, total_rest, lag, rest) then --@early-floor
      lag, rest = total, total_rest
    end
    leases.early_until, leases.early, leases.early_rest = 0, 0, 0
  end
  if (leases.late > 0 or leases.late_rest > 0) and leases.late_until <= now then --@late-expiry
    local total, total_rest = outstanding(leases, rate)
    total = total + leases.late_until - now
    if total >= 0 and exceeds(total, total_rest, lag, rest) then --@late-floor
      lag, rest = total, total_rest
    end
    leases.late_until, leases.late, leases.late_rest = 0, 0, 0
  end
  local total, total_rest = outstanding(leases, rate)
  if exceeds(total, total_rest, lag, rest) then --@floor-now
    lag, rest = total, total_rest
  end
  return lag, rest
end

local function leased_tokens(span, rest, written_rate, rate)
  if written_rate ~= rate and (span > 0 or rest > 0) then --@leases-at-new-rate
    return at_new_rate(span, rest, written_rate, rate), 0
  end
  return span, rest
end

local function leased_until(state)
  local _, _, _, _, rate = unpack_at(BUCKET, state)
  local early_until, early, early_rest, late_until, late, late_rest = unpack_at(LEASES, state, BUCKET_SIZE + 1)
  return max(early_until + plus(early, early_rest, late, late_rest, rate), late_until + late)
end

-- Forgets a finished lease, and grants another if it fits.
local function lease(leases, ask, lag, rest, rate, full, full_rest)
  local until_us = ask.finished_until
  if until_us > 0 and until_us == leases.early_until then
    leases.early, leases.early_rest = minus(leases.early, leases.early_rest, ask.finished, ask.finished_rest, rate)
  elseif until_us > 0 and until_us == leases.late_until then --@finished-late
    leases.late, leases.late_rest = minus(leases.late, leases.late_rest, ask.finished, ask.finished_rest, rate)
  end
  local tokens, tokens_rest = ask.tokens, ask.tokens_rest
  if tokens == 0 and tokens_rest == 0 then
    return lag, rest, 0
  end
  local charged, charged_rest = plus(lag, rest, tokens, tokens_rest, rate)
  local total, total_rest = outstanding(leases, rate)
  local after, after_rest = plus(total, total_rest, tokens, tokens_rest, rate)
  if exceeds(charged, charged_rest, full, full_rest) then --@lease-within-bucket
    return lag, rest, 0
  elseif exceeds(after, after_rest, ask.most, ask.most_rest) then --@most-outstanding
    return lag, rest, 0
  end
  until_us = max(now - now % ask.ttl + 2 * ask.ttl, leases.late_until) --@lease-expiry
  if until_us == leases.late_until then
    leases.late, leases.late_rest = plus(leases.late, leases.late_rest, tokens, tokens_rest, rate)
  else
    leases.early_until, leases.early, leases.early_rest = leases.late_until, total, total_rest
    leases.late_until, leases.late, leases.late_rest = until_us, tokens, tokens_rest
  end
  return charged, charged_rest, until_us --@lease-charged
end
