-- Applies a step, or nothing of it. KEYS: the hash of what is staged, then each split's record. ARGV[1]: the step as JSON.
--
-- Positions stay text, because a Lua number cannot hold all of them; epochs and sequences count events and never get that high.
local step = cjson.decode(ARGV[1])

-- Everything that can fail is read before anything is written: a script is not undone.
redis.call('HLEN', KEYS[1])
local fenced, above = {}, nil
local old_epoch, old_sequence
for i, split in ipairs(step.splits) do
    local found = redis.call('HMGET', KEYS[i + 1], 'epoch', 'seq')
    local epoch, sequence = tonumber(found[1] or '0'), tonumber(found[2] or '0')
    if not old_epoch and epoch < tonumber(split.epoch) then
        old_epoch = {'epoch', i, found[1] or '0'}
    end
    if not old_sequence and sequence < tonumber(split.seq) then
        old_sequence = {'sequence', i, found[2] or '0'}
    end
    if epoch > tonumber(split.epoch) then
        fenced[#fenced + 1] = i
    end
    if not above and sequence > tonumber(split.seq) then
        above = {'sequence', i, found[2]}
    end
end
if old_epoch then return old_epoch end
if old_sequence then return old_sequence end
if #fenced > 0 then return {'fenced', unpack(fenced)} end
if above then return above end

-- Lua's stack bounds how many values one call can be given.
local function in_portions(command, key, values)
    for from = 1, #values, 1000 do
        redis.call(command, key, unpack(values, from, math.min(from + 999, #values)))
    end
end
for i, split in ipairs(step.splits) do
    local key = KEYS[i + 1]
    redis.call('HSET', key, 'seq', split.next, 'low', split.low)
    in_portions('HSET', key, split.ahead)
    in_portions('HDEL', key, split.caught_up)
end
in_portions('HDEL', KEYS[1], step.published)
in_portions('HSET', KEYS[1], step.staged)
return {'done'}
