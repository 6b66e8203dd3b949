-- The lease of the receiver that evaluates the rules of alerts, and the records that it writes.
--
-- KEYS: the lease, the fencing number, the hashes of records. ARGV: who asks; milliseconds that the lease is to last, 0 to
-- give it up; the fencing number under which records are written, or '' to take or renew the lease; then for each record
-- the place of its hash among those of records, its field, and its value, '' to remove it.
--
-- Returns the fencing number, or 0 where another holds the lease or the number has risen. It writes all records or none.
local holder, lasts_ms, fence = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local held_by = redis.call('GET', KEYS[1])
if held_by and held_by ~= holder then
  return 0
end
if not held_by then
  -- A lease that has ended may have been held by another since: its records are to be read first.
  if fence ~= '' or lasts_ms == 0 then
    return 0
  end
  redis.call('INCR', KEYS[2])
end
local current = redis.call('GET', KEYS[2])
if fence ~= '' and fence ~= current then
  return 0
end
for i = 4, #ARGV, 3 do
  local hash = KEYS[2 + tonumber(ARGV[i])]
  if ARGV[i + 2] == '' then
    redis.call('HDEL', hash, ARGV[i + 1])
  else
    redis.call('HSET', hash, ARGV[i + 1], ARGV[i + 2])
  end
end
if lasts_ms == 0 then
  redis.call('UNLINK', KEYS[1])
else
  redis.call('SET', KEYS[1], holder, 'PX', lasts_ms)
end
return tonumber(current)
