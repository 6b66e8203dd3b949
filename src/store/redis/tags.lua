-- Replaces the tags of a host. KEYS: the host. ARGV: its tags.
--
-- Returns whether it is known: tags alone make no host.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
redis.call('HSET', KEYS[1], 'tags', ARGV[1])
return 1
