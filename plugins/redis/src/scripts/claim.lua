-- Does one round of sharing a source's splits.
-- KEYS: the source's members, then the claim of each split, those that the owner holds first.
-- ARGV: the owner, the lease in milliseconds, the number of splits to share, the number of claims
-- that the owner holds.
-- Returns the owner's fair share, then for each claim 1 if it is the owner's now, or 0.
local owner, lease, total, held = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + lease, owner)
redis.call('PEXPIRE', KEYS[1], lease * 2)
local fair = math.ceil(total / redis.call('ZCARD', KEYS[1]))
local answer, mine = {fair}, 0
for i = 2, #KEYS do
    local holder = redis.call('GET', KEYS[i])
    local is_held = i - 1 <= held
    if (not holder or holder == owner) and (is_held or mine < fair) then
        redis.call('SET', KEYS[i], owner, 'PX', lease)
        mine = mine + 1
        answer[i] = 1
    else
        answer[i] = 0
    end
end
return answer
