-- KEYS online; ARGV value, px, 1 if its fix may be older than one of an older session. Returns the old text, nil if none.
return merge(KEYS[1], ARGV[1], ARGV[2], ARGV[3] == '1')
