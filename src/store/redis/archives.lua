-- Where the archives are with one host: reads what is due for one of them, or notes what it has got.
--
-- KEYS: the host. ARGV: 'begin' or 'done', id of the archive, two numbers, most archives of a host, and who reads. The numbers
-- of 'begin' are the first minute that is not closed, and the end of what is to be read; of 'done' the first minute that it has
-- not got, and 1 where it has what came late.
--
-- The field 'archives' of the host has of each archive its id; the first minute that it has not got; the least minute that has
-- changed since it was last read, or the end of that; the least minute that had changed before; who read it; and a semicolon.
-- record.lua lowers the second minute. A receiver that was stopped for longer than its lease may note what it has sent after
-- another has begun to read: that notes nothing, for the other may have read what is newer, and is not done. Returns the first minute and the least late one, or nothing where the host is not known.
local NONE = 999999999999
local step, id, reader, archives = ARGV[1], ARGV[2], ARGV[6], redis.call('HGET', KEYS[1], 'archives') or ''
if redis.call('EXISTS', KEYS[1]) == 0 then
  return false
end
local all, next, changed, late, begun_by = {}, 0, 0, NONE, reader
for known, rest in string.gmatch(archives, '(%x+) ([^;]*);') do
  if known == id then
    next, changed, late, begun_by = string.match(rest, '^(%d+) (%d+) (%d+) (%x+)$')
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
elseif begun_by == reader then
  next = math.max(next, tonumber(ARGV[3]))
  if ARGV[4] == '1' then
    late = NONE
  end
else
  return false
end
all[#all + 1] = string.format('%s %.0f %.0f %.0f %s;', id, next, changed, late, reader)
while #all > tonumber(ARGV[5]) do
  table.remove(all, 1)
end
redis.call('HSET', KEYS[1], 'archives', table.concat(all))
return {next, late < next and late or -1}
