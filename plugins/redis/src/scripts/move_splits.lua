-- Moves splits, all of them or none. KEYS: meta, the set of sinks, then for each sink its set of
-- splits and its hash of staged entries, then each split's record.
-- ARGV[1]: the format. ARGV[2]: JSON with the names of the sinks, and the moves: each with the
-- number of its sink, the split, the epoch and the sequence that were seen and those after it, the
-- position, what the source stores beside it, and when the split was finished.
-- Returns 'done', or why nothing was changed with the number of the sink or the move.
local format, wanted = ARGV[1], cjson.decode(ARGV[2])
local sinks, moves = wanted.sinks, wanted.moves
local found = redis.call('HGET', KEYS[1], 'format')
if found and found ~= format then
    return redis.error_reply('PSEIDONFORMAT ' .. found)
end
local records = 2 + 2 * #sinks
for i = 1, #sinks do
    if redis.call('HLEN', KEYS[2 + 2 * i]) > 0 then return {'staged', tostring(i)} end
end
for i, move in ipairs(moves) do
    local epoch, sequence = '0', '0'
    local record = redis.call('HGETALL', KEYS[records + i])
    for at = 1, #record, 2 do
        local field, value = record[at], record[at + 1]
        if field == 'epoch' then epoch = value end
        if field == 'seq' then sequence = value end
        if field == 'owner' and value ~= '' then return {'held', tostring(i)} end
        if string.sub(field, 1, 2) == 'a:' then return {'ahead', tostring(i)} end
    end
    if epoch ~= move.epoch or sequence ~= move.seq then return {'changed', tostring(i)} end
end
redis.call('HSET', KEYS[1], 'format', format)
for i, move in ipairs(moves) do
    local key = KEYS[records + i]
    redis.call('SADD', KEYS[2], sinks[move.sink])
    redis.call('SADD', KEYS[1 + 2 * move.sink], move.split)
    redis.call('HSET', key, 'v', format, 'epoch', move.next_epoch, 'seq', move.next_seq,
        'low', move.low, 'finished', move.finished, 'owner', '')
    redis.call('HDEL', key, 'plan')
    if move.resume then
        redis.call('HSET', key, 'resume', move.resume)
    else
        redis.call('HDEL', key, 'resume')
    end
end
return {'done'}
