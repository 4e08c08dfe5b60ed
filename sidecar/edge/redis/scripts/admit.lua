-- One request: its key, its token, its account, its limits and its usage counts, all or nothing (ports.AdmissionStore).
-- Everything is read and judged before anything is written, so an error on the way has spent nothing.
-- KEYS: revoked-before, [token flag], [key record, key usage of the day], the handles, one log per limit.
-- ARGV: now_us ('' for Redis's clock), issued_at, token ('1' or ''), key version ('' without a key), day, write ('1' or '', '0' to count no use),
--       how ('', (s)hadow or (p)eek), how many handles, owner and idle time in ms of each, then requests and window_us per limit.
-- Returns a letter, now_us as a double, and what belongs to it: (g)ood with a quota per limit, (k)ey changed with the
-- record as it is, (r)evoked, (h)andle unknown with its number from 0. (d)ay: the usage key is of another day than Redis's clock says, so nothing was done; ask
-- again with the right one.

local now_us = clock_us(ARGV[1])
local stamp = struct.pack('>d', now_us)
local next_key = 2

if ARGV[3] == '1' then
  next_key = 3
end

local key, usage, last_used
if ARGV[4] ~= '' then
  key, usage = KEYS[next_key], KEYS[next_key + 1]
  next_key = next_key + 2
  if math.floor(now_us / 86400000000) ~= tonumber(ARGV[5]) then return 'd' .. stamp end
  local known = redis.call('HMGET', key, 'version', 'last_used')
  last_used = tonumber(known[2])
  if known[1] ~= ARGV[4] then
    return 'k' .. stamp .. (redis.call('HGET', key, 'record') or '')
  end
end

if ARGV[3] == '1' and redis.call('EXISTS', KEYS[2]) == 1 then return 'r' .. stamp end
local revoked_before = redis.call('GET', KEYS[1])
if revoked_before and not (tonumber(ARGV[2]) >= tonumber(revoked_before)) then return 'r' .. stamp end

local handles = tonumber(ARGV[8])
local next_arg, first_handle = 9 + 2 * handles, next_key
for i = 0, handles - 1 do
  local stored = redis.call('GET', KEYS[first_handle + i])
  local space = stored and string.find(stored, ' ')
  if not space or string.sub(stored, space + 1) ~= ARGV[9 + 2 * i] then return 'h' .. stamp .. i end
  local bound_at = tonumber(string.sub(stored, 1, space - 1))
  if revoked_before and not (bound_at >= tonumber(revoked_before)) then return 'h' .. stamp .. i end
end
next_key = next_key + handles

local windows, admitted = {}, true
for i = next_key, #KEYS do
  local arg = next_arg + 2 * (i - next_key)
  local window = settled(KEYS[i], tonumber(ARGV[arg]), tonumber(ARGV[arg + 1]), now_us)
  windows[i] = window
  if window.spent >= window.requests then admitted = false end
end

local peeks = ARGV[7] == 'p'
local goes_on = not peeks and (admitted or ARGV[7] == 's')

if key and ARGV[6] ~= '0' and not peeks then
  local hour = math.floor(now_us / 3600000000) % 24
  local fields = {hour .. ':x'}
  if goes_on then
    fields = {hour .. ':r'}
    if ARGV[6] == '1' then fields[2] = hour .. ':w' end
  end
  for _, field in ipairs(fields) do
    if redis.call('HINCRBY', usage, field, 1) == 1 then redis.call('EXPIRE', usage, 2678400) end
  end
  if goes_on then
    redis.call('HSET', key, 'last_used', now_us)
    if not last_used then
      redis.call('HSET', key, 'returned', now_us)
    elseif now_us - last_used >= 86400000000 then
      redis.call('HSET', key, 'returned', now_us, 'silent', now_us - last_used)
    end
  end
end

for i = 0, handles - 1 do
  if goes_on then redis.call('PEXPIRE', KEYS[first_handle + i], ARGV[10 + 2 * i]) end
end

local answer = {'g', stamp}
for i = next_key, #KEYS do
  local window = windows[i]
  if not peeks then
    if admitted then spend(window, now_us) end
    save(KEYS[i], window, now_us, ARGV[1])
  end
  answer[#answer + 1] = quota(window, now_us, admitted and not peeks)
end
return table.concat(answer)
