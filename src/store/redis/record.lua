-- Records one sample of a host, once, all of it or nothing. Definitions of the limits in capitals and common.lua precede
-- this text.
--
-- KEYS: the host, its labels, its sources, and for each window the hash that holds the sample's interval. The last hash
-- is that of the longest window, which every sample is in.
-- ARGV: now, epoch, hour of the sample, seconds to keep the host, source or '', sequence number, what is known of the
-- index, address of the source or '-', the setting by which it is kept, length and span of the longest window, seconds to
-- keep a source; for each window the place of the interval in its hash, and seconds to keep the hash; then labels and
-- values in turns. Of the index: '' nothing; ' 1 3 ' it has the host, and the labels of the values 1 and 3 may be new; 'away 1 3 '
-- the same, but it could not be written.
--
-- Returns {'stored', values, refused, refused because the host has too many labels, addresses of two sources of which a
-- conflict has begun…} or {'duplicate'}. Where what is kept of the host is by another setting it stores nothing and
-- returns {'unsettled', that setting}. Where the index must be written first it stores nothing and returns {'unlisted', number of labels, hour listed for, values whose labels the
-- host has no room for, places of the values whose labels would be new and for which it has room…}.
local now, epoch, hour, kept_sec = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local source, seq, granted = ARGV[5], ARGV[6], ARGV[7]
local host_key, labels_key, sources_key, windows = KEYS[1], KEYS[2], KEYS[3], #KEYS - 3
local setting, longest_sec, longest_span_sec, source_kept_sec = ARGV[9], tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
local first = 13 + 2 * windows
local count = (#ARGV - first + 1) / 2

-- Numbers up to 2^64 in digits: longer ones, and of the same length those that sort later, are greater.
local function is_above(a, b)
  return #a > #b or #a == #b and a > b
end

local function keep(key, seconds)
  if redis.call('TTL', key) < seconds then
    redis.call('EXPIRE', key, seconds)
  end
end

-- The bucket, 'count sum min max', with one more sample. Samples past 2^32 - 1 are left out.
local function with(bucket, value)
  if not bucket then
    return '1 ' .. value .. ' ' .. value .. ' ' .. value
  end
  local samples, sum, min, max = string.match(bucket, '^(%d+) (%S+) (%S+) (%S+)$')
  if tonumber(samples) >= 4294967295 then
    return bucket
  end
  local number = tonumber(value)
  local total = math.max(-FLOAT_MAX, math.min(FLOAT_MAX, tonumber(sum) + number))
  min, max = number < tonumber(min) and value or min, number > tonumber(max) and value or max
  return string.format('%d %s %s %s', samples + 1, exact(total), min, max)
end

local known, last_heard, since = source ~= '' and redis.call('HGET', sources_key, source), 0, now
if known then
  local newest, heard, known_since = string.match(known, '^(%d+) (%d+) (%d+)')
  last_heard, since = tonumber(heard), tonumber(known_since)
  if last_heard + source_kept_sec > now and not is_above(seq, newest) then
    return {'duplicate'}
  end
end

if count == 0 then
  return {'stored', 0, 0, 0}
end

local heard, listed, skew, archives, settled = unpack(redis.call('HMGET', host_key, 'heard', 'listed', 'skew', 'archives', 'keep'))
listed = tonumber(string.match(listed or '', '^%d+') or -1)
if heard and (settled or '') ~= setting then
  return {'unsettled', settled or ''}
end

-- The buckets of the sample's intervals.
local fields, buckets = {}, {}
for window = 1, windows do
  local place = ARGV[11 + 2 * window] .. ' '
  fields[window] = {}
  for i = 1, count do
    fields[window][i] = place .. ARGV[first + 2 * i - 2]
  end
  buckets[window] = redis.call('HMGET', KEYS[3 + window], unpack(fields[window]))
end

-- Values that are the first of their label in the hour. Their labels may be new, and the hour not listed.
local firsts, refused, refused_count, over_count = {}, {}, 0, 0
for i = 1, count do
  if not buckets[windows][i] then
    firsts[#firsts + 1] = i
  end
end
if #firsts > 0 or listed < hour then
  if listed < hour then
    local labels = redis.call('HGETALL', labels_key)
    for i = 1, #labels, 2 do
      if listed_until((labels[i + 1] + 1) * 3600, longest_sec, longest_span_sec) <= now then
        redis.call('HDEL', labels_key, labels[i])
      end
    end
  end
  local hours, unknown, labels_count = {}, {}, redis.call('HLEN', labels_key)
  for k, i in ipairs(firsts) do
    hours[k] = redis.call('HGET', labels_key, ARGV[first + 2 * i - 2])
    if not hours[k] then
      local is_granted = granted == '' or string.find(granted, ' ' .. i .. ' ', 1, true)
      if labels_count + #unknown >= LABELS_MAX then
        refused[i], refused_count, over_count = true, refused_count + 1, over_count + 1
      elseif is_granted then
        unknown[#unknown + 1] = i
      else
        refused[i], refused_count = true, refused_count + 1
      end
    end
  end
  if granted == '' and (listed < hour or #unknown > 0) then
    return {'unlisted', labels_count, listed, over_count, unpack(unknown)}
  end
  if refused_count == count then
    return {'stored', 0, refused_count, over_count}
  end
  for k, i in ipairs(firsts) do
    if not refused[i] then
      redis.call('HSET', labels_key, ARGV[first + 2 * i - 2], math.max(hour, hours[k] or 0))
    end
  end
  if string.sub(granted, 1, 4) ~= 'away' then
    redis.call('HSET', host_key, 'listed', listed_text(math.max(hour, listed), setting))
  end
  keep(labels_key, kept_sec)
  keep(host_key, kept_sec + FORGET_SEC)
end

for window = 1, windows do
  local changed, is_new = {}, false
  for i = 1, count do
    if not refused[i] then
      changed[#changed + 1] = fields[window][i]
      changed[#changed + 1] = with(buckets[window][i], ARGV[first + 2 * i - 1])
      is_new = is_new or not buckets[window][i]
    end
  end
  redis.call('HSET', KEYS[3 + window], unpack(changed))
  if is_new then
    keep(KEYS[3 + window], tonumber(ARGV[12 + 2 * window]))
  end
end

-- Its newest epoch, and the last three gaps between newest epochs.
local newest, gap, gap2, gap3 = string.match(heard or '0 0 0 0', '^(%d+) (%d+) (%d+) (%d+)$')
newest = tonumber(newest)
if newest > now + AHEAD_SEC_MAX then
  -- A clock was set back since: an epoch from before means nothing now.
  newest, gap, gap2, gap3 = 0, 0, 0, 0
end
local about = {}
if epoch > newest then
  if newest > 0 then
    gap, gap2, gap3 = math.min(epoch - newest, 4294967295), gap, gap2
  end
  about = {'heard', string.format('%.0f %.0f %.0f %.0f', epoch, gap, gap2, gap3)}
end
if not heard and setting ~= '' then
  about[#about + 1] = 'keep'
  about[#about + 1] = setting
end

-- How far its clock is ahead: the greatest difference within a minute, because samples come late and never early.
local ahead_sec, skew_heard = string.match(skew or '', '^(%-?%d+) (%d+)$')
local age_sec = now - tonumber(skew_heard or 0)
if not ahead_sec or epoch - now >= tonumber(ahead_sec) or age_sec >= SKEW_KEPT_SEC or age_sec < 0 then
  about[#about + 1] = 'skew'
  about[#about + 1] = string.format('%.0f %.0f', epoch - now, now)
end

-- The least minute that has changed since an archive read it, as archives.lua has it.
local minute = math.floor((epoch - 1) / 60)
local noted = archives and string.gsub(archives, '(%x+ %d+ )(%d+)( %d+ %x+;)', function(before, changed, behind)
  return minute < tonumber(changed) and before .. string.format('%.0f', minute) .. behind or nil
end)
if noted ~= archives then
  about[#about + 1] = 'archives'
  about[#about + 1] = noted
end
if #about > 0 then
  redis.call('HSET', host_key, unpack(about))
end

local conflict = {}
if source ~= '' then
  local label, address = ARGV[first], ARGV[8]
  -- Once a minute: whether another source publishes the same beside it, as in src/store/host.rs.
  if known and math.floor(now / OVERLAP_SEC) ~= math.floor(last_heard / OVERLAP_SEC) then
    local overlap_sec = math.huge
    for _, between in ipairs({tonumber(gap), tonumber(gap2), tonumber(gap3)}) do
      overlap_sec = between > 0 and math.min(overlap_sec, 3 * between) or overlap_sec
    end
    overlap_sec = overlap_sec < math.huge and math.max(OVERLAP_SEC, overlap_sec) or OVERLAP_SEC
    since = now - last_heard > overlap_sec and now or since
    local sources, other, other_heard, other_address = redis.call('HGETALL', sources_key), nil, -1, nil
    for i = 1, #sources, 2 do
      local heard, since_other, from, begins_with = string.match(sources[i + 1], '^%d+ (%d+) (%d+) (%S+) (.*)$')
      heard = tonumber(heard)
      if sources[i] ~= source and begins_with == label and now - heard <= overlap_sec
        and heard - math.max(tonumber(since_other), since) >= overlap_sec
        and (heard > other_heard or heard == other_heard and sources[i] > other) then
        other, other_heard, other_address = sources[i], heard, from
      end
    end
    if other then
      local noticed = tonumber(redis.call('HGET', host_key, 'conflict') or 0)
      redis.call('HSET', host_key, 'conflict', ARGV[1])
      if noticed == 0 or now - noticed > 2 * overlap_sec then
        conflict = {other_address, address}
      end
    end
  end
  local sources_count = known and 0 or redis.call('HLEN', sources_key)
  if sources_count >= SOURCES_KEPT then
    -- The source that was heard least recently is replaced, unless there is room and it was heard lately.
    local sources, oldest, oldest_heard = redis.call('HGETALL', sources_key), nil, math.huge
    for i = 1, #sources, 2 do
      local source_heard = tonumber(string.match(sources[i + 1], '^%d+ (%d+)'))
      if source_heard < oldest_heard then
        oldest, oldest_heard = sources[i], source_heard
      end
    end
    if sources_count >= SOURCES_MAX or oldest_heard + SOURCE_SILENT_SEC <= now then
      redis.call('HDEL', sources_key, oldest)
    end
  end
  redis.call('HSET', sources_key, source, seq .. ' ' .. ARGV[1] .. string.format(' %.0f ', since) .. address .. ' ' .. label)
  redis.call('EXPIRE', sources_key, source_kept_sec)
end
return {'stored', count - refused_count, refused_count, over_count, unpack(conflict)}
