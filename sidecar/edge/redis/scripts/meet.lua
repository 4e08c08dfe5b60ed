-- KEYS: the accounts that the token was met for, its revocation flag. ARGV: now_us ('' for Redis's clock), account,
-- the moment (Unix seconds) until which both matter. Returns 1 when the token is revoked.
-- A flag that was set before anyone knew the token has no expiry until now.

local lives_ms = math.ceil(tonumber(ARGV[3]) * 1000 - clock_us(ARGV[1]) / 1000)
lives_ms = string.format('%.0f', math.max(1, math.min(lives_ms, 315360000000)))
-- Asked before anything is written: a Redis that is out of memory refuses to write, and must not hide a revocation.
if redis.call('EXISTS', KEYS[2]) == 1 then
  if redis.call('PTTL', KEYS[2]) < tonumber(lives_ms) then redis.call('PEXPIRE', KEYS[2], lives_ms) end
  return 1
end
redis.call('SADD', KEYS[1], ARGV[2])
if redis.call('PTTL', KEYS[1]) < tonumber(lives_ms) then redis.call('PEXPIRE', KEYS[1], lives_ms) end
return 0
