-- KEYS: records. Returns the owners of each, separated by line breaks.
local owners = {}
for i, key in ipairs(KEYS) do
    owners[i] = redis.call('HGET', key, 'owner') or ''
end
return owners
