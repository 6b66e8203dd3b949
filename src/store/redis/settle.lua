-- Takes a step of a host from one setting to another.
--
-- KEYS: the host, its labels, its sources, hashes of intervals. ARGV: the setting that the host is at, and the one that it
-- is at then; the last label that is filled, or ''; seconds to keep the host, its labels and its sources at least; length
-- of the longest interval until now; for each of the hashes the seconds to keep it, 0 or less to remove it.
--
-- Returns 1, or 0 where the host is at another setting.
local host_key, labels_key, longest_sec = KEYS[1], KEYS[2], tonumber(ARGV[7])
local heard, listed, settled = unpack(redis.call('HMGET', host_key, 'heard', 'listed', 'keep'))
if not heard or (settled or '') ~= ARGV[1] then
  return 0
end
for i = 1, 3 do
  if redis.call('TTL', KEYS[i]) < tonumber(ARGV[3 + i]) then
    redis.call('EXPIRE', KEYS[i], ARGV[3 + i])
  end
end
for i = 4, #KEYS do
  redis.call('EXPIRE', KEYS[i], ARGV[4 + i])
end
redis.call('HSET', host_key, 'keep', ARGV[2], 'listed', (string.match(listed or '', '^%d+') or 0) .. ' 2')
if ARGV[3] == '' then
  redis.call('HDEL', host_key, 'filled')
else
  redis.call('HSET', host_key, 'filled', ARGV[3])
end
if longest_sec > 3600 and ARGV[3] == '' then
  -- The hour of a label was noted once in an interval of the longest window: it may have been heard until its end.
  local newest, labels = math.floor((tonumber(string.match(heard, '^%d+')) - 1) / 3600), redis.call('HGETALL', labels_key)
  for i = 1, #labels, 2 do
    local hour = tonumber(labels[i + 1])
    local last = math.ceil((hour + 1) * 3600 / longest_sec) * longest_sec / 3600 - 1
    redis.call('HSET', labels_key, labels[i], string.format('%.0f', math.max(hour, math.min(newest, last))))
  end
end
return 1
