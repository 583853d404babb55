-- A heartbeat: notes a process among the replicas, and returns those that are there.
--
--   input     meaning
--   KEYS[1]   sorted set: name of a process -> end of its stay in microseconds since 1970
--   ARGV[1]   name of the process, in hexadecimal
--   ARGV[2]   stay in microseconds without another beat
--
--   output    names of all processes that are there, this one among them

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
redis.call('PEXPIRE', KEYS[1], 10000)
return redis.call('ZRANGE', KEYS[1], 0, -1)
