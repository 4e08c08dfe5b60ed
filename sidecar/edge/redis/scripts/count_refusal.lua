-- KEYS: the key's usage of the day. ARGV: now_us ('' for Redis's clock), that day.
-- Returns 0, or the day it really is: then nothing was done.

local now_us = clock_us(ARGV[1])
local day = math.floor(now_us / 86400000000)
if day ~= tonumber(ARGV[2]) then return day end
local hour = math.floor(now_us / 3600000000) % 24
if redis.call('HINCRBY', KEYS[1], hour .. ':x', 1) == 1 then redis.call('EXPIRE', KEYS[1], 2678400) end
return 0
