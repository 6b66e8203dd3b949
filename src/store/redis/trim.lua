-- Removes from a hash that has intervals for more than a day those that have left their window.
--
-- KEYS: the host, the hash. ARGV: the setting by which they have; the place in the hash of the first that is kept; where to
-- go on, '0' at first. Returns where to go on, '0' at the end and where the host is at another setting.
if (redis.call('HGET', KEYS[1], 'keep') or '') ~= ARGV[1] then
  return '0'
end
local first, scanned = tonumber(ARGV[2]), redis.call('HSCAN', KEYS[2], ARGV[3], 'COUNT', 1000)
for i = 1, #scanned[2], 2 do
  if tonumber(string.match(scanned[2][i], '^%d+')) < first then
    redis.call('HDEL', KEYS[2], scanned[2][i])
  end
end
return scanned[1]
