-- KEYS: a handle. ARGV: its owner. Forgets it if it is the owner's.

local stored = redis.call('GET', KEYS[1])
if stored and string.sub(stored, string.find(stored, ' ') + 1) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
