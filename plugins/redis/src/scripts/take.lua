-- Takes splits over. KEYS: meta, the set of sinks, the sink's set of splits, then each split's record.
-- ARGV: the format, the owner, the sink, then each split. Gives each record as HGETALL does, with the owners that it had before. Owners
-- are separated by line breaks; one that asks again is added once.
local format = redis.call('HGET', KEYS[1], 'format')
if format and format ~= ARGV[1] then
    return redis.error_reply('PSEIDONFORMAT ' .. format)
end
redis.call('HSET', KEYS[1], 'format', ARGV[1])
redis.call('SADD', KEYS[2], ARGV[3])
local records = {}
for i = 4, #KEYS do
    redis.call('SADD', KEYS[3], ARGV[i])
    redis.call('HINCRBY', KEYS[i], 'epoch', 1)
    records[#records + 1] = redis.call('HGETALL', KEYS[i])
    local owners = redis.call('HGET', KEYS[i], 'owner') or ''
    if not string.find('\n' .. owners .. '\n', '\n' .. ARGV[2] .. '\n', 1, true) then
        owners = owners == '' and ARGV[2] or owners .. '\n' .. ARGV[2]
    end
    redis.call('HSET', KEYS[i], 'v', ARGV[1], 'owner', owners)
end
return records
