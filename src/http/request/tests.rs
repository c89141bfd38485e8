use super::*;
use crate::http::fuzz;

fn request(text: &str) -> Request<'_> {
    match parse(text.as_bytes()) {
        Parsed::Request(request) => request,
        other => panic!("{text:?} is {other:?}"),
    }
}

#[test]
fn a_scrape_of_prometheus_is_read() {
    let text = include_str!("../../../fuzz/corpus/http_request/prometheus");
    let len = text.len();
    assert_eq!(
        request(text),
        Request { method: Method::Get, path: "/metrics", persistence: Persistence::KeepAlive, len }
    );
}

#[test]
fn the_path_is_parsed_without_host_and_query() {
    for (target, path) in [
        ("/", "/"),
        ("/metrics?x=1&y=?", "/metrics"),
        ("/a//b/../c", "/a//b/../c"),
        ("http://a:9710/metrics?x", "/metrics"),
        ("HTTP://a", "/"),
        ("https://a?x=/", "/"),
    ] {
        assert_eq!(request(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).path, path, "{target}");
    }
}

#[test]
fn keep_alive_depends_on_version_and_connection_header() {
    for (version, fields, persistence) in [
        ("1.1", "", Persistence::KeepAlive),
        ("1.2", "", Persistence::KeepAlive),
        ("1.1", "Connection: keep-alive\r\n", Persistence::KeepAlive),
        ("1.1", "connection: foo, CLOSE\r\n", Persistence::Close),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", Persistence::Close),
        ("1.0", "", Persistence::Close),
        ("1.0", "Connection: Keep-Alive\r\n", Persistence::AskedKeepAlive),
        ("1.0", "Connection: keep-alive, close\r\n", Persistence::Close),
    ] {
        let text = format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
        assert_eq!(request(&text).persistence, persistence, "{text:?}");
    }
}

#[test]
fn bare_newlines_and_leading_empty_lines_are_accepted() {
    assert_eq!(request("\r\n\nGET / HTTP/1.0\n\n").len, 19);
    let text = "GET / HTTP/1.1\r\nHost: a\nContent-Length: 0\r\n\nGET";
    assert_eq!(request(text).len, text.len() - 3);
}

#[test]
fn an_incomplete_request_asks_for_more() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for len in 0..text.len() {
        assert_eq!(parse(&text.as_bytes()[..len]), Parsed::Incomplete, "{len}");
    }
}

#[test]
fn an_unknown_method_is_a_request_unless_it_has_a_body() {
    for line in ["POST / HTTP/1.1", "OPTIONS * HTTP/1.1", "CONNECT a:1 HTTP/1.1", "get / HTTP/1.1"] {
        assert_eq!(request(&format!("{line}\r\nHost: a\r\n\r\n")).method, Method::Other, "{line}");
    }
    for field in ["Content-Length: 3", "Transfer-Encoding: chunked"] {
        let text = format!("PUT / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
        assert_eq!(parse(text.as_bytes()), Parsed::Bad(405), "{field}");
    }
}

#[test]
fn a_bad_request_has_the_status_that_says_why() {
    for (status, text) in [
        (400, "GET /\r\n\r\n"),
        (400, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
        (400, " GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "G(T / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET metrics HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /é HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\n x\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\0\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 1\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n"),
        (413, "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"),
        (413, "HEAD / HTTP/1.1\r\nHost: a\r\ncontent-length: 18446744073709551615\r\n\r\n"),
    ] {
        assert_eq!(parse(text.as_bytes()), Parsed::Bad(status), "{text:?}");
    }
}

#[test]
fn bytes_that_are_no_http_are_refused_at_the_first_byte() {
    assert_eq!(parse(b"\x16"), Parsed::Bad(400), "a TLS client is not kept waiting");
}

#[test]
fn a_request_head_may_have_16_kib() {
    let head = |len: usize| {
        let frame = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n";
        frame.replace("X: ", &format!("X: {}", "y".repeat(len - frame.len())))
    };
    assert_eq!(request(&head(REQUEST_MAX)).len, REQUEST_MAX);
    assert_eq!(parse(head(REQUEST_MAX + 1).as_bytes()), Parsed::Bad(431));
    assert_eq!(parse(&[b'a'; REQUEST_MAX]), Parsed::Bad(431));
    assert_eq!(parse(&[b'a'; REQUEST_MAX - 1]), Parsed::Incomplete);
}

#[test]
fn any_bytes_in_any_split_give_the_same_requests() {
    for seed in std::fs::read_dir("fuzz/corpus/http_request").expect("the corpus").flatten() {
        let mut bytes = std::fs::read(seed.path()).expect("a seed");
        fuzz::request(&bytes);
        // Each byte spoiled in turn, in the ways that matter to a parser of lines.
        for at in 0..bytes.len().min(300) {
            let right = bytes[at];
            for wrong in [b'\n', b'\r', b' ', b':', 0, 0xff] {
                bytes[at] = wrong;
                fuzz::request(&bytes[..bytes.len().min(600)]);
            }
            bytes[at] = right;
        }
    }
}
