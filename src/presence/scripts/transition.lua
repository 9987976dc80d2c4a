-- KEYS status, geo, expiry, online; ARGV driver id, member, STATUS, epoch.
-- An older epoch than the stored one changes nothing; an equal one is applied again, which heals.
-- 0 stale, 1 applied and not in geo, 2 applied and in geo.
local _, known = parse_status(redis.call('HGET', KEYS[1], ARGV[1]))
if known and known > tonumber(ARGV[4]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3] .. ':' .. ARGV[4])
return settle(KEYS[2], KEYS[3], KEYS[4], ARGV[2], ARGV[3] == 'AVAILABLE') and 2 or 1
