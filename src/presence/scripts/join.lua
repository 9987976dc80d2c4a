-- KEYS status, geo, expiry, online; ARGV driver id, member.
-- Adds the driver to drivers:geo if the status is AVAILABLE and the online key has a position. Removes the driver otherwise.
-- Returns 0 in geo, 1 not available, 2 no position, 3 status unknown.
local status = parse_status(redis.call('HGET', KEYS[1], ARGV[1]))
if settle(KEYS[2], KEYS[3], KEYS[4], ARGV[2], status == 'AVAILABLE') then return 0 end
if not status then return 3 end
return status == 'AVAILABLE' and 2 or 1
