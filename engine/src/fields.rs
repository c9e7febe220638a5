//! Header fields that most heads have not, found and cut out at the price of a look at the names.

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// Up to so many fields it costs less to look at all names than to hash the one that is looked for.
const FEW: usize = 24;

/// The first value of a header that most heads have not.
pub fn find<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    if headers.len() > FEW {
        return headers.get(name);
    }
    headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
}

/// Cuts out a header that most heads have not.
pub fn remove(headers: &mut HeaderMap, name: &HeaderName) {
    if find(headers, name).is_some() {
        headers.remove(name);
    }
}
