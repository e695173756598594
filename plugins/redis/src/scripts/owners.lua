-- Returns the owners of each record, separated by line breaks. KEYS: the records.
local owners = {}
for i, key in ipairs(KEYS) do
    owners[i] = redis.call('HGET', key, 'owner') or ''
end
return owners
