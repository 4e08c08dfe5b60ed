-- KEYS: the accounts that the token was met for, its revocation flag.
-- Returns how long the flag must live in milliseconds, and the accounts.

local lives_ms = redis.call('PTTL', KEYS[1])
if lives_ms < 1 then
  redis.call('SET', KEYS[2], '1')
  return {0}
end
redis.call('SET', KEYS[2], '1', 'PX', lives_ms)
local answer = redis.call('SMEMBERS', KEYS[1])
table.insert(answer, 1, lives_ms)
return answer
