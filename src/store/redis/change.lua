-- Sets what is kept. KEYS: the setting. ARGV: what it is now, '' where there is none, and what it is to be.
--
-- Returns whether it was that.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
