//! The DaemonSet and the container's file: parsed, held against what was tested, and its config against
//! the agent.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use serde_json::Value;

use crate::rig::{Folder, ONSET, command, done};
use crate::unit::{CAPABILITIES, HOST, needed};
use crate::{file, read};

const MANIFEST: &str = "deploy/kubernetes/onset.yaml";
const KUBELET: &str = "deploy/kubernetes/kubelet.yaml";

fn objects() -> Vec<Value> {
    parsed(MANIFEST)
}

fn parsed(path: &str) -> Vec<Value> {
    let words = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.stdin))))";
    let from = Stdio::from(std::fs::File::open(file(path)).unwrap());
    serde_json::from_str(&done(command("python3").args(["-c", words]).stdin(from))).unwrap()
}

fn object(kind: &str) -> Value {
    objects().into_iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

fn words(list: &Value) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

#[test]
fn kubernetes_objects_are_named_onset_and_refer_to_each_other() {
    let objects = objects();
    let kinds: Vec<_> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        ["Namespace", "ServiceAccount", "ConfigMap", "DaemonSet"],
        "in the order in which they are made"
    );
    for object in &objects {
        assert_eq!(object["metadata"]["name"], "onset");
        assert!(object["kind"] == "Namespace" || object["metadata"]["namespace"] == "onset", "{object:#}");
    }
    let set = object("DaemonSet");
    let pod = &set["spec"]["template"];
    assert_eq!(set["spec"]["selector"]["matchLabels"], pod["metadata"]["labels"]);
    assert_eq!(pod["spec"]["serviceAccountName"], "onset");
    let image = pod["spec"]["containers"][0]["image"].as_str().unwrap();
    assert_eq!(image, format!("onset:{}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_pod_has_the_rights_that_are_tested_and_writes_to_its_log_and_its_socket_alone() {
    let pod = object("DaemonSet")["spec"]["template"]["spec"].clone();
    assert_eq!(pod["hostPID"], true);
    for none in ["hostNetwork", "hostIPC"] {
        assert!(pod.get(none).is_none(), "{none}");
    }
    let container = &pod["containers"][0];
    let security = &container["securityContext"];
    assert_eq!(words(&security["capabilities"]["drop"]), BTreeSet::from(["ALL".to_owned()]));
    let tested: BTreeSet<String> = CAPABILITIES.map(|name| name[4..].to_owned()).into();
    assert_eq!(words(&security["capabilities"]["add"]), tested);
    // A pod's limit of locked memory is the runtime's: that matters before 5.11 only.
    let modern = onset::confine::Host { release: (5, 11), memlock: false, ..HOST };
    let needed: BTreeSet<String> = needed(&modern).iter().map(|name| name[4..].to_owned()).collect();
    assert_eq!(needed, tested, "as doctor says");
    assert_eq!((&security["readOnlyRootFilesystem"], &security["privileged"]), (&true.into(), &false.into()));
    assert_eq!(security["allowPrivilegeEscalation"], false);
    let mounts = container["volumeMounts"].as_array().unwrap();
    let writable: BTreeSet<_> = mounts
        .iter()
        .filter(|mount| mount["readOnly"] != true)
        .map(|mount| mount["mountPath"].as_str().unwrap())
        .collect();
    assert_eq!(writable, BTreeSet::from(["/run/onset", "/var/lib/onset"]));
    let volumes: BTreeMap<_, _> = pod["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|volume| (volume["name"].as_str().unwrap(), volume))
        .collect();
    let mounted: BTreeSet<_> = mounts.iter().map(|mount| mount["name"].as_str().unwrap()).collect();
    assert_eq!(mounted, volumes.keys().copied().collect(), "each volume is mounted");
    for mount in mounts {
        if let Some(path) = volumes[mount["name"].as_str().unwrap()].pointer("/hostPath/path") {
            assert!(
                *path == mount["mountPath"] || mount["name"] == "cgroup",
                "{path} is where the config looks"
            );
        }
    }
}

#[test]
fn the_config_maps_config_is_valid_and_matches_mounts_and_probes() {
    let config = object("ConfigMap")["data"]["onset.toml"].as_str().unwrap().to_owned();
    let folder = Folder::new();
    let path = folder.file("onset.toml", &config);
    done(command(ONSET).arg("check").arg("--config").arg(&path).env("NODE_NAME", "node-1"));
    let config = config.replace("${NODE_NAME}", "node-1");
    let config = onset::config::Config::parse(&config, onset::tracer::TRACERS).unwrap();
    assert_eq!(config.hostname, "node-1");
    let pod = object("DaemonSet")["spec"]["template"].clone();
    let container = &pod["spec"]["containers"][0];
    let mounted = |path: &std::path::Path| {
        let mounts = container["volumeMounts"].as_array().unwrap();
        mounts.iter().any(|mount| path.starts_with(mount["mountPath"].as_str().unwrap()))
    };
    assert!(mounted(&config.socket) && mounted(&config.log.dir) && mounted(&config.paths.cgroup));
    // Its own: with hostPID they show the node.
    assert_eq!((config.paths.proc.to_str(), config.paths.sys.to_str()), (Some("/proc"), Some("/sys")));
    let names = &config.names;
    let folders = [&names.docker, &names.containerd, &names.storage, &names.runc];
    let of_runtimes = |at: &str| {
        folders
            .into_iter()
            .flatten()
            .any(|folder| folder.starts_with(at) || at.starts_with(folder.to_str().unwrap()))
    };
    for mount in container["volumeMounts"].as_array().unwrap() {
        let (name, at) = (&mount["name"], mount["mountPath"].as_str().unwrap());
        let own = ["config", "socket", "log", "cgroup"].iter().any(|own| name == own);
        assert!(own || of_runtimes(at), "{at} is where names are looked for");
    }
    assert!(config.listen.ip().is_unspecified());
    let port = u64::from(config.listen.port());
    assert_eq!(container["ports"][0]["containerPort"], port);
    assert_eq!(pod["metadata"]["annotations"]["prometheus.io/port"], port.to_string());
    for (probe, page) in
        [("startupProbe", "/readyz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")]
    {
        let get = &container[probe]["httpGet"];
        assert_eq!((&get["path"], &get["port"]), (&page.into(), &container["ports"][0]["name"]), "{probe}");
    }
    let arguments = words(&container["args"]);
    let file = arguments.iter().find(|argument| argument.starts_with('/')).unwrap();
    assert!(mounted(std::path::Path::new(file)));
    assert_eq!(container["env"][0]["name"], "NODE_NAME");
}

#[test]
fn runtime_state_of_each_distribution_is_mounted_where_the_agent_reads_it() {
    let pod = object("DaemonSet")["spec"]["template"]["spec"].clone();
    let mounts: BTreeSet<_> = pod["containers"][0]["volumeMounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| mount["mountPath"].as_str().unwrap().to_owned())
        .collect();
    let names = onset::config::Config::parse("", onset::tracer::TRACERS).unwrap().names;
    for state in [
        "/run/containerd",
        "/run/k3s/containerd",
        "/run/k0s/containerd",
        "/var/snap/microk8s/common/run/containerd",
    ] {
        assert!(mounts.contains(state), "{state}");
        assert!(names.containerd.iter().any(|folder| folder.as_os_str() == state), "{state}");
    }
}

#[test]
fn the_image_is_the_program_alone() {
    let text = read("deploy/container/Containerfile").replace("\\\n", " ");
    let words: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        .map(|line| line.split_whitespace().collect())
        .collect();
    let first: Vec<_> = words.iter().map(|line| line[0]).collect();
    assert_eq!(first, ["FROM", "LABEL", "COPY", "USER", "ENTRYPOINT", "CMD"]);
    assert_eq!((&words[0][1..], &words[2][1..]), (&["scratch"][..], &["onset", "/onset"][..]));
}

#[test]
fn the_service_account_has_only_the_kubelet_rights_it_needs() {
    let [role, binding] = &parsed(KUBELET)[..] else { panic!("a role and its binding") };
    let account = object("ServiceAccount")["metadata"].clone();
    assert_eq!(
        role["rules"],
        serde_json::json!([{"apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["get"]}])
    );
    assert_eq!(
        (&binding["roleRef"]["name"], &binding["roleRef"]["kind"]),
        (&role["metadata"]["name"], &role["kind"])
    );
    let subject = &binding["subjects"][0];
    assert_eq!((&subject["name"], &subject["namespace"]), (&account["name"], &account["namespace"]));
    // What it says to put into the config is a config.
    let text = read(KUBELET);
    let lines = text.lines().filter_map(|line| line.strip_prefix("#   "));
    let config = lines.map(|line| format!("{line}\n")).collect::<String>().replace("${NODE_NAME}", "node-1");
    let config = onset::config::Config::parse(&config, onset::tracer::TRACERS).unwrap();
    let kubelet = config.names.kubelet.unwrap();
    assert!(
        kubelet.url.starts_with("https://node-1:10250")
            && kubelet.token_file.is_some()
            && kubelet.ca_file.is_some()
    );
}
