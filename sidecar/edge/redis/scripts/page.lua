-- KEYS: all keys. ARGV: limit, the id to follow ('' for the start). Newest first, equal times by id downwards.

local first = 0
if ARGV[2] ~= '' then
  local rank = redis.call('ZREVRANK', KEYS[1], ARGV[2])
  if not rank then return {} end
  first = rank + 1
end
return redis.call('ZREVRANGE', KEYS[1], first, first + tonumber(ARGV[1]) - 1)
