-- Removes the hosts from a part of the index that are to be forgotten, and counts the labels of the others. Definitions of
-- the limits in capitals and common.lua precede this text.
--
-- KEYS: the part of the index. ARGV: now, length and span of the longest window. Returns how many labels there are, where a host that is down counts as one, and
-- the names of the hosts that were removed.
--
-- The earlier of the receiver's clock and this server's counts: a receiver whose clock is ahead removes no host that
-- other receivers list.
local longest_sec, longest_span_sec = tonumber(ARGV[2]), tonumber(ARGV[3])
local now, series, forgotten = math.min(tonumber(ARGV[1]), tonumber(redis.call('TIME')[1])), 0, {}
local hosts = redis.call('HGETALL', KEYS[1])
for i = 1, #hosts, 2 do
  local newest, labels = string.match(hosts[i + 1], '^(%d+) (%d+)$')
  newest = newest - INDEX_SEC
  local labels_until = listed_until(newest, longest_sec, longest_span_sec)
  if math.max(labels_until, newest + FORGET_SEC) <= now then
    redis.call('HDEL', KEYS[1], hosts[i])
    forgotten[#forgotten + 1] = hosts[i]
  else
    series = series + (labels_until <= now and 1 or labels)
  end
end
return {series, forgotten}
