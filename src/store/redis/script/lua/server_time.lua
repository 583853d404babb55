-- Head of the script in production: the clock of this server.
--
--   sets     unit  meaning
--   now      us    since 1970
--   keep_ms  ms    added to every expiry: 0
local clock = redis.call('TIME')
local now, keep_ms = clock[1] * 1000000 + clock[2], 0
