-- Fills intervals of some labels of a host from finer ones. The definition of FLOAT_MAX and common.lua precede this text.
--
-- KEYS: the host, the hash to fill, the hashes of the finer intervals without a gap. ARGV: the setting that the host is at;
-- seconds to keep the hash; the place in it of the first interval to fill, and how many; finer intervals in one of them, and
-- in a hash; number of the first finer interval; labels.
--
-- An interval that has samples keeps them if it has more: those that its finer intervals have lost. Returns 1, or 0 where
-- the host is at another setting.
local target, kept_sec, place, count = KEYS[2], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local finer, size, first = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
if redis.call('HGET', KEYS[1], 'keep') ~= ARGV[1] then
  return 0
end
local first_hash, is_filled = math.floor(first / size), false
for l = 8, #ARGV do
  for interval = 0, count - 1 do
    local samples, sum, min, max = 0, 0, nil, nil
    local from, stop = first + interval * finer, first + (interval + 1) * finer
    while from < stop do
      local hash = math.floor(from / size)
      local to, fields = math.min(stop, (hash + 1) * size), {}
      for number = from, to - 1 do
        fields[#fields + 1] = string.format('%.0f %s', number - hash * size, ARGV[l])
      end
      for _, bucket in ipairs(redis.call('HMGET', KEYS[3 + hash - first_hash], unpack(fields))) do
        if bucket then
          local more, more_sum, least, greatest = string.match(bucket, '^(%d+) (%S+) (%S+) (%S+)$')
          if samples + more <= 4294967295 then
            samples = samples + more
            sum = math.max(-FLOAT_MAX, math.min(FLOAT_MAX, sum + tonumber(more_sum)))
            min = (not min or tonumber(least) < tonumber(min)) and least or min
            max = (not max or tonumber(greatest) > tonumber(max)) and greatest or max
          end
        end
      end
      from = to
    end
    if samples > 0 then
      local field = string.format('%.0f %s', place + interval, ARGV[l])
      local known = string.match(redis.call('HGET', target, field) or '', '^%d+')
      if samples > tonumber(known or 0) then
        redis.call('HSET', target, field, string.format('%.0f %s %s %s', samples, exact(sum), min, max))
        is_filled = true
      end
    end
  end
end
if is_filled and redis.call('TTL', target) < kept_sec then
  redis.call('EXPIRE', target, kept_sec)
end
return 1
