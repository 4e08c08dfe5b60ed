-- KEYS: the accounts that the token was met for, its revocation flag. ARGV: now_us ('' for Redis's clock), account,
-- the moment (Unix seconds) until which both matter. Returns 1 when the token is revoked.
-- A flag that was set before anyone knew the token has no expiry until now.

local lives_ms = math.ceil(tonumber(ARGV[3]) * 1000 - clock_us(ARGV[1]) / 1000)
lives_ms = string.format('%.0f', math.max(1, math.min(lives_ms, 315360000000)))
redis.call('SADD', KEYS[1], ARGV[2])
for _, key in ipairs(KEYS) do
  if redis.call('PTTL', key) < tonumber(lives_ms) then redis.call('PEXPIRE', key, lives_ms) end
end
return redis.call('EXISTS', KEYS[2])
