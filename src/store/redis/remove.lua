-- Forgets a host. KEYS: the host, its labels, and everything else there may be of it.
--
-- Gives how many labels it had, or -1 where it was not known.
local is_known = redis.call('EXISTS', KEYS[1]) == 1
local labels = redis.call('HLEN', KEYS[2])
redis.call('UNLINK', unpack(KEYS))
return is_known and labels or -1
