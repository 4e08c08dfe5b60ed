-- sidecar/policy/windows.py again: the rules and the reasons stand there, one contract suite holds the two together.
-- A log is {slot_us, slot, count, slot, count, ...}, oldest first, packed with cmsgpack. All numbers are whole and below 2^53.

local function clock_us(passed)
  if passed ~= '' then return tonumber(passed) end
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function window_of(requests, window_us)
  local slot_us = 1
  if requests > 128 then slot_us = math.max(1, math.floor(window_us / 100)) end
  return {requests = requests, us = window_us, slot_us = slot_us, log = {slot_us}, spent = 0, moved = false}
end

local function end_us(window, slot)
  return (slot + 1) * window.slot_us - 1 + window.us
end

local function add(window, slot, units)
  local log = window.log
  window.spent = window.spent + units
  if #log > 1 and log[#log - 1] == slot then
    log[#log] = log[#log] + units
  else
    log[#log + 1] = slot
    log[#log + 1] = units
  end
end

local function load_window(key, requests, window_us, now_us)
  local window = window_of(requests, window_us)
  local packed = redis.call('GET', key)
  if not packed then return window end
  local newest = math.floor(now_us / window.slot_us)
  local old = cmsgpack.unpack(packed)
  for i = 2, #old, 2 do
    local slot = old[i]
    if old[1] ~= window.slot_us then slot = math.floor(((slot + 1) * old[1] - 1) / window.slot_us) end
    if slot > newest then
      slot = newest
      window.moved = true
    end
    if end_us(window, slot) > now_us then add(window, slot, old[i + 1]) end
  end
  return window
end

-- Expires when the last unit returns, unless a test passed the time: then Redis's clock is not the one that counts.
local function save(key, window, now_us, passed)
  local packed = cmsgpack.pack(window.log)
  if passed ~= '' then
    redis.call('SET', key, packed)
  else
    local lives_us = end_us(window, window.log[#window.log - 1]) - now_us
    redis.call('SET', key, packed, 'PX', string.format('%.0f', math.max(1, math.ceil(lives_us / 1000))))
  end
end

local function spend(window, now_us)
  add(window, math.floor(now_us / window.slot_us), 1)
end

local function returns_in_us(window, units, now_us)
  if units <= 0 then return 0 end
  for i = 2, #window.log, 2 do
    units = units - window.log[i + 1]
    if units <= 0 then return end_us(window, window.log[i]) - now_us end
  end
  return window.us
end

-- " remaining reset_us retry_us"
local function quota(window, now_us, admitted)
  local reset_us, retry_us = 0, 0
  if window.spent > 0 then reset_us = returns_in_us(window, 1, now_us) end
  if not admitted then retry_us = returns_in_us(window, window.spent - window.requests + 1, now_us) end
  return string.format(' %.0f %.0f %.0f', math.max(0, window.requests - window.spent), reset_us, retry_us)
end
