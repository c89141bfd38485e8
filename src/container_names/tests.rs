//! Runtimes' folders that are written for each test, and kubelets that are no more than a listener.

mod files;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Condvar;
use std::sync::atomic::AtomicU32;
use std::thread::JoinHandle;
use std::time::Duration;

use super::*;
use crate::config::Kubelet;
use crate::host::Role;
use crate::host::containers::claim::Maker;
use crate::host::containers::path;

const SYSTEMD: &[u8] = include_bytes!("../../fuzz/corpus/kubelet_pods/systemd-driver");
const UID: &str = "9f1f8a52-8e51-4f0a-9c1f-0d6f5f1d2a3b";
/// In the recorded list: the container `web` of the pod of this uid.
const WEB: &str = "043db0fe795fc2cfd937e3d47494472d16f67234d8df2a242c2cd91ac17693fc";

struct Root(PathBuf);

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Root {
    fn new() -> Root {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("onset-resolver-{}-{number}", std::process::id()));
        fs::create_dir_all(&root).expect("a folder");
        Root(root)
    }

    fn names(&self) -> Names {
        let text = format!("[paths]\nroot = {:?}\n", self.0);
        crate::config::Config::parse(&text, &[]).expect("valid").names
    }

    fn write(&self, path: &str, corpus: &str) {
        let path = self.0.join(path);
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(corpus);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, fs::read(from).expect("a corpus file")).expect("a file");
    }

    /// Name, pod, host name and role.
    fn found(&self, id: &str) -> Option<[String; 4]> {
        let it = runtimes::find(&self.names(), id, false)?.identity;
        Some([&*it.name, &it.pod, &it.hostname, it.role.map_or("", Role::name)].map(str::to_owned))
    }
}

fn id(number: u32) -> String {
    format!("{number:064x}")
}

fn spawner() -> ThreadSpawner {
    let spawner = ThreadSpawner::new();
    spawner.begin();
    spawner
}

#[test]
fn the_state_directory_of_each_runtime_is_read() {
    let root = Root::new();
    let shop = "shop-7d4b9c6f5-x2v9k";
    let v2 = "run/containerd/io.containerd.runtime.v2.task";
    root.write(&format!("var/lib/docker/containers/{}/config.v2.json", id(1)), "docker_config/plain");
    root.write(&format!("{v2}/k8s.io/{}/config.json", id(2)), "oci_spec/containerd-pod");
    root.write(&format!("{v2}/default/redis/config.json"), "oci_spec/containerd-ctr");
    root.write(
        &format!("run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/{}/config.json", id(3)),
        "oci_spec/containerd-sandbox",
    );
    root.write(
        &format!("run/containers/storage/overlay-containers/{}/userdata/config.json", id(4)),
        "oci_spec/crio-pod",
    );
    root.write(&format!("run/runc/{}/state.json", id(5)), "runc_state/annotated");
    root.write(&format!("run/containerd/runc/k8s.io/{}/state.json", id(6)), "runc_state/annotated");
    root.write("run/runc/plain/state.json", "runc_state/plain");
    for (id, want) in [
        (&*id(1), ["shop-cache-1", "", "cache", "container"]),
        (&id(2), ["web", shop, "", ""]),
        ("redis", ["redis", "", "web-1", "container"]),
        (&id(3), ["", shop, shop, "sandbox"]),
        (&id(4), ["job", "batch-28541-qq7lm", "batch-28541-qq7lm", ""]),
        (&id(5), ["web", shop, "web-1", ""]),
        (&id(6), ["web", shop, "web-1", ""]),
        ("plain", ["plain", "", "runc", "container"]),
    ] {
        assert_eq!(root.found(id), Some(want.map(str::to_owned)), "{id}");
    }
    assert_eq!(root.found(&id(7)), None);
}

#[test]
fn podman_has_the_name_in_its_list_and_the_rest_in_the_spec() {
    let root = Root::new();
    let list = "podman_containers/two";
    let bytes =
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(list)).expect("a file");
    let all: serde_json::Value = serde_json::from_slice(&bytes).expect("a list");
    let id = all[0]["id"].as_str().expect("an id");
    for driver in ["overlay", "vfs"] {
        let root_of = format!("var/lib/containers/storage/{driver}-containers");
        root.write(&format!("{root_of}/{id}/userdata/config.json"), "oci_spec/podman");
        root.write(&format!("{root_of}/containers.json"), list);
        let want = ["web", "", "f00dfeed0011", "container"].map(str::to_owned);
        assert_eq!(root.found(id), Some(want), "{driver}");
        fs::remove_dir_all(root.0.join(&root_of)).expect("a folder");
    }
}

#[test]
fn docker_names_take_precedence_over_containerds() {
    let root = Root::new();
    root.write(
        &format!("run/containerd/io.containerd.runtime.v2.task/moby/{}/config.json", id(1)),
        "oci_spec/containerd-ctr",
    );
    assert_eq!(root.found(&id(1)).map(|it| it[2].clone()), Some("web-1".into()), "the host name alone");
    root.write(&format!("var/lib/docker/containers/{}/config.v2.json", id(1)), "docker_config/plain");
    assert_eq!(root.found(&id(1)).map(|it| it[0].clone()), Some("shop-cache-1".into()));
}

/// A bell that tests wait for, as the loop waits for its waker.
#[derive(Default)]
struct Bell(Mutex<u64>, Condvar);

impl Bell {
    fn wake(self: &Arc<Bell>) -> Wake {
        let bell = Arc::clone(self);
        Arc::new(move || {
            *bell.0.lock().expect("whole") += 1;
            bell.1.notify_all();
        })
    }

    /// The next answer.
    fn report(&self, resolver: &NameResolver) -> (Key, NameReport) {
        let mut rung = self.0.lock().expect("whole");
        loop {
            if let Some(report) = resolver.next_report() {
                return report;
            }
            let waited = self.1.wait_timeout(rung, Duration::from_secs(30)).expect("whole");
            assert!(!waited.1.timed_out(), "no answer");
            rung = waited.0;
        }
    }
}

fn container(path: &str) -> (Containers, Key) {
    let mut table = Containers::with_capacity(16);
    let found = path::recognise(path).expect("a container's path");
    let key = table.appear(path.as_bytes(), &found, 1, Maker::Host).expect("room");
    (table, key)
}

fn pod_container(id: &str) -> (Containers, Key) {
    container(&format!("/kubepods/burstable/pod{UID}/{id}"))
}

fn kubelet(address: std::net::SocketAddr) -> Option<Kubelet> {
    Some(Kubelet { url: format!("http://{address}/pods"), ca_file: None, token_file: None, identity: None })
}

/// Where a kubelet would listen, and names that are asked of it.
fn listening(root: &Root) -> (Names, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    (Names { kubelet: kubelet(listener.local_addr().expect("bound")), ..root.names() }, listener)
}

/// A kubelet that answers once, and names that are asked of it.
fn answering(root: &Root, status: &'static str, body: &'static [u8]) -> (Names, JoinHandle<()>) {
    let (names, listener) = listening(root);
    let server = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a caller");
        answer(stream, status, body);
    });
    (names, server)
}

/// Reads one request and answers it.
fn answer(stream: TcpStream, status: &str, body: &[u8]) {
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    while reader.read_line(&mut line).expect("a request") > 2 {
        line.clear();
    }
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    (&stream).write_all(&[head.as_bytes(), body].concat()).expect("room");
}

#[test]
fn a_state_file_that_appears_late_is_still_read() {
    let root = Root::new();
    let (table, key) = container(&format!("/docker/{}", id(1)));
    let bell = Arc::new(Bell::default());
    let resolver = NameResolver::new(&root.names(), 16, bell.wake(), spawner());
    resolver.resolve(table.get(key).expect("there"));
    root.write(&format!("run/runc/{}/state.json", id(1)), "runc_state/annotated");
    let (whose, report) = bell.report(&resolver);
    assert_eq!((whose, &*report.identity.name), (key, "web"));
    assert_eq!(resolver.faults(), Faults::default());
}

#[test]
fn the_kubelet_adds_what_the_runtime_does_not_know() {
    let root = Root::new();
    let (names, server) = answering(&root, "200 OK", SYSTEMD);
    let (mut table, key) = pod_container(WEB);
    let bell = Arc::new(Bell::default());
    let resolver = NameResolver::new(&names, 16, bell.wake(), spawner());
    resolver.resolve(table.get(key).expect("there"));
    let (whose, report) = bell.report(&resolver);
    table.learn(whose, &report);
    let known = table.get(key).expect("there");
    assert_eq!(
        (known.name(), known.pod(), known.namespace(), known.role(), known.qos()),
        ("web", "shop-7d4b9c6f5-x2v9k", "shop", Some(Role::Container), Some("burstable"))
    );
    server.join().expect("it answered");
}

#[test]
fn a_container_missing_from_the_kubelets_list_gets_its_pods_name() {
    let root = Root::new();
    let (names, server) = answering(&root, "200 OK", SYSTEMD);
    let (table, _) = pod_container(&id(1));
    let (found, error) = resolve_all(&names, &table);
    let [(_, report)] = &found[..] else { panic!("{found:?}") };
    assert_eq!(
        (&*report.identity.name, &*report.identity.pod, &*report.identity.namespace),
        ("", "shop-7d4b9c6f5-x2v9k", "shop")
    );
    assert_eq!(error, None);
    server.join().expect("it answered");
}

#[test]
fn a_hung_kubelet_delays_no_other_source() {
    let root = Root::new();
    root.write(&format!("run/runc/{WEB}/state.json"), "runc_state/annotated");
    // It takes the connection and says nothing.
    let (names, listener) = listening(&root);
    let (table, key) = pod_container(WEB);
    let bell = Arc::new(Bell::default());
    let resolver = NameResolver::new(&names, 16, bell.wake(), spawner());
    resolver.resolve(table.get(key).expect("there"));
    let _stuck = listener.accept().expect("it is asked");
    // While it is: the runtime's word comes, and others are taken in.
    assert_eq!(&*bell.report(&resolver).1.identity.name, "web");
    resolver.resolve(table.get(key).expect("there"));
    assert_eq!(&*bell.report(&resolver).1.identity.name, "web");
    drop(resolver);
}

#[test]
fn a_kubelet_refusal_is_logged_with_its_remedy() {
    let root = Root::new();
    let (table, _) = pod_container(WEB);
    for (status, body, hint) in [
        ("401 Unauthorized", &b"Unauthorized"[..], "kubelet_token_file"),
        ("403 Forbidden", b"Forbidden", "nodes/proxy"),
        ("404 Not Found", b"404 page not found", "answers 404"),
        ("200 OK", b"<html>", "no list of pods"),
    ] {
        let (names, server) = answering(&root, status, body);
        let (found, error) = resolve_all(&names, &table);
        assert!(found.is_empty());
        assert!(error.as_ref().is_some_and(|error| error.contains(hint)), "{status}: {error:?}");
        server.join().expect("it answered");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let (_, error) = resolve_all(&Names { kubelet: kubelet(nobody), ..root.names() }, &table);
    assert!(error.is_some_and(|error| error.contains("refused")));
}

#[test]
fn containers_that_start_together_share_one_kubelet_request() {
    let root = Root::new();
    let (names, listener) = listening(&root);
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            count.fetch_add(1, Ordering::Relaxed);
            answer(stream.expect("a caller"), "200 OK", SYSTEMD);
        }
    });
    let ids = ["metrics", "migrate", "istio-proxy", "web"];
    let list: serde_json::Value = serde_json::from_slice(SYSTEMD).expect("a list");
    let status = &list["items"][0]["status"];
    let all = ["containerStatuses", "initContainerStatuses"];
    let of = |name: &str| {
        let statuses = all.iter().flat_map(|key| status[*key].as_array().expect("a list"));
        let it = statuses.into_iter().find(|it| it["name"] == name).expect("recorded");
        it["containerID"].as_str().and_then(|id| id.strip_prefix("containerd://")).expect("an id").to_owned()
    };
    let mut table = Containers::with_capacity(16);
    let bell = Arc::new(Bell::default());
    let resolver = NameResolver::new(&names, 16, bell.wake(), spawner());
    for name in ids {
        let path = format!("/kubepods/burstable/pod{UID}/{}", of(name));
        let found = path::recognise(&path).expect("a container's path");
        let key = table.appear(path.as_bytes(), &found, 1, Maker::Host).expect("room");
        resolver.resolve(table.get(key).expect("there"));
    }
    for _ in ids {
        let (key, report) = bell.report(&resolver);
        table.learn(key, &report);
    }
    let mut names: Vec<_> = table.iter().map(Container::name).collect();
    names.sort_unstable();
    assert_eq!(names, ["istio-proxy", "metrics", "migrate", "web"]);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[test]
fn a_sandbox_missing_from_the_kubelets_list_is_not_waited_for() {
    let root = Root::new();
    root.write(
        &format!("run/containerd/io.containerd.runtime.v2.task/k8s.io/{}/config.json", id(1)),
        "oci_spec/containerd-sandbox",
    );
    let (names, server) = answering(&root, "200 OK", SYSTEMD);
    let (table, key) = pod_container(&id(1));
    let bell = Arc::new(Bell::default());
    let resolver = NameResolver::new(&names, 16, bell.wake(), spawner());
    resolver.resolve(table.get(key).expect("there"));
    // Its runtime's word and its pod's.
    let report = [bell.report(&resolver).1.identity, bell.report(&resolver).1.identity];
    assert!(report.iter().any(|it| it.role == Some(Role::Sandbox)));
    assert!(report.iter().all(|it| &*it.pod == "shop-7d4b9c6f5-x2v9k"));
    server.join().expect("it answered");
    let end = Instant::now() + Duration::from_secs(30);
    while resolver.shared.pods.has_worker() {
        assert!(Instant::now() < end, "the thread waits for another list");
        std::thread::yield_now();
    }
}
