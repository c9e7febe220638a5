//! The cookie by which a client's requests go on to the instance that they had first. Its value says nothing of the
//! instance to those who don't know its name. Where such a request goes is `dispatch/own.rs`'s.

use http::header::{self, HeaderMap, HeaderValue};

/// The value that a cookie has in a request; of several, the first.
pub fn cookie<'a>(name: &str, headers: &'a HeaderMap) -> Option<&'a [u8]> {
    let pairs = headers.get_all(header::COOKIE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// What names an instance in a cookie: the same from one gateway to the next, and from one start of the instance to
/// the next. FNV-1a, its bits mixed by `MurmurHash3`'s last step, since names differ in their last letters only.
pub fn mark_of(instance: &str) -> String {
    let hash = crate::dispatch::hash(instance.as_bytes());
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    format!("{:016x}", mixed ^ (mixed >> 33))
}

/// The header that gives a client its cookie: for the session, for all paths, out of reach of scripts.
pub fn set_cookie(cookie: &str, mark: &str, is_secure: bool) -> Option<HeaderValue> {
    let secure = if is_secure { "; Secure" } else { "" };
    HeaderValue::try_from(format!("{cookie}={mark}; Path=/; HttpOnly; SameSite=Lax{secure}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookies(values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (header::COOKIE, HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_cookie_is_found_among_others_and_by_its_whole_name() {
        let headers = cookies(&["a=1; xto=2;to=3; to=4", "b=5"]);

        assert_eq!(cookie("to", &headers), Some(&b"3"[..]));
        assert_eq!(cookie("b", &headers), Some(&b"5"[..]));
        assert_eq!(cookie("t", &headers), None);
    }

    #[test]
    fn names_that_are_alike_have_marks_that_are_not() {
        let (one, two) = (mark_of("shop-web-1"), mark_of("shop-web-2"));

        assert_eq!((one.len(), two.len()), (16, 16));
        assert!(one.bytes().zip(two.bytes()).filter(|(a, b)| a != b).count() > 8, "{one} {two}");
        assert_eq!(one, mark_of("shop-web-1"));
    }

    #[test]
    fn only_over_tls_is_the_cookie_for_tls_alone() {
        let [clear, secure] = [false, true].map(|is_secure| set_cookie("to", "ab", is_secure).unwrap());

        assert_eq!(clear, "to=ab; Path=/; HttpOnly; SameSite=Lax");
        assert_eq!(secure, "to=ab; Path=/; HttpOnly; SameSite=Lax; Secure");
    }
}
