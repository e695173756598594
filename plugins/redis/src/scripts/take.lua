-- Takes splits over.
-- KEYS: meta, the set of sinks, the sink's set of splits, the set of fenced owners, then each
-- split's record.
-- ARGV: the format, the owner, the sink, then each split.
-- Returns each record as HGETALL does, with its previous owners. Owners are separated by line
-- breaks; an owner that takes a split again is added once.
local format, owner, sink = unpack(ARGV)
local found = redis.call('HGET', KEYS[1], 'format')
if found and found ~= format then
    return redis.error_reply('PSEIDONFORMAT ' .. found)
end
if redis.call('SISMEMBER', KEYS[4], owner) == 1 then
    return redis.error_reply('PSEIDONFENCED')
end
redis.call('HSET', KEYS[1], 'format', format)
redis.call('SADD', KEYS[2], sink)
local records = {}
for i = 5, #KEYS do
    redis.call('SADD', KEYS[3], ARGV[i - 1])
    redis.call('HINCRBY', KEYS[i], 'epoch', 1)
    local record = redis.call('HGETALL', KEYS[i])
    records[#records + 1] = record
    local owners = ''
    for at = 1, #record, 2 do
        if record[at] == 'owner' then owners = record[at + 1] end
    end
    if not string.find('\n' .. owners .. '\n', '\n' .. owner .. '\n', 1, true) then
        owners = owners == '' and owner or owners .. '\n' .. owner
    end
    redis.call('HSET', KEYS[i], 'v', format, 'owner', owners)
end
return records
