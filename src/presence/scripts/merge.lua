-- True if a is newer than b, by (session epoch, time in the given field).
local function newer(a, b, field)
  local epoch_a, epoch_b = tonumber(a.epoch), tonumber(b.epoch)
  if epoch_a ~= epoch_b then return epoch_a > epoch_b end
  return tonumber(a[field]) > tonumber(b[field])
end

local function fix_of(old, new, by_time)
  if not (old and old.lat) then return new end
  if not new.lat or by_time and tonumber(old.fix_ms) > tonumber(new.fix_ms) then return old end
  return newer(old, new, 'fix_ms') and old or new
end

-- Merges a text into an online key. The newer heartbeat and the newer fix win, each by (session epoch, time). A text without
-- a fix keeps the stored fix. With by_time the fixes are compared by their time before their session. Returns the old text,
-- false if there was none.
local function merge(online, text, px, by_time)
  local raw = redis.call('GET', online)
  local old, new = parse(raw), parse(text)
  local old_lives = old and newer(old, new, 'received_ms')
  local life = old_lives and old or new
  local fix = fix_of(old, new, by_time)
  local value = table.concat({
    fix.lat or '', fix.lon or '', fix.fix_ms or '', life.received_ms, life.epoch,
  }, ',')
  if old_lives then
    redis.call('SET', online, value, 'KEEPTTL')
  else
    redis.call('SET', online, value, 'PX', px)
  end
  return raw
end
