-- KEYS: the key's record, all keys, active keys. ARGV: id, version, record, created_at, expires_at, revoked ('1' or ''),
-- max_active ('' for any number), now. Returns 1, or 0 when nothing was done.

if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
if ARGV[7] ~= '' and redis.call('ZCOUNT', KEYS[3], '(' .. ARGV[8], '+inf') >= tonumber(ARGV[7]) then return 0 end
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[1])
if ARGV[6] == '' then redis.call('ZADD', KEYS[3], ARGV[5], ARGV[1]) end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'record', ARGV[3])
return 1
