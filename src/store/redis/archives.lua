-- Where the archives are with one host: reads what is due for one of them, or notes what it has got.
--
-- KEYS: the host. ARGV: 'begin', id of the archive, first minute that is not closed, end of what is to be read; or 'done', id,
-- first minute that it has not got, 1 where it has what came late, most archives of a host.
--
-- The field 'archives' of the host has of each archive its id; the first minute that it has not got; the least minute that has
-- changed since it was last read, or the end of that; the least minute that had changed before; and a semicolon. record.lua
-- lowers the second minute. Returns the first minute and the least late one, or nothing where the host is not known.
local NONE = 999999999999
local step, id, archives = ARGV[1], ARGV[2], redis.call('HGET', KEYS[1], 'archives') or ''
if redis.call('EXISTS', KEYS[1]) == 0 then
  return false
end
local all, found, next, changed, late = {}, false, 0, 0, NONE
for known, rest in string.gmatch(archives, '(%x+) ([^;]*);') do
  if known == id then
    next, changed, late = string.match(rest, '^(%d+) (%d+) (%d+)$')
    next, changed, late = tonumber(next), tonumber(changed), tonumber(late)
  else
    all[#all + 1] = known .. ' ' .. rest .. ';'
  end
end
if step == 'begin' then
  local limit, reading_to = tonumber(ARGV[3]), tonumber(ARGV[4])
  if changed < next then
    late = math.min(late, changed)
  end
  next = math.min(next, limit)
  changed = math.max(next, reading_to)
else
  next = math.max(next, tonumber(ARGV[3]))
  if ARGV[4] == '1' then
    late = NONE
  end
end
all[#all + 1] = string.format('%s %.0f %.0f %.0f;', id, next, changed, late)
while #all > tonumber(ARGV[5]) do
  table.remove(all, 1)
end
redis.call('HSET', KEYS[1], 'archives', table.concat(all))
return {next, late < next and late or -1}
