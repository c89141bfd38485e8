//! `onset es-template` against a real server: what it sets up takes every document that a tracer can
//! write, in a data stream and in a plain index, and finds them again.

use std::collections::BTreeMap;
use std::path::Path;

use onset::tracer::{TRACERS, fuzz};
use serde_json::{Value, json};

use crate::fake::{Answer, Fake, Request};
use crate::nginx::{Authority, Nginx, only_user};
use crate::opensearch::{OpenSearch, shared};
use crate::rig::{Folder, ONSET, command, run};

/// A config for this server and index, and nothing else.
pub fn config(folder: &Folder, url: &str, index: &str, more: &str) -> std::path::PathBuf {
    let text = format!("[elasticsearch]\nurl = \"{url}\"\nindex = \"{index}\"\n{more}");
    folder.file(&format!("{index}.toml"), &text)
}

/// Exit code, what it printed, and what it complained of.
fn es_template(config: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = run(command(ONSET).arg("es-template").arg("--config").arg(config).args(arguments));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Documents of every tracer from scripts of events that are the same in each run: whatever a document
/// can hold is in there, the largest numbers and the strangest names included.
fn played() -> Vec<Value> {
    let mut state = 11_u64;
    let mut random = move || {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let mut documents = Vec::new();
    for place in 0..TRACERS.len() {
        for _ in 0..150 {
            let len = random() % 3000;
            let script = std::iter::once(place as u8).chain((0..len).map(|_| random() as u8));
            let seen = fuzz::play(&script.collect::<Vec<u8>>());
            documents.extend(seen.events.into_iter().map(|(_, document)| document));
        }
    }
    for (number, document) in documents.iter_mut().enumerate() {
        document["tracer_id"] = format!("{number:032x}").into();
        // As the shipper does.
        document["uploaded_time"] = "2026-11-26T00:00:00.000Z".into();
    }
    documents
}

/// Sends documents as the shipper does, and gives what became of each.
pub fn bulk(server: &OpenSearch, index: &str, documents: &[Value]) -> Vec<Value> {
    let mut items = Vec::new();
    for part in documents.chunks(200) {
        let lines = part.iter().map(|document| {
            let action = json!({ "create": { "_id": document["tracer_id"] } });
            format!("{action}\n{document}\n")
        });
        let (status, body) = server.post(&format!("/{index}/_bulk"), &lines.collect::<String>());
        assert_eq!(status, 200, "{body:#}");
        items.extend(body["items"].as_array().unwrap().iter().map(|item| item["create"].clone()));
    }
    assert_eq!(items.len(), documents.len());
    items
}

fn all_are_taken_and_found(server: &OpenSearch, index: &str) {
    let documents = played();
    for item in bulk(server, index, &documents) {
        assert_eq!(item["status"], 201, "{item:#}");
    }
    assert_eq!(server.count(index), documents.len() as u64);
    // Again, as after a crash: nothing is there twice.
    for item in bulk(server, index, &documents[..50]) {
        assert_eq!(item["status"], 409, "{item:#}");
    }
    assert_eq!(server.count(index), documents.len() as u64);

    let mut by_tracer = BTreeMap::<&str, Vec<&Value>>::new();
    for document in &documents {
        by_tracer.entry(document["tracer_name"].as_str().unwrap()).or_default().push(document);
    }
    assert_eq!(by_tracer.len(), TRACERS.len(), "of every tracer");
    for (tracer, documents) in by_tracer {
        found_by_container_and_time(server, index, tracer, &documents);
    }
    let unknown = server.found(index, &json!({ "exists": { "field": "tracer_data.flamedata.label" } }));
    assert!(unknown.is_empty(), "flame graphs are kept, not searched");
}

fn ids_of(hits: &[Value]) -> Vec<String> {
    let mut ids: Vec<String> = hits.iter().map(|hit| hit["_id"].as_str().unwrap().to_owned()).collect();
    ids.sort_unstable();
    ids
}

/// The ids of the documents that a query finds.
pub fn found_ids(server: &OpenSearch, index: &str, query: &Value) -> Vec<String> {
    ids_of(&server.found(index, query))
}

fn found_by_container_and_time(server: &OpenSearch, index: &str, tracer: &str, documents: &[&Value]) {
    let time = |document: &Value| document["tracer_time"].as_str().unwrap().to_owned();
    let mut times: Vec<String> = documents.iter().map(|document| time(document)).collect();
    times.sort();
    let (from, to) = (&times[times.len() / 4], &times[times.len() * 3 / 4]);
    let wanted = |container: Option<&Value>| {
        let fits = |document: &&&Value| {
            (container.is_none() || document.get("container_id") == container)
                && (from..=to).contains(&&time(document))
        };
        let mut ids: Vec<&str> =
            documents.iter().filter(fits).map(|document| document["tracer_id"].as_str().unwrap()).collect();
        ids.sort_unstable();
        ids.into_iter().map(str::to_owned).collect::<Vec<String>>()
    };
    let container = documents.iter().find_map(|document| document.get("container_id"));
    for container in [None, container] {
        let mut must = vec![
            json!({ "term": { "tracer_name": tracer } }),
            json!({ "range": { "tracer_time": { "gte": from, "lte": to } } }),
        ];
        must.extend(container.map(|id| json!({ "term": { "container_id": id } })));
        let found = server.found(index, &json!({ "bool": { "filter": must } }));
        let ids: Vec<String> = ids_of(&found);
        assert!(!ids.is_empty() && ids == wanted(container), "{tracer}: {container:?} {from} to {to}");
        for hit in &found {
            let sent = documents.iter().find(|document| document["tracer_id"] == hit["_id"]);
            assert_eq!(Some(&&hit["_source"]), sent, "as it was sent");
        }
    }
}

/// Documents beyond all that is declared: of a newer agent, or of a kernel that has gone mad.
fn odd_ones_are_taken_too(server: &OpenSearch, index: &str) {
    let odd = [
        json!({ "new_field": { "deep": [{ "a": 1 }, { "a": "one" }] }, "top_processes": [] }),
        json!({ "new_field": "of another type" }),
        json!({ "new_field": 5, "stack": "x".repeat(100_000), "trigger": "y".repeat(40_000) }),
        json!({ "trigger": "\u{20ac}".repeat(10_950), "known_issue": ["a".repeat(33_000), "b"] }),
        json!({ "duration_ms": u64::MAX, "lost_samples": -1, "wait_percent": f64::MAX, "anon_bytes": 1e300 }),
        json!({ "flamedata": [{ "level": "none", "value": {} }, 7], "tasks": [{ "tid": 1, "stack": ["a", "b"] }] }),
    ];
    let documents: Vec<Value> = odd.into_iter().enumerate().map(|(number, data)| json!({
        "@timestamp": "2026-11-26T00:00:00.000Z", "time": "2026-11-26T00:00:00.000Z", "tracer_name": "odd",
        "tracer_id": format!("odd-{number}"), "hostname": "host", "unheard_of": [[1], ["a"], {}], "tracer_data": data,
    })).collect();
    for item in bulk(server, index, &documents) {
        assert_eq!(item["status"], 201, "{item:#}");
    }
    let found = server.found(index, &json!({ "term": { "tracer_name": "odd" } }));
    assert_eq!(found.len(), documents.len());
    assert!(found.iter().all(|hit| documents.contains(&hit["_source"])), "whole");
    assert_eq!(server.found(index, &json!({ "term": { "tracer_data.known_issue": "b" } })).len(), 1);
    let tasks = server.found(index, &json!({ "term": { "tracer_data.tasks.tid": 1 } }));
    assert!(!tasks.is_empty(), "a row's fields are found");
}

#[test]
fn every_document_is_accepted_by_the_data_stream_that_onset_sets_up() {
    let Some(server) = shared("es-template") else { return };
    let folder = Folder::new();
    let config = config(&folder, &server.url(), "streamed", "");
    let (code, said, complained) = es_template(&config, &["--apply", "--retention", "none"]);
    assert_eq!((code, complained.as_str()), (0, ""), "{said}");
    assert!(said.starts_with("OpenSearch 2."), "{said}");
    assert!(said.contains("data stream streamed: created"), "{said}");
    let (_, before) = server.get("/streamed/_mapping");
    all_are_taken_and_found(&server, "streamed");
    odd_ones_are_taken_too(&server, "streamed");
    assert_eq!(server.get("/streamed/_mapping").1, before, "no document adds a field");
    let (status, streams) = server.get("/_data_stream/streamed");
    assert_eq!((status, &streams["data_streams"][0]["template"]), (200, &json!("streamed")), "{streams:#}");

    // Again, as after an upgrade; and in the next backing index all is as in the first.
    let (code, said, complained) = es_template(&config, &["--apply", "--retention", "none"]);
    assert_eq!((code, complained.as_str()), (0, ""), "{said}");
    assert!(said.contains("data stream streamed: was there"), "{said}");
    let (status, rolled) = server.post("/streamed/_rollover", "");
    assert_eq!((status, &rolled["rolled_over"]), (200, &json!(true)), "{rolled:#}");
    let (code, ..) = es_template(&config, &["--apply", "--retention", "none"]);
    assert_eq!(code, 0);
    let (_, mappings) = server.get("/streamed/_mapping");
    let mappings: Vec<&Value> = mappings.as_object().unwrap().values().collect();
    assert!(mappings.len() == 2 && mappings[0] == mappings[1], "{mappings:#?}");
}

#[test]
fn every_document_is_accepted_by_a_plain_index() {
    let Some(server) = shared("es-template --plain") else { return };
    let folder = Folder::new();
    let config = config(&folder, &server.url(), "plain", "");
    for want in ["index plain: created", "index plain: was there"] {
        let (code, said, complained) = es_template(&config, &["--apply", "--plain"]);
        assert_eq!((code, complained.as_str()), (0, ""), "{said}");
        assert!(said.contains(want), "{said}");
    }
    all_are_taken_and_found(&server, "plain");
    odd_ones_are_taken_too(&server, "plain");
    // An alias with an index behind it is as good.
    let alias = json!({ "aliases": { "aliased": { "is_write_index": true } } });
    assert_eq!(server.ask("PUT", "/aliased-1", Some(&alias.to_string())).0, 200);
    let aliased = self::config(&folder, &server.url(), "aliased", "");
    let (code, said, complained) = es_template(&aliased, &["--apply", "--plain"]);
    assert!(code == 0 && said.contains("index aliased: was there"), "{said}{complained}");
    odd_ones_are_taken_too(&server, "aliased");
    // Each of the two is told from the other before anything is changed.
    let (code, _, complained) = es_template(&config, &["--apply", "--retention", "none"]);
    assert!(code == 1 && complained.contains("say --plain"), "{complained}");
    assert_eq!(server.get("/_index_template/plain").0, 404);
}

#[test]
fn setting_up_an_existing_index_of_another_type_is_an_error() {
    let Some(server) = shared("es-template") else { return };
    let folder = Folder::new();
    let config = config(&folder, &server.url(), "lacking", "");
    // This server has no plugins.
    let (code, said, complained) = es_template(&config, &["--apply"]);
    assert_eq!((code, complained.as_str()), (1, ""), "{said}");
    let last = said.lines().last().unwrap();
    assert!(last.contains("NOT installed") && last.contains("opensearch-index-management"), "{said}");
    assert!(last.contains("until someone deletes them") && last.contains("--retention none"), "{said}");
    assert_eq!(server.get("/_data_stream/lacking").0, 200, "all else is there");
    let (code, _, complained) = es_template(&config, &["--apply", "--plain"]);
    assert!(code == 1 && complained.contains("leave out --plain"), "{complained}");
}

#[test]
fn the_template_is_set_up_only_over_verified_tls_and_with_rights() {
    let Some(server) = shared("es-template over TLS") else { return };
    let folder = Folder::new();
    let (authority, other) = (Authority::new(&folder.0, "right"), Authority::new(&folder.0, "other"));
    let who = only_user(&folder.0, "onset", "secret");
    let right = Nginx::start(&folder.0, server.address(), &authority.certificate("IP:127.0.0.1"), &who);
    let wrong =
        Nginx::start(&folder.0, server.address(), &authority.certificate("DNS:elsewhere.example"), "");
    let password = folder.file("password", "secret\n");
    let ca = |of: &Authority| format!("ca_file = \"{}\"\n", of.file().display());
    let login = format!("username = \"onset\"\npassword_file = \"{}\"\n", password.display());
    let apply = |name: &str, url: &str, more: &str| {
        let config = config(&folder, url, name, more);
        let (code, said, complained) = es_template(&config, &["--apply", "--retention", "none"]);
        assert!(!said.contains("secret") && !complained.contains("secret"));
        (code, complained)
    };
    assert_eq!(
        apply("tls", &right.url(), &(ca(&authority) + &login)),
        (0, String::new()),
        "{}",
        right.said()
    );
    assert_eq!(server.get("/_data_stream/tls").0, 200);
    for (name, url, more, says) in [
        ("tls-other", right.url(), ca(&other) + &login, "not of a CA that is trusted here; set ca_file"),
        ("tls-system", right.url(), login.clone(), "not of a CA that is trusted here; set ca_file"),
        ("tls-name", wrong.url(), ca(&authority), "for another name"),
        ("tls-nobody", right.url(), ca(&authority), "HTTP 401"),
        (
            "tls-no-ca",
            right.url(),
            format!("ca_file = \"{}\"\n", password.display()),
            "no certificate in PEM",
        ),
    ] {
        let (code, complained) = apply(name, &url, &more);
        assert_eq!((code, complained.lines().count()), (1, 1), "{name}: {complained}");
        assert!(complained.starts_with("onset: ") && complained.contains(says), "{name}: {complained}");
        assert_eq!(server.get(&format!("/_data_stream/{name}")).0, 404, "{name}");
    }
}

/// A server of this flavor that has policies, as its documentation has it, with a data stream or not.
fn governed(flavor: &'static str, stream: bool) -> Fake {
    Fake::start(move |request, _| {
        let found = |body: Value| Answer::json(200, &body);
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/") if flavor == "opensearch" => {
                found(json!({ "version": { "distribution": "opensearch", "number": "2.19.1" } }))
            }
            ("GET", "/") => found(json!({ "version": { "build_flavor": "default", "number": "8.19.0" } })),
            ("GET", "/_data_stream/onset") if stream => {
                let names = ["a", "b"].map(|name| json!({ "index_name": format!(".ds-onset-{name}") }));
                found(json!({ "data_streams": [{ "name": "onset", "indices": names }] }))
            }
            ("GET", "/_plugins/_ism/policies/onset") if stream => {
                found(json!({ "_id": "onset", "_seq_no": 17, "_primary_term": 3, "policy": {} }))
            }
            ("GET", _) => {
                Answer::json(404, &json!({ "error": { "type": "none", "reason": "none" }, "status": 404 }))
            }
            _ => found(json!({ "acknowledged": true })),
        }
    })
}

fn changes(fake: &Fake) -> Vec<(String, Value)> {
    let requests = fake.requests();
    let change = |request: &&Request| request.method != "GET";
    requests
        .iter()
        .filter(change)
        .map(|request| {
            let body = serde_json::from_slice(&request.body).unwrap_or_default();
            (format!("{} {}", request.method, request.path), body)
        })
        .collect()
}

#[test]
fn a_server_that_has_policies_is_given_one_and_what_is_there_already_is_put_under_it() {
    let folder = Folder::new();
    let cases: [(&str, bool, &[&str]); 4] = [
        (
            "elasticsearch",
            false,
            &["PUT /_ilm/policy/onset", "PUT /_index_template/onset", "PUT /_data_stream/onset"],
        ),
        (
            "elasticsearch",
            true,
            &[
                "PUT /_ilm/policy/onset",
                "PUT /_index_template/onset",
                "PUT /onset/_mapping",
                "PUT /onset/_settings",
            ],
        ),
        (
            "opensearch",
            false,
            &["PUT /_plugins/_ism/policies/onset", "PUT /_index_template/onset", "PUT /_data_stream/onset"],
        ),
        (
            "opensearch",
            true,
            &[
                "PUT /_plugins/_ism/policies/onset?if_seq_no=17&if_primary_term=3",
                "PUT /_index_template/onset",
                "PUT /onset/_mapping",
                "POST /_plugins/_ism/add/.ds-onset-a,.ds-onset-b",
                "POST /_plugins/_ism/change_policy/.ds-onset-a,.ds-onset-b",
            ],
        ),
    ];
    for (flavor, stream, want) in cases {
        let fake = governed(flavor, stream);
        let config = config(&folder, &fake.url(), "onset", "");
        let (code, said, complained) = es_template(&config, &["--apply", "--retention", "10d"]);
        assert_eq!((code, complained.as_str()), (0, ""), "{said}");
        assert!(
            said.contains("policy onset: a new backing index every 60h or 25gb, deleted 10d after"),
            "{said}"
        );
        let changes = changes(&fake);
        assert_eq!(changes.iter().map(|(line, _)| line.as_str()).collect::<Vec<_>>(), want, "{flavor}");
        // What is printed is what is done.
        let (_, printed, _) = es_template(&config, &["--json", "--flavor", flavor, "--retention", "10d"]);
        let printed: Vec<Value> = serde_json::from_str(&printed).unwrap();
        assert_eq!(printed[0]["body"], changes[0].1);
        assert_eq!(printed[1]["body"], changes[1].1);
    }
}

#[test]
fn missing_rights_to_set_up_are_named() {
    let folder = Folder::new();
    let fake = Fake::start(|request, _| match request.path.as_str() {
        "/" => Answer::json(200, &json!({ "version": { "number": "9.1.0" } })),
        path if request.method == "GET" && path.contains("onset") => Answer::json(404, &json!({})),
        _ => Answer::json(
            403,
            &json!({ "error": { "type": "security_exception", "reason": "action [x] is\nunauthorized" } }),
        ),
    });
    let config = config(&folder, &fake.url(), "onset", "");
    let (code, _, complained) = es_template(&config, &["--apply"]);
    assert_eq!((code, complained.lines().count()), (1, 1), "{complained}");
    for part in [
        "PUT http",
        "/_ilm/policy/onset",
        "403",
        "security_exception",
        "manage_index_templates",
        "manage_ilm",
    ] {
        assert!(complained.contains(part), "{part} in {complained}");
    }
    assert_eq!(changes(&fake).len(), 1, "it ends there");
    for (answer, says) in [
        (Answer::new(200, "<html>hello</html>"), "neither Elasticsearch nor OpenSearch"),
        (Answer::json(200, &json!({ "error": null })).cut(3), "cannot ask"),
        (Answer::close(), "cannot ask"),
        (Answer::new(502, "<html>bad gateway</html>"), "HTTP 502"),
    ] {
        let fake = Fake::start(move |_, _| answer.clone());
        let config = self::config(&folder, &fake.url(), "onset", "timeout = \"5s\"\n");
        let (code, _, complained) = es_template(&config, &["--apply"]);
        assert!(code == 1 && complained.contains(says) && complained.lines().count() == 1, "{complained}");
    }
    let config = self::config(&folder, "", "onset", "");
    let (code, _, complained) = es_template(&config, &["--apply"]);
    assert!(code == 2 && complained.starts_with("elasticsearch.url: "), "{complained}");
}

#[test]
fn the_printed_requests_can_be_sent_to_a_server() {
    let Some(server) = shared("es-template") else { return };
    let folder = Folder::new();
    let config = config(&folder, "", "printed", "");
    let (code, text, _) = es_template(&config, &["--flavor", "opensearch", "--retention", "none"]);
    assert_eq!(code, 0);
    let mut done = Vec::new();
    for block in text.split("\n\n").skip(1) {
        let (line, body) = block.trim_end().split_once('\n').unwrap_or((block.trim_end(), ""));
        let (method, path) = line.split_once(' ').unwrap();
        let (status, answer) = server.ask(method, path, Some(body).filter(|body| !body.is_empty()));
        assert_eq!(status, 200, "{line}: {answer:#}");
        done.push(path.to_owned());
    }
    assert_eq!(done, ["/_index_template/printed", "/_data_stream/printed"]);
    assert!(text.starts_with("# "), "{text}");
}
