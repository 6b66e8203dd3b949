-- Removes the hosts from a part of the index whose newest sample has left every window, and counts the labels of the
-- others.
--
-- KEYS: the part of the index. ARGV: now. Returns how many labels there are.
--
-- The earlier of the receiver's clock and this server's counts: a receiver whose clock is ahead removes no host that
-- other receivers list.
local now, series = math.min(tonumber(ARGV[1]), tonumber(redis.call('TIME')[1])), 0
local hosts = redis.call('HGETALL', KEYS[1])
for i = 1, #hosts, 2 do
  local listed_until, labels = string.match(hosts[i + 1], '^(%d+) (%d+)$')
  if tonumber(listed_until) <= now then
    redis.call('HDEL', KEYS[1], hosts[i])
  else
    series = series + labels
  end
end
return series
