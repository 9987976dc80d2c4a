-- Stands before every script that reads an online key or changes who can be found.

-- An online key's text is "lat,lon,fix_ms,received_ms,session_epoch"; the first three are empty while no position is
-- known. Anything else is nil, and a position that GEO would refuse is none: one bad key must not break a batch.
local function parse(text)
  if not text then return nil end
  local lat, lon, fix_ms, received_ms, epoch =
    string.match(text, '^([^,]*),([^,]*),([^,]*),(%-?%d+),(%-?%d+)$')
  if not lat then return nil end
  local y, x, at = tonumber(lat), tonumber(lon), tonumber(fix_ms)
  local placed = y and x and at and math.abs(y) <= 85.05112878 and math.abs(x) <= 180
  return {
    lat = placed and lat, lon = placed and lon, fix_ms = placed and fix_ms,
    received_ms = received_ms, epoch = epoch,
  }
end

-- Makes drivers:geo and drivers:expiry say of one driver what their status and online key say. True when they are in;
-- then whether that was otherwise before (an expired member is no surprise: the sweep takes it out).
local function settle(geo, expiry, online, member, available)
  local seen = available and parse(redis.call('GET', online))
  if not (seen and seen.lat) then
    local gone = redis.call('ZREM', geo, member) + redis.call('ZREM', expiry, member)
    return false, gone > 0 and not available
  end
  local time = redis.call('TIME')
  local due_ms = time[1] * 1000 + math.floor(time[2] / 1000) + math.max(redis.call('PTTL', online), 0)
  local come = redis.call('GEOADD', geo, seen.lon, seen.lat, member)
  come = come + redis.call('ZADD', expiry, string.format('%.0f', due_ms), member)
  return true, come > 0
end

-- A drivers:status field is "STATUS:epoch". An epoch that no bigint holds is none.
local function parse_status(text)
  if not text then return nil end
  local status, epoch = string.match(text, '^(%u+):(%-?%d+)$')
  local number = tonumber(epoch)
  return status, number and math.abs(number) < 2^63 and number or nil
end
