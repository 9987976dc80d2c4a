-- KEYS status, geo, expiry, online; ARGV driver id, member, STATUS, epoch, 1 if there must be a field.
-- As transition, and tells what had to be mended: 0 nothing, 1 the status, 2 who is in geo, 3 both.
-- An epoch that is newer than the one given changes nothing and is told as text.
local text = redis.call('HGET', KEYS[1], ARGV[1])
if not text and ARGV[5] == '0' then return 0 end
local _, known = parse_status(text)
if known and known > tonumber(ARGV[4]) then return string.format('%.0f', known) end
local right = ARGV[3] .. ':' .. ARGV[4]
if text ~= right then redis.call('HSET', KEYS[1], ARGV[1], right) end
local _, mended = settle(KEYS[2], KEYS[3], KEYS[4], ARGV[2], ARGV[3] == 'AVAILABLE')
return (text ~= right and 1 or 0) + (mended and 2 or 0)
