-- KEYS rebuild, generation, database, status, geo, expiry;
-- ARGV this process, token, px, generation, database identity.
-- 1: the rebuild is ours. 0: somebody else is at it, or nothing is cold any more.
if redis.call('GET', KEYS[2]) == ARGV[4] then return 0 end
local holder = redis.call('GET', KEYS[1])
-- A rebuild that this process began and gave up must not hold up its next.
if holder and string.sub(holder, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
-- Epochs of another database (a restore, a promotion) compare with nothing: they would refuse the true ones for ever.
if redis.call('GET', KEYS[3]) ~= ARGV[5] then
  redis.call('DEL', KEYS[2])
  redis.call('UNLINK', KEYS[4], KEYS[5], KEYS[6])
  redis.call('SET', KEYS[3], ARGV[5])
end
return 1
