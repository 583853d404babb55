-- Short way: decides a frame that is one claim to take, before the other parts make their functions and tables, which
-- take longer than the decision. Twins: src/domain/token_bucket.rs, sliding_window.rs and fixed_window.rs, as those of
-- the parts 50 to 52, which give the same reply and leave the same state.
--
-- All that is rare goes on to the other parts: refunds and peeks, leases, limits that always charge, claims of no hits,
-- states of another rate, reach, format or algorithm, unreadable ones, and those that the clock has to pull back.
--
--   variable   unit   meaning
--   raw               state as read; false: no key
--   answer            reply; nil: the other parts decide
--   state             state to write; nil: it stays
--   last_us    us     last microsecond at which it counts
--   renewed           true: the key needs a new expiry

-- Two claims, or a claim in a group with parts, are longer; a claim behind an empty group is not.
if #ARGV[1] <= LONGEST_SINGLE and #KEYS == 1
  and string.byte(ARGV[1]) > SINGLE --@short-first
  and string.byte(ARGV[1], 6) == TAKE --@short-kind
  and string.byte(ARGV[2], 2) == 0 --@short-always
then
  local claim, limit, call, unpack_at, pack = ARGV[1], ARGV[2], redis.call, struct.unpack, struct.pack
  local algorithm = string.byte(limit, 1)
  local raw = call('GET', KEYS[1])
  local answer, state, last_us, renewed

  if algorithm == TOKEN_BUCKET then
    local cost, cost_rest = unpack_at(SINGLE_COST, claim, SINGLE_BODY)
    local _, _, rate, full, full_rest, _, _, reach = unpack_at(BUCKET_LIMIT, limit)
    local lag, rest, usual, full_at = 0, 0, not raw, -1
    if raw and #raw == BUCKET_SIZE then
      local version, written, written_rest, written_rate, written_reach
      version, written, full_at, written_rest, written_rate, written_reach = unpack_at(BUCKET, raw)
      if full_at >= now then --@short-full-now
        lag, rest = full_at - now, written_rest
      end
      usual = version == BUCKET_VERSION and written == TOKEN_BUCKET
        and full_at >= 0 and written_rest < rate
        and written_rate == rate --@short-rate
        and written_reach == reach --@short-reach
        and (lag < full or (lag == full and rest <= full_rest)) --@short-pulled-back
    end
    if usual and (cost > 0 or cost_rest > 0) then
      local lag_after, rest_after = lag + cost, rest + cost_rest
      if rest_after >= rate then
        lag_after, rest_after = lag_after + 1, rest_after - rate --@short-carry
      end
      if lag_after < full or (lag_after == full and rest_after <= full_rest) then --@short-fits
        last_us = now + lag_after
        state = pack(BUCKET, BUCKET_VERSION, TOKEN_BUCKET, last_us, rest_after, rate, reach)
        renewed = full_at - full_at % EXPIRY_STEP_US ~= last_us - last_us % EXPIRY_STEP_US --@short-bucket-expiry
        answer = { 0, now, lag_after, rest_after }
      else
        answer = { 0, now, -lag - 1, rest }
      end
    end

  elseif algorithm == SLIDING_WINDOW then
    local hits = unpack_at(SINGLE_HITS, claim, SINGLE_BODY)
    local _, _, capacity, period, width, slots = unpack_at(SLIDING_LIMIT, limit)
    local newest, newest_hits, total, first, usual = 0, 0, 0, SLIDING_SIZE + 1, not raw
    if raw and #raw >= SLIDING_SIZE and (#raw - SLIDING_SIZE) % RUN_SIZE == 0 then
      local version, written
      version, written, newest, newest_hits, total = unpack_at(SLIDING, raw)
      usual = version == WINDOW_VERSION and written == SLIDING_WINDOW
        and newest >= 0 and newest <= now --@short-run-ahead
        and newest_hits >= 0 and newest_hits <= total
      if newest + period <= now then --@short-window-end
        usual = usual and total <= 2 * SATURATION
        newest, newest_hits, total, first = 0, 0, 0, #raw + 1
      end
    end
    -- Runs that have left the window.
    while raw and usual and first < #raw do
      local time, count = unpack_at(RUN, raw, first)
      if time + period > now then --@short-run-end
        break
      end
      total, first = total - count, first + RUN_SIZE
    end
    usual = usual and hits > 0 and total >= newest_hits and total <= 2 * SATURATION
    if usual and total + hits <= capacity then --@short-room
      local older = raw and string.sub(raw, first) or ''
      local last = newest + period - 1
      local full = #older / RUN_SIZE + 1 > slots --@short-slots
      if total > 0 and not full and newest - newest % width ~= now - now % width then --@short-same-cell
        older, newest_hits = older .. pack(RUN, newest, newest_hits), hits
      else
        newest_hits = newest_hits + hits
      end
      total, last_us = total + hits, now + period - 1
      renewed = last - last % EXPIRY_STEP_US ~= last_us - last_us % EXPIRY_STEP_US --@short-runs-expiry
      state = pack(SLIDING, WINDOW_VERSION, SLIDING_WINDOW, now, newest_hits, total)
      local expired = raw and (#raw - SLIDING_SIZE - #older) / RUN_SIZE or 0
      if expired > 0 and expired <= MAX_PADDING and not renewed then
        state = state .. string.rep(pack(RUN, -2 * SATURATION, 0), expired)
      end
      state = state .. older
      answer = { 0, now, total, 0, period }
    elseif usual then
      local left, retry_us = total, 0
      for run = first, raw and #raw or 0, RUN_SIZE do
        local time, count = unpack_at(RUN, raw, run)
        left = left - count
        if left + hits <= capacity then --@short-fits-after-run
          retry_us = period - (now - time)
          break
        end
      end
      if retry_us == 0 and total > 0 and hits <= capacity then
        retry_us = period - (now - newest)
      end
      if retry_us >= 0 and retry_us <= period then
        answer = { 0, now, -total - 1, retry_us, total > 0 and period - (now - newest) or 0 }
      end
    end

  elseif algorithm == FIXED_WINDOW then
    local hits = unpack_at(SINGLE_HITS, claim, SINGLE_BODY)
    local _, _, capacity, period = unpack_at(FIXED_LIMIT, limit)
    local start, count, usual = now - now % period, 0, not raw
    renewed = true --@short-window-expiry
    if raw and #raw == FIXED_SIZE then
      local version, written, written_start, written_count = unpack_at(FIXED, raw)
      usual = version == WINDOW_VERSION and written == FIXED_WINDOW
        and written_start >= 0 and written_start <= start + period --@short-window-ahead
        and written_count >= 0 and written_count <= 2 * SATURATION
      if written_start >= start then --@short-this-window
        start, count, renewed = written_start, written_count, false
      end
    end
    if usual and hits > 0 and count + hits <= capacity then --@short-count
      count, last_us = count + hits, start + period - 1
      state = pack(FIXED, WINDOW_VERSION, FIXED_WINDOW, start, count)
      answer = { 0, now, count, period - (now - start) }
    elseif usual and hits > 0 then
      answer = { 0, now, -count - 1, period - (now - start) }
    end
  end

  if state and raw and #state >= #raw and not renewed then --@short-overwrites
    call('SETRANGE', KEYS[1], '0', state)
  elseif state then
    local expiry_us = last_us - last_us % EXPIRY_STEP_US + EXPIRY_STEP_US --@short-expiry-rounds-up
    local ttl_ms = (expiry_us - now) / 1000 + 2 + keep_ms --@short-ttl
    call('PSETEX', KEYS[1], string.format('%d', ttl_ms), state)
  end
  if answer then
    return answer
  end
end
