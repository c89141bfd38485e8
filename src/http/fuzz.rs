//! What must hold for any bytes at all. The fuzzer calls these, and so do the unit tests.

use super::request::{Parsed, REQUEST_MAX, Request, parse};
use crate::fuzz::heap::untouched;

/// How long a text is split at every place; a longer one is at some.
const EVERYWHERE: usize = 512;

/// Bytes in any split give the requests that they give in one piece, and each is well formed.
///
/// # Panics
/// If they do not.
pub fn request(data: &[u8]) {
    let mut rest = data;
    loop {
        let whole = untouched(|| parse(rest));
        assert_eq!(whole, grown(rest), "the split matters");
        match whole {
            Parsed::Request(request) => {
                check(&request, rest.len());
                rest = &rest[request.len..];
            }
            Parsed::Incomplete => {
                assert!(rest.len() < REQUEST_MAX, "a full buffer is asked for more");
                return;
            }
            Parsed::Bad(status) => {
                assert!(matches!(status, 400 | 405 | 413 | 431), "{status}");
                return;
            }
        }
    }
}

/// What comes of the bytes when they arrive little by little.
fn grown(data: &[u8]) -> Parsed<'_> {
    let step = (data.len() / EVERYWHERE).max(1);
    let outcomes = (0..data.len()).step_by(step).map(|len| parse(&data[..len]));
    let first = outcomes.into_iter().find(|outcome| *outcome != Parsed::Incomplete);
    first.unwrap_or_else(|| parse(data))
}

fn check(request: &Request<'_>, len: usize) {
    assert!((1..=len.min(REQUEST_MAX)).contains(&request.len));
    assert!(request.path.bytes().all(|byte| byte.is_ascii_graphic()));
    if request.method != super::request::Method::Other {
        assert!(request.path.starts_with('/') && !request.path.contains('?'));
    }
}
