-- KEYS: an address's log. ARGV: now_us ('' for Redis's clock), requests, window_us, spend ('1', or '' to look only).
-- Returns its quota.

local now_us = clock_us(ARGV[1])
local window = settled(KEYS[1], tonumber(ARGV[2]), tonumber(ARGV[3]), now_us)
local admitted = ARGV[4] == '1' and window.spent < window.requests
if admitted then spend(window, now_us) end
save(KEYS[1], window, now_us, ARGV[1])
return quota(window, now_us, admitted)
