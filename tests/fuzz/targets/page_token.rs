//! The token of a page, which callers of the admin API send back.
//!
//! Input: the text.

use tollgate::edge::admin::page::PageToken;
use tollgate::limits::ClientName;

/// None, or a token whose own text means the same.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(token) = PageToken::<ClientName>::read(text) else { return };
    let written = token.write();
    assert_eq!(PageToken::read(&written).as_ref(), Some(&token), "{text:?}");
    assert_eq!(written, text.to_ascii_lowercase());
}
