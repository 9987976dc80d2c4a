-- KEYS status, geo, expiry, online; ARGV driver id, member, STATUS, epoch.
-- Applies one committed status. Returns as apply does.
return apply(KEYS[1], KEYS[2], KEYS[3], KEYS[4], ARGV[1], ARGV[2], ARGV[3], ARGV[4])
