-- KEYS any; ARGV value, px.
-- Renews the key only while it holds this value. Returns 1 when it was renewed, else 0.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
