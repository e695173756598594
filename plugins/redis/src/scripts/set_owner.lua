-- Writes who alone owns the splits that are still held under the epoch. KEYS: each split's record. ARGV: the owner, then each epoch.
for i = 1, #KEYS do
    if redis.call('HGET', KEYS[i], 'epoch') == ARGV[i + 1] then
        redis.call('HSET', KEYS[i], 'owner', ARGV[1])
    end
end
