-- Merges a text into an online key: the newer life and the newer fix win, each by (session epoch, time), and a text without
-- a fix keeps the one that is there. The old text, false if none.
local function newer(a, b, field)
  local epoch_a, epoch_b = tonumber(a.epoch), tonumber(b.epoch)
  if epoch_a ~= epoch_b then return epoch_a > epoch_b end
  return tonumber(a[field]) > tonumber(b[field])
end

local function merge(online, text, px)
  local raw = redis.call('GET', online)
  local old, new = parse(raw), parse(text)
  local old_lives = old and newer(old, new, 'received_ms')
  local life = old_lives and old or new
  local fix = new
  if old and old.lat and (not new.lat or newer(old, new, 'fix_ms')) then fix = old end
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
