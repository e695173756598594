-- Sets the sole owner and the plan of the splits whose epoch has not changed. KEYS: each split's
-- record. ARGV: the owner, the plan, then the epoch of each split.
-- Returns the numbers (from 1) of the splits whose epoch has changed.
local owner, plan = unpack(ARGV)
local others = {}
for i = 1, #KEYS do
    if redis.call('HGET', KEYS[i], 'epoch') == ARGV[i + 2] then
        redis.call('HSET', KEYS[i], 'owner', owner, 'plan', plan)
    else
        others[#others + 1] = i
    end
end
return others
