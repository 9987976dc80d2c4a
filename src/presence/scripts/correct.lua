-- KEYS status, geo, expiry, online; ARGV driver id, member, STATUS, epoch, the wrong epoch.
-- Puts an epoch back that was never committed, if it still stands there. 1: done.
local _, known = parse_status(redis.call('HGET', KEYS[1], ARGV[1]))
if known ~= tonumber(ARGV[5]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3] .. ':' .. ARGV[4])
settle(KEYS[2], KEYS[3], KEYS[4], ARGV[2], ARGV[3] == 'AVAILABLE')
return 1
