-- Holds on concurrency limits: the sets in which they are kept.
--
--   function   effect
--   keep_set   keeps a set at least until a time
--   add_holds  adds what a frame has taken to a set

-- A hold in states[slot]: its end in us, and its id.
local HELD, HELD_SIZE = '<dd', 16

-- By slot: holds of the set that count; nil: not asked. False until the first claim on a concurrency limit.
local live = false

-- Rarely sets the expiry.
local function keep_set(key, until_us)
  local least_ms = (until_us - now) / 1000 + 2 + keep_ms
  if call('PTTL', key) < least_ms then --@kept-long-enough
    call('PEXPIRE', key, format('%d', least_ms + EXPIRY_STEP_US / 1000))
  end
end

-- ZADD comes first: a server without memory refuses it, and then nothing has been written.
local function add_holds(slot, added)
  local key, last_us = keys[slot], 0
  for at = 1, #added, HELD_SIZE do
    local until_us, id = unpack_at(HELD, added, at)
    call('ZADD', key, format('%d', until_us), format('%d', id))
    last_us = max(last_us, until_us)
  end
  if call('ZCARD', key) > live[slot] + #added / HELD_SIZE then --@ended-holds
    call('ZREMRANGEBYSCORE', key, '-inf', format('%d', now))
  end
  keep_set(key, last_us)
end
