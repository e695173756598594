-- Releases claims. KEYS: the source's members, then each claim. ARGV: the owner, whether it leaves
-- the source ('1').
for i = 2, #KEYS do
    if redis.call('GET', KEYS[i]) == ARGV[1] then
        redis.call('DEL', KEYS[i])
    end
end
if ARGV[2] == '1' then
    redis.call('ZREM', KEYS[1], ARGV[1])
end
