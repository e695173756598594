-- Takes splits over. KEYS: meta, the set of sinks, the sink's set of splits, then each split's record.
-- ARGV: the format, the owner, the sink, then each split. Gives each record as HGETALL does, with the owner that it had before.
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
    redis.call('HSET', KEYS[i], 'v', ARGV[1], 'owner', ARGV[2])
end
return records
