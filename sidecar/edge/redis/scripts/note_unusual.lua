-- KEYS: what was unusual of an account. ARGV: field, since, now, how long it is kept in s, reason.
-- Returns 1 when it is news (activity.is_news), else 0, and nothing changed.

local since, now, keep_s = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local kept = redis.call('HGET', KEYS[1], ARGV[1])
if kept then
  local noted_at, before = string.match(kept, '^(%S+) (%S+) ')
  if now - tonumber(noted_at) < keep_s and since < tonumber(before) + 86400 then return 0 end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3] .. ' ' .. ARGV[2] .. ' ' .. ARGV[5])
redis.call('EXPIRE', KEYS[1], keep_s)
return 1
