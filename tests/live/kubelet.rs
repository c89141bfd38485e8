//! A kubelet as a node has it: a recorded list of pods behind TLS, a private CA, a token or a client's
//! certificate. And kubelets that refuse, or say nothing.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::cpuidle::spinner;
use crate::rig::{
    Agent, Folder, KillOnDrop, SOON, await_that, command, config, done, only, root, run, start, text,
};

const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/kubelet_pods/systemd-driver");
const TOKEN: &str = "a-token-of-a-service-account";
const POD: &str = "shop-7d4b9c6f5-x2v9k";
const SLICE: &str = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod9f1f8a52_8e51_4f0a_9c1f_0d6f5f1d2a3b.slice";

/// The runtime's id of a container in the recorded list.
fn recorded(name: &str) -> String {
    let list: Value = serde_json::from_slice(&fs::read(RECORDED).unwrap()).unwrap();
    let statuses = list["items"].as_array().unwrap().iter().flat_map(|pod| {
        let lists = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
        lists.into_iter().filter_map(|key| pod["status"][key].as_array()).flatten()
    });
    let id =
        statuses.into_iter().find(|status| status["name"] == name).unwrap()["containerID"].as_str().unwrap();
    id.rsplit('/').next().unwrap().to_owned()
}

/// A stand-in for a container of the recorded list, where the systemd driver has it.
fn stand_in(name: &str) -> Cgroup {
    let id = recorded(name);
    Cgroup::at(&format!("{SLICE}/cri-containerd-{id}.scope"), &id)
}

/// A CA, and a certificate of it for the server and for a client, in a folder.
fn certificates(folder: &Folder) {
    let at = |name: &str| folder.0.join(name);
    let openssl = |arguments: &[&str]| {
        let mut openssl = command("openssl");
        openssl.args([
            "req",
            "-x509",
            "-nodes",
            "-days",
            "2",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ]);
        done(openssl.args(arguments).current_dir(&folder.0));
    };
    openssl(&[
        "-subj",
        "/CN=a node's CA",
        "-addext",
        "keyUsage=critical,keyCertSign",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
    ]);
    for (name, subject) in [("node", "DNS:localhost"), ("client", "DNS:onset")] {
        let (key, pem, names) =
            (format!("{name}.key"), format!("{name}.pem"), format!("subjectAltName={subject}"));
        openssl(&[
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-subj",
            &format!("/CN={name}"),
            "-addext",
            &names,
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-keyout",
            &key,
            "-out",
            &pem,
        ]);
    }
    assert!(at("client.pem").exists());
}

/// The server: nginx with the recorded list at /pods, for whom `who` lets in.
struct Kubelet {
    folder: PathBuf,
    port: u16,
    _running: KillOnDrop,
}

impl Kubelet {
    /// `who` is lines of nginx's own for the list.
    fn start(folder: &Folder, who: &str) -> Kubelet {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = folder.0.display();
        // A single process: a worker of a master that was killed would go on alone.
        let text = format!(
            "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log;\nevents {{}}\nhttp {{\n\
             access_log {at}/access.log; client_body_temp_path {at}/b; proxy_temp_path {at}/p;\n\
             fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n\
             server {{ listen 127.0.0.1:{port} ssl;\n\
             ssl_certificate {at}/node.pem; ssl_certificate_key {at}/node.key; ssl_client_certificate {at}/ca.pem; ssl_verify_client optional;\n\
             location = /pods {{ {who} default_type application/json; alias {RECORDED}; }}\n}}\n}}\n"
        );
        let file = folder.file("nginx.conf", &text);
        let mut nginx = command("nginx");
        nginx.arg("-e").arg(folder.0.join("error.log")).arg("-p").arg(&folder.0).arg("-c").arg(file);
        let kubelet = Kubelet { folder: folder.0.clone(), port, _running: start(&mut nginx) };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        await_that("nginx to listen", SOON, || std::net::TcpStream::connect(address).ok());
        kubelet
    }

    /// For whoever brings the token.
    fn with_token(folder: &Folder) -> Kubelet {
        Kubelet::start(folder, &format!("if ($http_authorization != \"Bearer {TOKEN}\") {{ return 401; }}"))
    }

    /// How often it was asked for the list.
    fn asked(&self) -> usize {
        let log = fs::read_to_string(self.folder.join("access.log")).unwrap_or_default();
        log.lines().filter(|line| line.contains("GET /pods ")).count()
    }

    fn keys(&self, more: &str) -> String {
        let at = self.folder.display();
        format!("kubelet = \"https://localhost:{}\"\nkubelet_ca_file = \"{at}/ca.pem\"\n{more}", self.port)
    }
}

/// An agent that catches a spinner, and asks this kubelet.
fn agent(keys: &str, filters: &str) -> Agent {
    let tracer =
        only("cpuidle", &format!("every = \"500ms\"\ncapture = \"1s\"\nsustained_samples = 2\n{filters}"));
    let folder = Folder::new();
    let file = config(&folder, "", &format!("{tracer}[containers]\n{keys}\n"));
    Agent::start_in(folder, file)
}

fn token_file(folder: &Folder, token: &str) -> String {
    format!("kubelet_token_file = {:?}", folder.file("token", &format!("{token}\n")))
}

const OF_WEB: [(&str, &str); 6] = [
    ("container_name", "web"),
    ("container_host_namespace", "shop"),
    ("container_hostname", POD),
    ("container_type", "container"),
    ("container_qos", "burstable"),
    ("pod", POD),
];

#[test]
fn events_and_metrics_have_the_kubelets_names() {
    if !root("a kubelet") {
        return;
    }
    let folder = Folder::new();
    certificates(&folder);
    let kubelet = Kubelet::with_token(&folder);
    let cgroups = ["web", "metrics", "migrate", "istio-proxy", "debugger-k7x2p"].map(stand_in);
    let agent = agent(&kubelet.keys(&token_file(&folder, TOKEN)), "");
    let [web, ..] = &cgroups;
    web.quota(20);
    let labels = |cgroup: &Cgroup, name: &str| {
        format!(
            "onset_container_cpu_ratio{{container_id=\"{}\",container=\"{name}\",pod=\"{POD}\",namespace=\"shop\",mode=\"user\"}}",
            cgroup.id
        )
    };
    for (cgroup, name) in cgroups.iter().zip(["web", "metrics", "migrate", "istio-proxy", "debugger-k7x2p"]) {
        await_that(name, SOON, || agent.metric(&labels(cgroup, name)));
    }
    let _spinner = web.start(&mut command(spinner(&folder, "burn_here")));
    let event = agent.event("the spinner's event", SOON, |it| it["container_id"] == web.id.as_str());
    for (field, value) in OF_WEB {
        assert_eq!(event[field], value, "{field} of {event:#}");
    }
    // All five were there at the start.
    assert_eq!(kubelet.asked(), 1);

    let listed = done(&mut agent.onset(&["containers", "--json"]));
    let rows: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (cgroup, role) in cgroups.iter().zip(["container", "container", "init", "sidecar", "ephemeral"]) {
        let row = rows.iter().find(|row| row["container_id"] == cgroup.id.as_str()).unwrap();
        assert_eq!((&row["container_type"], &row["pod"]), (&role.into(), &POD.into()), "{row:#}");
    }
    assert_eq!(agent.leave(), Some(0));
}

#[test]
fn a_client_certificate_serves_instead_of_a_token() {
    if !root("a kubelet") {
        return;
    }
    let folder = Folder::new();
    certificates(&folder);
    let who = "if ($ssl_client_verify != SUCCESS) { return 401; }";
    let kubelet = Kubelet::start(&folder, who);
    let web = stand_in("web");
    let listed = |keys: &str| {
        let text = format!("[containers]\n{}\n", kubelet.keys(keys));
        let file = folder.file("list.toml", &text);
        run(command(crate::rig::ONSET).args(["containers", "--json", "--config"]).arg(file))
    };
    let at = folder.0.display();
    let with =
        listed(&format!("kubelet_cert_file = \"{at}/client.pem\"\nkubelet_key_file = \"{at}/client.key\""));
    let said = String::from_utf8(with.stdout).unwrap();
    assert!(with.status.success() && said.contains("\"web\"") && said.contains(&web.id), "{said}");
    let without = listed("");
    assert_eq!(without.status.code(), Some(1));
    let said = String::from_utf8(without.stderr).unwrap();
    assert!(said.contains("401"), "{said}");
}

#[test]
fn a_wrong_kubelet_token_is_logged_once_and_a_corrected_one_used() {
    if !root("a kubelet") {
        return;
    }
    let folder = Folder::new();
    certificates(&folder);
    let kubelet = Kubelet::with_token(&folder);
    let web = stand_in("web");
    let agent = agent(&kubelet.keys(&token_file(&folder, "of another")), "");
    let line = agent.said.wait("a word on the token", SOON, |line| {
        line.contains("no names from the kubelet").then(|| line.to_owned())
    });
    assert!(line.contains("401") && line.contains("kubelet_token_file"), "{line}");
    let failures = "onset_faults_total{tracer=\"onset\",fault=\"kubelet\"}";
    await_that("the failure's count", SOON, || agent.metric(failures).filter(|count| *count >= 1.0));
    await_that("a second try", Duration::from_secs(40), || (kubelet.asked() >= 2).then_some(()));
    // A token that is renewed while it runs.
    token_file(&folder, TOKEN);
    let again = agent.said.wait("that it is well again", Duration::from_secs(40), |line| {
        assert!(!line.contains("no names from the kubelet"), "told twice: {line}");
        line.contains("tells names again").then(|| line.to_owned())
    });
    assert!(again.contains("kubelet"));
    let named = format!("container_id=\"{}\",container=\"web\"", web.id);
    await_that("its name", SOON, || agent.get("/metrics").1.contains(&named).then_some(()));
    assert_eq!(agent.leave(), Some(0));
}

#[test]
fn a_hung_kubelet_delays_nothing() {
    if !root("a kubelet") {
        return;
    }
    let folder = Folder::new();
    // It takes connections, and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let web = stand_in("web");
    web.quota(20);
    let agent = agent(&format!("kubelet = \"http://{}\"", listener.local_addr().unwrap()), "");
    let _stuck = listener.accept().unwrap();
    let before = agent.metric("onset_samples_total{tracer=\"cpuidle\"}").unwrap();
    let _spinner = web.start(&mut command(spinner(&folder, "burn_here")));
    let event = agent.event("the spinner's event", SOON, |it| it["container_id"] == web.id.as_str());
    // What its path tells is told.
    assert_eq!(text(&event, "/pod_uid"), "9f1f8a52-8e51-4f0a-9c1f-0d6f5f1d2a3b");
    assert_eq!(text(&event, "/container_qos"), "burstable");
    assert_eq!(event["container_name"], Value::Null);
    await_that("more samples", SOON, || {
        agent.metric("onset_samples_total{tracer=\"cpuidle\"}").filter(|now| *now > before + 4.0)
    });
    let line = agent.said.wait("a word on it", Duration::from_secs(40), |line| {
        line.contains("no names from the kubelet").then(|| line.to_owned())
    });
    assert!(line.contains("took too long"), "{line}");
    assert_eq!(agent.leave(), Some(0), "it leaves at once");
}

#[test]
fn a_filtered_namespace_makes_no_events_but_manual_triggers_work() {
    if !root("a kubelet") {
        return;
    }
    let folder = Folder::new();
    certificates(&folder);
    let kubelet = Kubelet::with_token(&folder);
    let (web, other) = (stand_in("web"), Cgroup::new("unfiltered"));
    let filter = "exclude = [\"namespace:sh?p\"]";
    let agent = agent(&kubelet.keys(&token_file(&folder, TOKEN)), filter);
    await_that("the list", SOON, || (kubelet.asked() == 1).then_some(()));
    let burner = spinner(&folder, "burn_here");
    let spinners = [&web, &other].map(|cgroup| {
        cgroup.quota(20);
        cgroup.start(&mut command(&burner))
    });
    agent.event("the other's event", SOON, |it| it["container_id"] == other.id.as_str());
    assert!(agent.events().iter().all(|it| it["container_id"] == other.id.as_str()), "the other's alone");
    let page = agent.get("/metrics").1;
    assert!(page.contains(&other.id) && !page.contains(&web.id), "{page}");
    let id = done(&mut agent.onset(&["trigger", "cpuidle", "--container", &web.id, "--seconds", "1"]));
    let asked = agent.event("what was asked for", SOON, |it| it["tracer_id"] == id.trim());
    assert_eq!(text(&asked, "/container_name"), "web");
    drop(spinners);
    assert_eq!(agent.leave(), Some(0));
}
