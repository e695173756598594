-- Removes the owners of the splits whose epoch has not changed. KEYS: each split's record.
-- ARGV: the epoch of each split.
for i = 1, #KEYS do
    if redis.call('HGET', KEYS[i], 'epoch') == ARGV[i] then
        redis.call('HSET', KEYS[i], 'owner', '')
    end
end
