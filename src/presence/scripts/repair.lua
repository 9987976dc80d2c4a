-- KEYS status, geo, expiry, online; ARGV driver id, member, STATUS, epoch, 1 if there must be a field, 1 if a driver who is
-- missing in geo and belongs there is added.
-- Applies the status as transition.lua does, and returns what was repaired: 0 nothing, 1 the status, 2 the membership in geo,
-- 3 both. Adds 4 for a driver who is missing in geo and was not added. A stored epoch that is newer than the given one changes
-- nothing and is returned as text.
local text = redis.call('HGET', KEYS[1], ARGV[1])
local _, known = parse_status(text)
if known and known > tonumber(ARGV[4]) then return string.format('%.0f', known) end
local right = ARGV[3] .. ':' .. ARGV[4]
local is_wrong = text ~= right and (text or ARGV[5] == '1')
if is_wrong then redis.call('HSET', KEYS[1], ARGV[1], right) end
local told = is_wrong and 1 or 0
local is_free = ARGV[3] == 'AVAILABLE'
if is_free and ARGV[6] == '0' and not redis.call('ZSCORE', KEYS[2], ARGV[2]) then
  local seen = parse(redis.call('GET', KEYS[4]))
  return told + (seen and seen.lat and 4 or 0)
end
local _, mended = settle(KEYS[2], KEYS[3], KEYS[4], ARGV[2], is_free)
return told + (mended and 2 or 0)
