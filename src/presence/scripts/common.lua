-- Prepended to every script that reads an online key or changes drivers:geo.

-- Parses the text of an online key: "lat,lon,fix_ms,received_ms,session_epoch". The first three are empty while no position
-- is known. Returns nil for any other text. A position that GEO would refuse counts as no position, because one bad key must
-- not fail a whole batch.
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

-- Makes drivers:geo and drivers:expiry match the status and the online key of one driver. Returns two values: whether the
-- driver is a member now, and whether the membership was wrong before. An expired member does not count as wrong, because
-- the sweep removes it.
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

-- Parses a drivers:status field: "STATUS:epoch". An epoch that does not fit into a bigint counts as no epoch.
local function parse_status(text)
  if not text then return nil end
  local status, epoch = string.match(text, '^(%u+):(%-?%d+)$')
  local number = tonumber(epoch)
  return status, number and math.abs(number) < 2^63 and number or nil
end
