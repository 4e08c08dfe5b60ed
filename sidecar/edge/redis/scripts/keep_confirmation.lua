-- KEYS: where the last id for the binding stands, the new confirmation, and of an approval the account's waiting ones. ARGV: the name of any confirmation but for its
-- id, the new id, its record, its state, now, milliseconds to live, the open states between
-- commas, its expiry, how many may wait.
-- Keeps the new one, and returns nothing, unless the last one is open: then returns its record, state and decider; or
-- too many wait: then returns an empty list.

local last = redis.call('GET', KEYS[1])
if last then
  local found = redis.call('HMGET', ARGV[1] .. last, 'record', 'state', 'by', 'expires_at')
  if found[1] and string.find(ARGV[7], ',' .. found[2] .. ',', 1, true) and tonumber(found[4]) > tonumber(ARGV[5]) then
    return {found[1], found[2], found[3]}
  end
end
if KEYS[3] then
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', ARGV[5])
  if redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[9]) then return {} end
  redis.call('ZADD', KEYS[3], ARGV[8], ARGV[2])
  if redis.call('PTTL', KEYS[3]) < tonumber(ARGV[6]) then redis.call('PEXPIRE', KEYS[3], ARGV[6]) end
end
redis.call('HSET', KEYS[2], 'record', ARGV[3], 'state', ARGV[4], 'expires_at', ARGV[8])
redis.call('PEXPIRE', KEYS[2], ARGV[6])
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[6])
return false
