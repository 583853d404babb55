-- Applies the amendments of the frame, one after the other, and settles holds. Twins: Counter::amend in
-- src/domain/counter.rs, and src/store/memory/settled.rs.
--
--   input     meaning
--   args      amendments and guards
--
--   output    meaning
--   states    states after the frame
--   reply     one integer per amendment: what was given back or charged, in us of a bucket, in hits of a window; 1 for
--             a hold that was live; the outcome of a guard
--
--   function        returns
--   release_oldest  1 if there was a hold; keeps its time in `oldest_at`
--   amend_slot      1 if the hold was live
--   depending       change, time and effect of an amendment that may depend on the oldest hold
--   settles         SETTLED, AGAIN or LATE

-- Of the settlement under way: the time of the charge of the oldest hold, which it has ended; false: there was none;
-- nil: none was to be ended.
local oldest_at

local function release_oldest(slot, limit)
  local key = keys[slot]
  local first = call('ZRANGEBYSCORE', key, format('(%d', now), '+inf', 'WITHSCORES', 'LIMIT', '0', '1') --@oldest-live
  oldest_at = false
  if not first[1] then
    return 0
  end
  call('ZREM', key, first[1]) --@oldest-once
  oldest_at = first[2] - limits[limit][CONCURRENCY_TTL] --@oldest-charge
  return 1
end

-- At once, and not with the states: no other amendment of the frame depends on it.
local function amend_slot(slot, limit, change, id, until_us)
  if change == RELEASE_OLDEST then
    return release_oldest(slot, limit)
  end
  local key = keys[slot]
  local member = format('%d', id)
  local ends_at = tonumber(call('ZSCORE', key, member) or 0)
  if change == RELEASE then
    call('ZREM', key, member)
  elseif change == RENEW and ends_at > now then --@renews-live
    until_us = max(until_us, ends_at) --@renews-longer
    call('ZADD', key, format('%d', until_us), member)
    keep_set(key, until_us)
  end
  return ends_at > now and 1 or 0 --@was-live
end

-- SADD is the first write of a settlement: a server without memory refuses it, and it is settled later.
local function settles(slot, id, expires_at, kept_until)
  local key = keys[slot]
  if now >= expires_at then --@settled-in-time
    return LATE
  elseif call('SADD', key, format('%d', id)) == 0 then --@settled-once
    return AGAIN
  end
  if call('SCARD', key) == 1 then --@expiry-of-settled
    call('PEXPIRE', key, format('%d', max((kept_until - now) / 1000, 0) + 2 + keep_ms))
  end
  return SETTLED
end

-- A change that depends on the oldest hold as the one that it is. -> change, time, effect
local function depending(change, at, applies)
  if change == RETURN_OLDEST then
    return RETURN, oldest_at or 0, applies and oldest_at --@returns-oldest
  elseif change == CHARGE_WITHOUT_OLDEST then
    return CHARGE, at, applies and oldest_at == false --@charges-without-oldest
  end
  return change, at, applies
end

-- Amendments that are left out because their guard does not let them take effect.
local left_out = 0

local position, last = 1, #args
while position <= last do
  local algorithm, slot, limit, change, at
  algorithm, slot, limit, change, position = unpack_at(AMENDMENT, args, position)
  local applies = left_out == 0
  left_out = max(left_out - 1, 0)
  local amount = 0
  if algorithm == GUARD then
    local id, expires_at, kept_until
    id, expires_at, kept_until, position = unpack_at(GUARD_BODY, args, position)
    amount = settles(slot, id, expires_at, kept_until)
    oldest_at = nil --@oldest-of-settlement
    left_out = amount == SETTLED and 0 or limit --@guarded
  elseif algorithm == TOKEN_BUCKET then
    local cost, cost_rest
    cost, cost_rest, at, position = unpack_at(AMENDED_BUCKET, args, position)
    change, at, applies = depending(change, at, applies)
    amount = applies and amend_bucket(slot, limit, change, cost, cost_rest, at) or 0
  elseif algorithm == CONCURRENCY then
    local id
    id, at, position = unpack_at(AMENDED_SLOT, args, position)
    amount = applies and amend_slot(slot, limit, change, id, at) or 0
  elseif algorithm ~= BLOCKED then
    local hits
    hits, at, position = unpack_at(AMENDED_WINDOW, args, position)
    change, at, applies = depending(change, at, applies)
    local amend = algorithm == SLIDING_WINDOW and amend_log or amend_count
    amount = applies and amend(slot, limit, change, hits, at) or 0
  end
  replied = replied + 1
  reply[replied] = amount
end
