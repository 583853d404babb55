-- Tables of the layout. They come after the short way, which would pay for them.
--
-- Rendered from layout.rs by `UPDATE_DOCS=1 cargo test --test store layout`: change it there.

local CLAIM = { [0] = '<HHB', '<HHBdI4', '<HHBd', '<HHBd', '<HHBd', '<HHBd', '<HHBdI4dI4dI4dI4dd' }
local CLAIM_SIZE = { [0] = 6, 18, 14, 14, 14, 14, 70 }
local LIMIT = { '<BI4dI4dI4I4d', '<BI4ddI4', '<BI4d', '<BI4dddd', '<BI4d' }
