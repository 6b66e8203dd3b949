-- Records one sample of a host, once, all of it or nothing. Definitions of the limits in capitals and common.lua
-- precede this text.
--
-- KEYS: the host, its labels, its sources, and for each window the hash that holds the sample's interval. The last hash
-- is that of the longest window, which every sample is in.
-- ARGV: now, epoch, the hour of the sample as 'listed' of the host has it, source or '', sequence number, address of the
-- source or '-', what is known of the index, the setting by which it is kept, and what is seldom needed, as JSON: seconds
-- to keep the host, length and span of the longest window, seconds to keep a source, and those to keep each hash. Then
-- the values, and for each window their fields in its hash: place of the interval, and label. Of the index: '' nothing;
-- ' 1 3 ' it has the host, and the labels of the values 1 and 3 may be new; 'away 1 3 ' the same, but it could not be
-- written.
--
-- Returns how many values it has stored, if all of them. Else it returns {'stored', values, refused, refused because the
-- host has too many labels, addresses of two sources of which a conflict has begun…} or {'duplicate'}. Where what is kept
-- of the host is by another setting it stores nothing and returns {'unsettled', that setting}. Where the index must be
-- written first it stores nothing and returns {'unlisted', number of labels, hour listed for, values whose labels the
-- host has no room for, places of the values whose labels would be new and for which it has room…}.
--
-- Lua takes text for a number in arithmetic. That is quicker than tonumber, and so is '[^ ]' than '%S'.
local call, match, format = redis.call, string.match, string.format
local now, epoch, listing, source, seq = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local address, granted, setting, seldom = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local host_key, labels_key, sources_key, windows = KEYS[1], KEYS[2], KEYS[3], #KEYS - 3
local count = (#ARGV - 9) / (1 + windows)

local function keep(key, seconds)
  if call('TTL', key) < seconds then
    call('EXPIRE', key, seconds)
  end
end

local known, last_heard, since = source ~= '' and call('HGET', sources_key, source), 0, ARGV[1]
if known then
  local newest, heard, known_since = match(known, '^([^ ]+) ([^ ]+) ([^ ]+)')
  last_heard, since = tonumber(heard), known_since
  -- Numbers up to 2^64 in digits: longer ones, and of the same length those that sort later, are greater.
  local is_above = #seq > #newest or #seq == #newest and seq > newest
  if not is_above and last_heard + cjson.decode(seldom)[4] > now then
    return {'duplicate'}
  end
end

if count == 0 then
  return 0
end

local heard, listed, skew, archives, settled =
  unpack(call('HMGET', host_key, 'heard', 'listed', 'skew', 'archives', 'keep'))
if heard and (settled or '') ~= setting then
  return {'unsettled', settled or ''}
end

-- Values that are the first of their label in an interval of the longest window. Their labels may be new, and the hour
-- not listed. A value that is refused is taken out of ARGV.
local buckets = call('HMGET', KEYS[#KEYS], unpack(ARGV, #ARGV - count + 1))
local is_known, refused_count, over_count, kept_sec = listed == listing, 0, 0, nil
for i = 1, count do
  is_known = is_known and buckets[i]
end
if not is_known then
  local longest_sec, longest_span_sec
  kept_sec, longest_sec, longest_span_sec = unpack(cjson.decode(seldom))
  local hour, listed_hour = tonumber(match(listing, '^%d+')), tonumber(match(listed or '', '^%d+') or -1)
  if listed_hour < hour then
    local hours = call('HGETALL', labels_key)
    for i = 1, #hours, 2 do
      if listed_until((hours[i + 1] + 1) * 3600, longest_sec, longest_span_sec) <= now then
        call('HDEL', labels_key, hours[i])
      end
    end
  end
  local labels, hours, unknown, labels_count = {}, {}, {}, call('HLEN', labels_key)
  for i = 1, count do
    labels[i] = match(ARGV[9 + count + i], ' (.*)')
    hours[i] = buckets[i] and hour or call('HGET', labels_key, labels[i])
    if not hours[i] then
      if labels_count + #unknown >= LABELS_MAX then
        ARGV[9 + i], refused_count, over_count = false, refused_count + 1, over_count + 1
      elseif granted == '' or string.find(granted, ' ' .. i .. ' ', 1, true) then
        unknown[#unknown + 1] = i
      else
        ARGV[9 + i], refused_count = false, refused_count + 1
      end
    end
  end
  if granted == '' and (listed_hour < hour or #unknown > 0) then
    return {'unlisted', labels_count, listed_hour, over_count, unpack(unknown)}
  end
  if refused_count == count then
    return {'stored', 0, refused_count, over_count}
  end
  for i = 1, count do
    if not buckets[i] and ARGV[9 + i] then
      call('HSET', labels_key, labels[i], math.max(hour, hours[i] or 0))
    end
  end
  if listed_hour < hour and string.sub(granted, 1, 4) ~= 'away' then
    call('HSET', host_key, 'listed', listing)
  end
end

-- Each bucket, 'count sum min max', with one more sample. Samples past 2^32 - 1 are left out. A sum that had over 15
-- digits has 17 from then on: it is seldom exact in fewer, and to try them takes time.
local changed = {}
for window = windows, 1, -1 do
  local first, size, is_new = 9 + window * count, 0, false
  buckets = window == windows and buckets or call('HMGET', KEYS[3 + window], unpack(ARGV, first + 1, first + count))
  for i = 1, count do
    local value, bucket = ARGV[9 + i], buckets[i]
    if value then
      if bucket then
        local samples, sum, min, max = match(bucket, '^([^ ]+) ([^ ]+) ([^ ]+) ([^ ]+)$')
        samples = samples + 1
        if samples <= 4294967295 then
          local total = sum + value
          if total > FLOAT_MAX or total < -FLOAT_MAX then
            total = total > 0 and FLOAT_MAX or -FLOAT_MAX
          end
          min = value ~= min and value - min < 0 and value or min
          max = value ~= max and value - max > 0 and value or max
          local sums = #sum > 16 and format('%d %.17g ', samples, total) or format('%d %s ', samples, exact(total))
          bucket = sums .. min .. ' ' .. max
        end
      else
        bucket, is_new = '1 ' .. value .. ' ' .. value .. ' ' .. value, true
      end
      changed[size + 1], changed[size + 2] = ARGV[first + i], bucket
      size = size + 2
    end
  end
  call('HSET', KEYS[3 + window], unpack(changed))
  if is_new then
    keep(KEYS[3 + window], cjson.decode(seldom)[4 + window])
  end
end

-- Its newest epoch, and the last three gaps between newest epochs.
local heard_now, skew_now = heard or '0 0 0 0', skew
local newest, gaps = match(heard_now, '^([^ ]+)( [^ ]+ [^ ]+)')
newest = tonumber(newest)
if newest > now + AHEAD_SEC_MAX then
  -- A clock was set back since: an epoch from before means nothing now.
  newest, gaps = 0, ' 0 0'
end
if epoch > newest then
  heard_now = ARGV[2] .. format(' %d', newest > 0 and math.min(epoch - newest, 4294967295) or 0) .. gaps
end

-- How far its clock is ahead: the greatest difference within a minute, because samples come late and never early.
local ahead_sec, skew_heard = match(skew or '', '^([^ ]+) ([^ ]+)$')
local age_sec = now - (skew_heard or 0)
if not ahead_sec or epoch - now >= tonumber(ahead_sec) or age_sec >= SKEW_KEPT_SEC or age_sec < 0 then
  skew_now = format('%d %s', epoch - now, ARGV[1])
end
if heard_now ~= heard or skew_now ~= skew then
  call('HSET', host_key, 'heard', heard_now, 'skew', skew_now)
end
if not heard and setting ~= '' then
  call('HSET', host_key, 'keep', setting)
end
-- Not before: a key that is not there takes no time to live, and that of a new host which the index could not take is
-- written just above.
if kept_sec then
  keep(labels_key, kept_sec)
  keep(host_key, kept_sec + FORGET_SEC)
end

-- The least minute that has changed since an archive read it, as archives.lua has it.
if archives then
  local minute = math.floor((epoch - 1) / 60)
  local noted = string.gsub(archives, '(%x+ %d+ )(%d+)( %d+ %x+;)', function(before, changed, behind)
    return minute < tonumber(changed) and before .. format('%d', minute) .. behind or nil
  end)
  if noted ~= archives then
    call('HSET', host_key, 'archives', noted)
  end
end

local conflict
if source ~= '' then
  local label = match(ARGV[10 + count], ' (.*)')
  local is_new_minute = math.floor(now / OVERLAP_SEC) ~= math.floor(last_heard / OVERLAP_SEC)
  -- Once a minute: whether another source publishes the same beside it, as in src/store/host.rs.
  if known and is_new_minute then
    local overlap_sec = math.huge
    for gap in string.gmatch(heard_now, ' ([1-9]%d*)') do
      overlap_sec = math.min(overlap_sec, 3 * gap)
    end
    overlap_sec = overlap_sec < math.huge and math.max(OVERLAP_SEC, overlap_sec) or OVERLAP_SEC
    since = now - last_heard > overlap_sec and ARGV[1] or since
    local sources, other, other_heard, other_address = call('HGETALL', sources_key), nil, -1, nil
    for i = 1, #sources, 2 do
      local heard, since_other, from, begins_with = match(sources[i + 1], '^%d+ (%d+) (%d+) (%S+) (.*)$')
      heard = tonumber(heard)
      if sources[i] ~= source and begins_with == label and now - heard <= overlap_sec
        and heard - math.max(since_other, since) >= overlap_sec
        and (heard > other_heard or heard == other_heard and sources[i] > other) then
        other, other_heard, other_address = sources[i], heard, from
      end
    end
    if other then
      local noticed = tonumber(call('HGET', host_key, 'conflict') or 0)
      call('HSET', host_key, 'conflict', ARGV[1])
      if noticed == 0 or now - noticed > 2 * overlap_sec then
        conflict = {other_address, address}
      end
    end
  end
  local sources_count = known and 0 or call('HLEN', sources_key)
  if sources_count >= SOURCES_KEPT then
    -- The source that was heard least recently is replaced, unless there is room and it was heard lately.
    local sources, oldest, oldest_heard = call('HGETALL', sources_key), nil, math.huge
    for i = 1, #sources, 2 do
      local source_heard = tonumber(match(sources[i + 1], '^%d+ (%d+)'))
      if source_heard < oldest_heard then
        oldest, oldest_heard = sources[i], source_heard
      end
    end
    if sources_count >= SOURCES_MAX or oldest_heard + SOURCE_SILENT_SEC <= now then
      call('HDEL', sources_key, oldest)
    end
  end
  call('HSET', sources_key, source, seq .. ' ' .. ARGV[1] .. ' ' .. since .. ' ' .. address .. ' ' .. label)
  if is_new_minute then
    -- It lasts as long as is promised after the last sample of this minute.
    call('EXPIRE', sources_key, cjson.decode(seldom)[4] + OVERLAP_SEC)
  end
end
if refused_count > 0 or conflict then
  return {'stored', count - refused_count, refused_count, over_count, unpack(conflict or {})}
end
return count
