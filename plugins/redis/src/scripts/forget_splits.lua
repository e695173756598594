-- Removes the records of splits that are finished and have no owner and no lane ahead.
-- KEYS: the sink's set of splits, then each split's record. ARGV: each split.
for i = 2, #KEYS do
    local record = redis.call('HGETALL', KEYS[i])
    local is_finished, is_held = false, false
    for at = 1, #record, 2 do
        if record[at] == 'finished' and record[at + 1] ~= '' then is_finished = true end
        if record[at] == 'owner' and record[at + 1] ~= '' then is_held = true end
        if string.sub(record[at], 1, 2) == 'a:' then is_held = true end
    end
    if is_finished and not is_held then
        redis.call('DEL', KEYS[i])
        redis.call('SREM', KEYS[1], ARGV[i - 1])
    end
end
