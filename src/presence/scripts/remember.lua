-- KEYS online; ARGV value, px. Returns the old text, nil if none.
return merge(KEYS[1], ARGV[1], ARGV[2])
