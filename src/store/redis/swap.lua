-- Replaces a record that is as expected. KEYS: the hash of its kind. ARGV: its field; what it is expected to be, '' where
-- none is; the new record; how many the hash may have.
--
-- Returns 1, or 0 where there is no room for one more, or the record that there is in its place, '' for none.
local held = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if held ~= ARGV[2] then
  return held
end
if held == '' and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
