-- Constants, formats of struct.pack, lengths in bytes and positions of the layout.
--
-- Rendered from layout.rs by `UPDATE_DOCS=1 cargo test --test store layout`: change it there. It has what the other
-- parts name. docs/redis-script.md says what each field means.

local EACH = 1
local NEVER = 2
local QUOTA = 1
local SHADOW = 2
local BLOCKED = 0
local TOKEN_BUCKET = 1
local SLIDING_WINDOW = 2
local FIXED_WINDOW = 3
local SINGLE = 16
local TAKE = 0
local PEEK = 1
local REFUND = 2
local GIVE_BACK = 0
local TELL = 1
local OLD_BUCKET_VERSION = 1
local BUCKET_VERSION = 2
local WINDOW_VERSION = 1
local SATURATION = 4503599627370496
local UNBOUNDED = 4294967295
local MAX_LEASE_US = 2000000
local EXPIRY_STEP_US = 1048576
local GROUP = '<BH'
local PART = '<BH'
local CLAIM_HEAD = '<BHHB'
local CLAIM = { [0] = '<HHB', '<HHBdI4', '<HHBd', '<HHBd', '<HHBdI4dI4dI4dI4dd' }
local CLAIM_SIZE = { [0] = 6, 18, 14, 14, 70 }
local AMENDMENT = '<BHHB'
local AMENDED_BUCKET = '<dI4d'
local AMENDED_WINDOW = '<dd'
local LIMIT = { '<BI4dI4dI4I4d', '<BI4ddI4', '<BI4d' }
local ALWAYS = 1
local BUCKET_RATE = 2
local BUCKET_FULL = 3
local BUCKET_FULL_REST = 4
local BUCKET_CEILING = 5
local BUCKET_CEILING_REST = 6
local BUCKET_REACH = 7
local BUCKET_PERIOD = 8
local SLIDING_CAPACITY = 2
local SLIDING_PERIOD = 3
local SLIDING_RUN_WIDTH = 4
local SLIDING_SLOTS = 5
local FIXED_CAPACITY = 2
local FIXED_PERIOD = 3
local BODY = 3
local BUCKET = '<BBdI4I4I4'
local BUCKET_BODY = '<dI4I4I4'
local BUCKET_SIZE = 22
local OLD_BUCKET_SIZE = 18
local SLIDING = '<BBddd'
local SLIDING_BODY = '<ddd'
local SLIDING_SIZE = 26
local FIXED = '<BBdd'
local FIXED_BODY = '<dd'
local FIXED_SIZE = 18
local LEASES = '<ddI4ddI4'
local LEASES_SIZE = 40
local RUN = '<dd'
local RUN_SIZE = 16
