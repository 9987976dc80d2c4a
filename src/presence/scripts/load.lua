-- KEYS status, geo, expiry, and an online key for each driver; ARGV for each: driver id, member, STATUS, epoch, what is known
-- of their last sign of life ('' if they are silent), px. First who lives, then who can be found: the second looks at the first.
for n = 4, #KEYS do
  local id, member, name, epoch, text, px = unpack(ARGV, (n - 4) * 6 + 1, (n - 3) * 6)
  if text ~= '' then merge(KEYS[n], text, px) end
  apply(KEYS[1], KEYS[2], KEYS[3], KEYS[n], id, member, name, epoch)
end
return 1
