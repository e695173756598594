-- Applies steps, each as a whole or not at all. ARGV[1]: the steps as JSON. KEYS: for each step the
-- hash of staged entries, the set of fenced owners, then each split's record. Returns an answer for
-- each step.
--
-- Positions stay strings, because a Lua number cannot represent all of them; epochs and sequences
-- count events and never get that high.

-- Splits the values, because Lua's stack limits the number of arguments of a call.
local function in_chunks(command, key, values)
    for from = 1, #values, 1000 do
        redis.call(command, key, unpack(values, from, math.min(from + 999, #values)))
    end
end

-- Returns why a step cannot be applied, or nil if it can.
local function refusal(step, fenced_owners, records)
    -- Everything that can fail is read before anything is written, since a script is not rolled back.
    local is_fenced = redis.call('SISMEMBER', fenced_owners, step.owner) == 1
    local fenced, above, old_epoch, old_sequence = {'fenced'}, nil, nil, nil
    for i, split in ipairs(step.splits) do
        local found = redis.call('HMGET', records[i], 'epoch', 'seq')
        local epoch, sequence = tonumber(found[1] or '0'), tonumber(found[2] or '0')
        if not old_epoch and epoch < tonumber(split.epoch) then
            old_epoch = {'epoch', tostring(i), found[1] or '0'}
        end
        if not old_sequence and sequence < tonumber(split.seq) then
            old_sequence = {'sequence', tostring(i), found[2] or '0'}
        end
        if epoch > tonumber(split.epoch) then
            fenced[#fenced + 1] = tostring(i)
        end
        if not above and sequence > tonumber(split.seq) then
            above = {'sequence', tostring(i), found[2]}
        end
    end
    if old_epoch then return old_epoch end
    if old_sequence then return old_sequence end
    if is_fenced then return {'owner'} end
    if #fenced > 1 then return fenced end
    return above
end

local function apply(step, staged, records)
    for i, split in ipairs(step.splits) do
        redis.call('HSET', records[i], 'seq', split.next, 'low', split.low, 'finished', split.finished)
        if split.resume then
            redis.call('HSET', records[i], 'resume', split.resume)
        end
        in_chunks('HSET', records[i], split.ahead)
        in_chunks('HDEL', records[i], split.caught_up)
    end
    in_chunks('HDEL', staged, step.published)
    in_chunks('HSET', staged, step.staged)
end

local answers, key = {}, 0
for number, step in ipairs(cjson.decode(ARGV[1])) do
    local staged, fenced_owners, records = KEYS[key + 1], KEYS[key + 2], {}
    redis.call('HLEN', staged)
    for i = 1, #step.splits do
        records[i] = KEYS[key + 2 + i]
    end
    key = key + 2 + #step.splits
    local refused = refusal(step, fenced_owners, records)
    if not refused then
        apply(step, staged, records)
    end
    answers[number] = refused or {'done'}
end
return answers
