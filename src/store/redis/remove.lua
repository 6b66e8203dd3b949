-- Removes a host. KEYS: the host, its labels, and all other keys that it may have.
--
-- Returns how many labels it had, or -1 where it was not known.
local is_known = redis.call('EXISTS', KEYS[1]) == 1
local labels = redis.call('HLEN', KEYS[2])
redis.call('UNLINK', unpack(KEYS))
return is_known and labels or -1
