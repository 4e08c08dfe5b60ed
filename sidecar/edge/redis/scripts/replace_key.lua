-- KEYS: the key's record, all keys, active keys, [the successor's record].
-- ARGV: id, version, record, created_at, expires_at, revoked ('1' or ''), and the same six of the successor.
-- Returns 1, or 0 when nothing was done: the stored version is not the one before, or the successor is there already.

if tonumber(redis.call('HGET', KEYS[1], 'version') or '') ~= tonumber(ARGV[2]) - 1 then return 0 end
if KEYS[4] and redis.call('EXISTS', KEYS[4]) == 1 then return 0 end

local function write(key, first)
  if ARGV[first + 5] == '' then
    redis.call('ZADD', KEYS[3], ARGV[first + 4], ARGV[first])
  else
    redis.call('ZREM', KEYS[3], ARGV[first])
  end
  redis.call('HSET', key, 'version', ARGV[first + 1], 'record', ARGV[first + 2])
end

write(KEYS[1], 1)
if KEYS[4] then
  redis.call('ZADD', KEYS[2], ARGV[10], ARGV[7])
  write(KEYS[4], 7)
end
return 1
