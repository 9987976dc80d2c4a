-- KEYS status, geo, expiry, online; ARGV driver id, member, STATUS, epoch, the wrong epoch.
-- Replaces an epoch that was never committed, if it is still stored. Returns 1 when it was replaced, else 0.
local _, known = parse_status(redis.call('HGET', KEYS[1], ARGV[1]))
if known ~= tonumber(ARGV[5]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3] .. ':' .. ARGV[4])
settle(KEYS[2], KEYS[3], KEYS[4], ARGV[2], ARGV[3] == 'AVAILABLE')
return 1
