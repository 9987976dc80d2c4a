-- KEYS status, geo, expiry, and an online key for each driver; ARGV for each driver: driver id, member, STATUS, epoch, the text
-- of the online key ('' if the driver is not online), px.
-- The online key is written before the status, because applying the status reads the online key. Returns 1.
for n = 4, #KEYS do
  local id, member, name, epoch, text, px = unpack(ARGV, (n - 4) * 6 + 1, (n - 3) * 6)
  if text ~= '' then merge(KEYS[n], text, px) end
  apply(KEYS[1], KEYS[2], KEYS[3], KEYS[n], id, member, name, epoch)
end
return 1
