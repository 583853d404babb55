-- Arithmetic of spans: the time in which tokens refill, exact at one rate. Twin: Span in src/domain/limit.rs.
--
--   argument         unit           meaning
--   a, b, span       us             whole microseconds
--   .._rest, rest    1/rate of us   remainder, less than the rate
--   rate             hits / period  of both spans
--
--   function      returns
--   plus          sum, rest
--   minus         difference, rest; 0, 0 for a negative one
--   exceeds       true if a > b
--   at_new_rate   span of the same hits at another rate, rounded up to whole microseconds; at most SATURATION

local function plus(a, a_rest, b, b_rest, rate)
  local sum, rest = a + b, a_rest + b_rest
  if rest >= rate then
    return sum + 1, rest - rate
  end
  return sum, rest
end

local function minus(a, a_rest, b, b_rest, rate)
  if a < b or (a == b and a_rest <= b_rest) then
    return 0, 0
  elseif a_rest < b_rest then
    return a - b - 1, a_rest - b_rest + rate --@borrow
  end
  return a - b, a_rest - b_rest
end

local function exceeds(a, a_rest, b, b_rest)
  return a > b or (a == b and a_rest > b_rest)
end

local function at_new_rate(span, rest, written_rate, rate)
  return min(floor((span * written_rate + rest) / rate * (1 + 2 ^ -50)) + 1, SATURATION) --@new-rate-rounds-up
end
