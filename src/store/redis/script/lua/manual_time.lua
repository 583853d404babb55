-- Head of the script in tests: the clock of the caller. Keys expire by the clock of the server, so the caller
-- keeps them longer.
--
--   sets     from     unit  meaning
--   now      ARGV[3]  us    since 1970
--   keep_ms  ARGV[4]  ms    added to every expiry
local now, keep_ms = tonumber(ARGV[3]), tonumber(ARGV[4])
