-- Decides the groups of the frame, one after the other. Twin: src/domain/group.rs.
--
--   input        meaning
--   args         groups of parts of claims
--   algorithms   by number: (fields of a claim) -> settled state, passed
--
--   output       meaning
--   states       states after the frame
--   reply        integers of all claims, in order
--
--   function              returns
--   leased_token_bucket   settled state, passed: a claim on a token bucket that asks for a lease
--   decide_claim          settled state, passed
--   decide_part           position after the part, true if it passed, its roles
--   decide_group          position after the group

-- One table for all claims of the frame: token_bucket keeps none of it.
local ask

local function leased_token_bucket(
  slot, limit_number, kind, cost, cost_rest,
  tokens, tokens_rest, most, most_rest, finished, finished_rest, finished_until, ttl
)
  ask = ask or { tokens = 0, tokens_rest = 0, most = 0, most_rest = 0, finished = 0, finished_rest = 0 }
  ask.tokens, ask.tokens_rest, ask.most, ask.most_rest = tokens, tokens_rest, most, most_rest
  ask.finished, ask.finished_rest, ask.finished_until, ask.ttl = finished, finished_rest, finished_until, ttl
  return token_bucket(slot, limit_number, kind, cost, cost_rest, nil, ask)
end

local function blocked(_, _, kind)
  return EMPTY, kind == REFUND
end

-- By algorithm number, from BLOCKED to LEASED_TOKEN_BUCKET.
local algorithms =
  { [0] = blocked, token_bucket, sliding_window, fixed_window, fixed_window, concurrency, leased_token_bucket }

local function decide_claim(algorithm, at)
  return algorithms[algorithm](unpack_at(CLAIM[algorithm], args, at + 1))
end

-- Where given, `group_undo` collects by slot the state to which an undone group returns: settled, or as before where
-- nothing may remain. `unconditional` collects the positions of claims that no verdict undoes.
local function decide_part(at, commit, group_undo, unconditional)
  local roles, claims
  roles, claims, at = unpack_at(PART, args, at)
  local part_passed = true
  local part_undo = claims > 1 and {} or nil
  for _ = 1, claims do
    local algorithm, slot, limit, kind = unpack_at(CLAIM_HEAD, args, at)
    local before = group_undo and (states[slot] or first_state(slot))
    local settled, passed = decide_claim(algorithm, at)
    part_passed = part_passed and passed
    local conditional = kind < REFUND and limits[limit][ALWAYS] == 0 --@conditional
    if group_undo and slot > 0 and not group_undo[slot] then --@first-touch
      group_undo[slot] = commit == NEVER and before or settled --@trial-settles
    end
    if group_undo and not conditional then
      unconditional[#unconditional + 1] = at
    end
    if part_undo and conditional and slot > 0 then
      part_undo[#part_undo + 1] = { slot, settled }
    end
    at = at + CLAIM_SIZE[algorithm]
  end
  if part_undo and not part_passed then
    for i = #part_undo, 1, -1 do --@part-undo
      states[part_undo[i][1]] = part_undo[i][2]
    end
  end
  return at, part_passed, roles
end

local function decide_group(at)
  local commit, parts
  commit, parts, at = unpack_at(GROUP, args, at)
  -- A single part that fails has undone itself.
  local group_undo = (parts > 1 or commit == NEVER) and {} or nil
  local unconditional = group_undo and {} or nil
  local denied, quotas, quotas_left = false, false, false
  for _ = 1, parts do
    local passed, roles
    at, passed, roles = decide_part(at, commit, group_undo, unconditional)
    local harmless = passed or roles >= SHADOW --@shadow
    if roles % 2 == QUOTA then
      quotas = true
      quotas_left = quotas_left or harmless --@quotas-left
    elseif not harmless then
      denied = true
    end
  end
  denied = denied or (quotas and not quotas_left) --@quotas

  local undo = commit == NEVER or (commit ~= EACH and denied) --@undo
  if undo and group_undo then
    for slot, state in pairs(group_undo) do
      states[slot] = state
    end
    if commit ~= NEVER then
      local answered = replied
      for i = 1, #unconditional do --@unconditional
        decide_claim(byte(args, unconditional[i]), unconditional[i])
      end
      -- The reply has the integers of the first decision.
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
