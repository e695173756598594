-- Takes the owner's name off the splits that are still held under the epoch. KEYS: each split's record. ARGV: each epoch.
for i = 1, #KEYS do
    if redis.call('HGET', KEYS[i], 'epoch') == ARGV[i] then
        redis.call('HSET', KEYS[i], 'owner', '')
    end
end
