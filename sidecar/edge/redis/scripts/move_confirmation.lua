-- KEYS: a confirmation, the account's waiting approvals. ARGV: the states that it may be in, between commas, its next state, now, who decided or nothing,
-- whether it may have expired, its id. Returns whether it was moved.

local found = redis.call('HMGET', KEYS[1], 'state', 'expires_at')
if not found[1] or not string.find(ARGV[1], ',' .. found[1] .. ',', 1, true) then return 0 end
if ARGV[5] == '' and tonumber(found[2]) <= tonumber(ARGV[3]) then return 0 end
redis.call('HSET', KEYS[1], 'state', ARGV[2])
redis.call('ZREM', KEYS[2], ARGV[6])
if ARGV[4] ~= '' then redis.call('HSET', KEYS[1], 'by', ARGV[4]) end
return 1
