-- What more than one script needs.

-- The shortest decimal text that reads back as the same number.
local function exact(number)
  local text = string.format('%.15g', number)
  return tonumber(text) == number and text or string.format('%.17g', number)
end

-- The second from which nothing is kept any more of an hour that ends at a time, by the longest window.
local function listed_until(hour_end, longest_sec, longest_span_sec)
  return math.ceil(hour_end / longest_sec) * longest_sec + longest_span_sec
end
