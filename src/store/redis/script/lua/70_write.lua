-- Writes the states that changed, and returns the reply.
--
--   input       index  unit   meaning
--   stored      slot          state before the frame
--   states      slot          state after it
--   tails       slot   us     time that a state counts after its first number
--   renewed     slot          true: the key needs a new expiry
--   live        slot          not nil: states[slot] has the holds to add
--   unreadable         count  first integer of the reply; the second is now
--
-- Atomicity: each key is written at most once, after every decision. PSETEX comes before DEL, so that a server without
-- memory refuses the frame before anything of it is written.
-- Expiry: the time at which the state counts as empty, rounded up to a multiple of EXPIRY_STEP_US, and two to three
-- milliseconds. A key in use keeps its expiry within a step, and SETRANGE, which keeps it, costs half of PSETEX.

-- The last microsecond at which `state` counts.
local function counts_until(slot, state)
  local last_us = unpack_at('<d', state, BODY) + (tails[slot] or 0)
  if #state == BUCKET_SIZE + LEASES_SIZE and byte(state, 2) == TOKEN_BUCKET then
    return max(last_us, leased_until(state)) --@expiry-after-leases
  end
  return last_us
end

local emptied = {}
for slot = 1, #keys do
  local state = states[slot]
  local before = stored[slot] or EMPTY
  if state and state ~= before then --@changed
    if live and live[slot] then
      add_holds(slot, state)
    elseif state == EMPTY then
      emptied[#emptied + 1] = keys[slot]
    elseif #state >= #before and before ~= EMPTY and not renewed[slot] then --@overwrites
      call('SETRANGE', keys[slot], '0', state)
    else
      local last_us = counts_until(slot, state)
      local expiry_us = last_us - last_us % EXPIRY_STEP_US + EXPIRY_STEP_US --@expiry-rounds-up
      local ttl_ms = (expiry_us - now) / 1000 + 2 + keep_ms --@ttl
      call('PSETEX', keys[slot], format('%d', ttl_ms), state)
    end
  end
end
for i = 1, #emptied do
  call('DEL', emptied[i])
end
reply[1] = unreadable
return reply
