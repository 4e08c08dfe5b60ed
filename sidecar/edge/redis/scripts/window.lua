-- sidecar/policy/windows.py again: the rules and the reasons stand there, one contract suite holds the two together.
-- A log is stored as slot_us and spent, then slot and count of every slot, oldest first. It is never unpacked as a whole:
-- a request looks at its ends. All numbers are whole and below 2^53, so a double holds them exactly.

local HEAD, HEAD_SIZE = '>dd', 16
local ENTRY, ENTRY_SIZE = '>dI4', 12

local function clock_us(passed)
  if passed ~= '' then return tonumber(passed) end
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function end_us(window, slot)
  return (slot + 1) * window.slot_us - 1 + window.us
end

-- Slot and count of the entry with this index, from 0; nil beyond the end.
local function entry(window, index)
  local from = index * ENTRY_SIZE
  if index < 0 or from >= #window.entries then return nil end
  return struct.unpack(ENTRY, window.entries, from + 1)
end

local function last(window)
  return #window.entries / ENTRY_SIZE - 1
end

local function recut(window, old_slot_us)
  local entries = {}
  for i = 0, last(window) do
    local slot, count = entry(window, i)
    entries[i + 1] = struct.pack(ENTRY, math.floor(((slot + 1) * old_slot_us - 1) / window.slot_us), count)
  end
  window.entries = table.concat(entries)
  window.changed = true
end

local function pull_back(window, newest)
  local units = 0
  local slot, count = entry(window, last(window))
  while slot and slot >= newest do
    units = units + count
    window.entries = string.sub(window.entries, 1, -1 - ENTRY_SIZE)
    slot, count = entry(window, last(window))
  end
  window.entries = window.entries .. struct.pack(ENTRY, newest, units)
  window.changed = true
end

local function forget(window, now_us)
  local newest = math.floor(now_us / window.slot_us)
  if (entry(window, last(window)) or 0) > newest then pull_back(window, newest) end
  local expired = 0
  local slot, count = entry(window, 0)
  while slot and end_us(window, slot) <= now_us do
    expired = expired + 1
    window.spent = window.spent - count
    slot, count = entry(window, expired)
  end
  if expired > 0 then
    window.entries = string.sub(window.entries, expired * ENTRY_SIZE + 1)
    window.changed = true
  end
end

local function settled(key, requests, window_us, now_us)
  local slot_us = 1
  if requests > 128 then slot_us = math.max(1, math.floor(window_us / 100)) end
  local window = {requests = requests, us = window_us, slot_us = slot_us, spent = 0, entries = '', changed = false}
  local stored = redis.call('GET', key)
  if stored then
    local old_slot_us
    old_slot_us, window.spent = struct.unpack(HEAD, stored)
    window.entries = string.sub(stored, HEAD_SIZE + 1)
    if old_slot_us ~= slot_us then recut(window, old_slot_us) end
    forget(window, now_us)
  end
  return window
end

local function spend(window, now_us)
  local newest = math.floor(now_us / window.slot_us)
  local slot, count = entry(window, last(window))
  if slot == newest then
    window.entries = string.sub(window.entries, 1, -1 - ENTRY_SIZE)
  else
    count = 0
  end
  window.entries = window.entries .. struct.pack(ENTRY, newest, count + 1)
  window.spent = window.spent + 1
  window.changed = true
end

-- Also for a log that only forgot something: what is forgotten stays so when the clock is set back.
-- Expires when the last unit returns, unless a test passed the time: then Redis's clock is not the one that counts.
local function save(key, window, now_us, passed)
  if not window.changed then return end
  local stored = struct.pack(HEAD, window.slot_us, window.spent) .. window.entries
  if window.spent == 0 then
    redis.call('DEL', key)
  elseif passed ~= '' then
    redis.call('SET', key, stored)
  else
    local lives_us = end_us(window, (entry(window, last(window)))) - now_us
    redis.call('SET', key, stored, 'PX', math.max(1, math.ceil(lives_us / 1000)))
  end
end

local function returns_in_us(window, units, now_us)
  if units <= 0 then return 0 end
  for i = 0, last(window) do
    local slot, count = entry(window, i)
    units = units - count
    if units <= 0 then return end_us(window, slot) - now_us end
  end
  return window.us
end

-- Remaining, reset_us and retry_us, as three doubles.
local function quota(window, now_us, admitted)
  local reset_us, retry_us = 0, 0
  if window.spent > 0 then reset_us = returns_in_us(window, 1, now_us) end
  if not admitted then retry_us = returns_in_us(window, window.spent - window.requests + 1, now_us) end
  return struct.pack('>ddd', math.max(0, window.requests - window.spent), reset_us, retry_us)
end
