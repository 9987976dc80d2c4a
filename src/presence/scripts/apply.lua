-- Applies a committed status. An epoch older than the stored one changes nothing. An equal epoch is applied again, which
-- repairs drift. Returns 0 stale, 1 applied and not in geo, 2 applied and in geo.
local function apply(status, geo, expiry, online, id, member, name, epoch)
  local _, known = parse_status(redis.call('HGET', status, id))
  if known and known > tonumber(epoch) then return 0 end
  redis.call('HSET', status, id, name .. ':' .. epoch)
  return settle(geo, expiry, online, member, name == 'AVAILABLE') and 2 or 1
end
