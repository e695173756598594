-- Forgets everything but the epochs of the splits, or changes nothing. KEYS: meta, the set of sinks,
-- the plans, the notes, then for each sink its set of splits and its hash of staged entries, then
-- each split's record. ARGV: the number of splits of each sink.
-- Returns 'done', or why nothing was changed with the number of the sink or the record.
local sinks = #ARGV
if redis.call('SCARD', KEYS[2]) ~= sinks then return {'changed', '0'} end
for i = 1, sinks do
    if redis.call('SCARD', KEYS[3 + 2 * i]) ~= tonumber(ARGV[i]) then
        return {'changed', tostring(i)}
    end
    if redis.call('HLEN', KEYS[4 + 2 * i]) > 0 then return {'staged', tostring(i)} end
end
local records = 4 + 2 * sinks
for i = records + 1, #KEYS do
    local owner = redis.call('HGET', KEYS[i], 'owner')
    if owner and owner ~= '' then return {'held', tostring(i - records)} end
end
redis.call('DEL', KEYS[3], KEYS[4])
for i = records + 1, #KEYS do
    local fields = redis.call('HKEYS', KEYS[i])
    for _, field in ipairs(fields) do
        if field ~= 'v' and field ~= 'epoch' and field ~= 'seq' then
            redis.call('HDEL', KEYS[i], field)
        end
    end
    redis.call('HINCRBY', KEYS[i], 'epoch', 1)
    redis.call('HINCRBY', KEYS[i], 'seq', 1)
end
return {'done'}
