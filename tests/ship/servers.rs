//! The servers themselves: that a test which builds on them can believe them.

use std::time::Duration;

use serde_json::json;

use crate::fake::{Answer, Fake};
use crate::http::try_ask;
use crate::nginx::{Authority, Nginx, only_user};
use crate::opensearch::{OpenSearch, shared};
use crate::rig::{Folder, SOON, command, run};

#[test]
fn a_stopped_or_killed_opensearch_gets_its_documents_after_its_restart() {
    let folder = Folder::new();
    let Some(mut server) = OpenSearch::start("OpenSearch", &folder.0) else { return };
    let (_, about) = server.get("/");
    assert!(about["version"]["number"].as_str().unwrap().starts_with("2."), "{about:#}");
    for round in 0..2 {
        let bulk = format!("{{\"create\":{{\"_id\":\"{round}\"}}}}\n{{\"round\":{round}}}\n");
        let (status, body) = server.post("/kept/_bulk", &bulk);
        assert_eq!((status, &body["errors"]), (200, &json!(false)), "{body:#}");
        if round == 0 {
            server.stop()
        } else {
            server.kill()
        }
        assert!(try_ask(server.address(), "GET", "/", None).is_none());
        server.again();
    }
    assert_eq!(server.count("kept"), 2);
    assert_eq!(server.found("kept", &json!({ "term": { "round": 1 } }))[0]["_id"], "1");
}

#[test]
fn shipping_works_through_nginx_with_tls_and_credentials() {
    let Some(server) = shared("nginx") else { return };
    let folder = Folder::new();
    let authority = Authority::new(&folder.0, "right");
    let other = Authority::new(&folder.0, "other");
    let certificate = authority.certificate("IP:127.0.0.1");
    let who = only_user(&folder.0, "onset", "secret");
    let nginx = Nginx::start(&folder.0, server.address(), &certificate, &who);
    let curl = |ca: &Authority, more: &[&str]| {
        let mut curl = command("curl");
        curl.args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--cacert"]).arg(ca.file());
        let output = run(curl.args(more).arg(nginx.url()));
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(curl(&authority, &["-u", "onset:secret"]), (Some(0), "200".to_owned()), "{}", nginx.said());
    assert_eq!(curl(&authority, &["-u", "onset:wrong"]).1, "401");
    // curl's own code for a certificate that it does not trust.
    assert_eq!(curl(&other, &[]).0, Some(60));
    assert!(nginx.seen().contains(" 401 "), "{}", nginx.seen());
}

#[test]
fn the_fake_server_replies_as_scripted_and_records_requests() {
    let fake = Fake::start(|request, before| match before {
        0 => Answer::items(request, |id| if id == "b" { 429 } else { 201 }),
        1 => Answer::new(429, "busy").header("Retry-After", "7"),
        2 => Answer::created(request).chunked(),
        3 => Answer::created(request).slowly(Duration::from_micros(50)),
        4 => Answer::created(request).cut(5),
        5 => Answer::close(),
        _ => Answer::never(),
    });
    let bulk = "{\"create\":{\"_id\":\"a\"}}\n{\"n\":1}\n{\"create\":{\"_id\":\"b\"}}\n{\"n\":2}\n";
    let curl = |more: &[&str]| {
        let mut curl = command("curl");
        curl.args(["-sS", "-i", "--data-binary", bulk, "-H", "Content-Type: application/x-ndjson"]);
        let output = run(curl.args(more).arg(fake.url() + "/onset/_bulk"));
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, first) = curl(&[]);
    assert!(
        code == 0 && first.contains("\"errors\":true") && first.contains("rejected_execution"),
        "{first}"
    );
    let (_, second) = curl(&[]);
    assert!(second.starts_with("HTTP/1.1 429 ") && second.contains("Retry-After: 7"), "{second}");
    for _ in ["chunked", "slowly"] {
        let (code, whole) = curl(&[]);
        assert!(code == 0 && whole.contains("\"errors\":false") && whole.ends_with('}'), "{whole}");
    }
    // curl's codes for a body that ends early, for no answer at all, and for its own limit.
    assert_eq!(curl(&[]).0, 18);
    assert_eq!(curl(&[]).0, 52);
    assert_eq!(curl(&["--max-time", "1"]).0, 28);
    let seen = fake.wait("all", SOON, |requests| requests.len() == 7);
    assert_eq!(seen[0].ids(), ["a", "b"]);
    assert_eq!(seen[6].documents(), [json!({ "n": 1 }), json!({ "n": 2 })]);
    assert_eq!(seen[0].header("content-type"), Some("application/x-ndjson"));
    assert_eq!((seen[0].path.as_str(), fake.connections()), ("/onset/_bulk", 7));
    let address = fake.address();
    drop(fake);
    assert!(
        crate::rig::await_that("the port to be free", SOON, || std::net::TcpListener::bind(address).ok())
            .local_addr()
            .is_ok()
    );
}
