-- KEYS rebuild, generation, database, status, geo, expiry;
-- ARGV this process, token, px, generation, database identity.
-- Returns 1 when this process holds the rebuild. Returns 0 when another process rebuilds, or when Redis is already warm.
if redis.call('GET', KEYS[2]) == ARGV[4] then return 0 end
local holder = redis.call('GET', KEYS[1])
-- A rebuild that this process began and abandoned must not block its next rebuild.
if holder and string.sub(holder, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
-- Epochs of another database (after a restore or a promotion) cannot be compared. They would refuse valid epochs for ever.
if redis.call('GET', KEYS[3]) ~= ARGV[5] then
  redis.call('DEL', KEYS[2])
  redis.call('UNLINK', KEYS[4], KEYS[5], KEYS[6])
  redis.call('SET', KEYS[3], ARGV[5])
end
return 1
