-- KEYS rebuild, generation; ARGV token, generation, px. Believed only if the token survived from the first write on.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('DEL', KEYS[1])
return 1
