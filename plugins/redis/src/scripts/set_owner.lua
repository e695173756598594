-- Sets the only owner of the splits whose epoch has not changed. KEYS: each split's record.
-- ARGV: the owner, then the epoch of each split.
for i = 1, #KEYS do
    if redis.call('HGET', KEYS[i], 'epoch') == ARGV[i + 1] then
        redis.call('HSET', KEYS[i], 'owner', ARGV[1])
    end
end
