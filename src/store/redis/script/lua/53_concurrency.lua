-- Concurrency: one claim. Twin: src/domain/concurrency.rs.
--
--   input   unit  meaning
--   slot          index in KEYS
--   limit         index in limits
--   kind          TAKE, PEEK or REFUND
--   id            id of the hold that is taken
--
--   returns  meaning
--   settled  state as it was
--   passed   true if a hold fits
--
-- The holds are a sorted set: the member is the id in decimal, its score the end of the hold in us. states[slot] has
-- what the frame adds: HELD for each. Also appends the integers of the reply.

-- A key of another type is damaged: it counts as empty, and the next write replaces it.
local function live_holds(slot)
  live = live or {}
  if not live[slot] then
    local count = redis.pcall('ZCOUNT', keys[slot], format('(%d', now), '+inf')
    if type(count) ~= 'number' then
      call('DEL', keys[slot])
      unreadable, count = unreadable + 1, 0
    end
    live[slot], stored[slot], states[slot] = count, EMPTY, EMPTY
  end
  return live[slot]
end

-- Time until the first hold ends, of those in the set and those that the frame adds.
local function first_end(slot, added)
  local first = call('ZRANGEBYSCORE', keys[slot], format('(%d', now), '+inf', 'WITHSCORES', 'LIMIT', '0', '1')
  local until_us = tonumber(first[2])
  for at = 1, #added, HELD_SIZE do
    until_us = min(until_us or 2 * SATURATION, (unpack_at(HELD, added, at)))
  end
  return until_us and until_us - now or 0
end

local function concurrency(slot, limit_number, kind, id)
  local limit = limits[limit_number]
  local held = live_holds(slot)
  local settled = states[slot]
  held = held + #settled / HELD_SIZE --@held-in-frame
  local passed = kind == REFUND or held < limit[CONCURRENCY_CAPACITY] --@free-slot
  if kind == TAKE and passed then
    states[slot] = settled .. pack(HELD, now + limit[CONCURRENCY_TTL], id)
    held = held + 1
  end
  reply[replied + 1] = passed and held or -held - 1
  reply[replied + 2] = passed and 0 or first_end(slot, settled)
  replied = replied + 2
  return settled, passed
end
