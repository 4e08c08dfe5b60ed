-- KEYS: an upstream's pins. ARGV: the version they were read at, whether they are complete (1 or 0), how many to set, and
-- for each of these its field and value; then the fields to drop. Returns the new version, or 0 when there is another.

local version = tonumber(redis.call('HGET', KEYS[1], 'version') or '0')
if version ~= tonumber(ARGV[1]) then return 0 end
local last = 3 + 2 * tonumber(ARGV[3])
for i = 4, last, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
for i = last + 1, #ARGV do redis.call('HDEL', KEYS[1], ARGV[i]) end
redis.call('HSET', KEYS[1], 'version', version + 1, 'complete', ARGV[2])
return version + 1
