-- Returns each record as HGETALL does. KEYS: the records.
local records = {}
for i, key in ipairs(KEYS) do
    records[i] = redis.call('HGETALL', key)
end
return records
