-- KEYS rebuild, generation; ARGV token, generation, px.
-- Sets the generation only if the rebuild's token was never lost. Returns 1 when it was set, else 0.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('DEL', KEYS[1])
return 1
