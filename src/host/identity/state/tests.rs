use super::*;
use crate::host::identity::Role;

macro_rules! corpus {
    ($file:literal) => {
        include_bytes!(concat!("../../../../fuzz/corpus/", $file))
    };
}

/// Name, pod, namespace, host name and role.
fn seen(it: Option<RuntimeRecord>) -> [String; 5] {
    let it = it.expect("it can be read").identity;
    [&*it.name, &it.pod, &it.namespace, &it.hostname, it.role.map_or("", Role::name)].map(str::to_owned)
}

#[test]
fn containerds_spec_names_a_pods_container_and_its_sandbox() {
    let shop = "shop-7d4b9c6f5-x2v9k";
    assert_eq!(seen(oci(corpus!("oci_spec/containerd-pod"))), ["web", shop, "shop", "", ""]);
    assert_eq!(seen(oci(corpus!("oci_spec/containerd-sandbox"))), ["", shop, "shop", shop, "sandbox"]);
    let told = oci(corpus!("oci_spec/containerd-pod")).expect("read");
    assert_eq!(&*told.identity.pod_uid, "9f1f8a52-8e51-4f0a-9c1f-0d6f5f1d2a3b");
}

#[test]
fn a_spec_of_ctr_or_nerdctl_has_at_most_a_name() {
    assert_eq!(seen(oci(corpus!("oci_spec/containerd-ctr"))), ["", "", "", "web-1", "container"]);
    assert_eq!(seen(oci(corpus!("oci_spec/nerdctl"))), ["proxy", "", "", "3f5a0b7c9d1e", "container"]);
}

#[test]
fn crio_and_podman_specs_are_read_by_the_same_annotations() {
    let batch = "batch-28541-qq7lm";
    assert_eq!(seen(oci(corpus!("oci_spec/crio-pod"))), ["job", batch, "jobs", batch, ""]);
    assert_eq!(seen(oci(corpus!("oci_spec/crio-sandbox"))), ["", batch, "jobs", batch, "sandbox"]);
    assert_eq!(seen(oci(corpus!("oci_spec/podman"))), ["", "", "", "f00dfeed0011", "container"]);
}

#[test]
fn dockers_config_gives_the_containers_or_the_pods_name() {
    assert_eq!(seen(docker(corpus!("docker_config/plain"))), ["shop-cache-1", "", "", "cache", "container"]);
    assert_eq!(seen(docker(corpus!("docker_config/cri-dockerd"))), ["postgres", "db-0", "shop", "db-0", ""]);
    assert_eq!(
        seen(docker(corpus!("docker_config/cri-dockerd-sandbox"))),
        ["", "db-0", "shop", "db-0", "sandbox"]
    );
}

#[test]
fn podmans_list_names_the_containers_in_it() {
    let list = corpus!("podman_containers/two");
    let ids: Vec<String> = serde_json::from_slice::<Vec<serde_json::Value>>(list)
        .expect("a list")
        .iter()
        .map(|entry| entry["id"].as_str().expect("an id").to_owned())
        .collect();
    assert_eq!(podman(list, &ids[0]).as_deref(), Some("web"));
    assert_eq!(podman(list, &ids[1]), None);
    assert_eq!(podman(list, "other"), None);
}

#[test]
fn runcs_state_gives_annotations_or_at_least_the_host_name() {
    let shop = "shop-7d4b9c6f5-x2v9k";
    assert_eq!(seen(runc(corpus!("runc_state/annotated"))), ["web", shop, "shop", "web-1", ""]);
    assert_eq!(seen(runc(corpus!("runc_state/plain"))), ["", "", "", "runc", "container"]);
}

#[test]
fn other_files_give_no_names() {
    for bytes in [&b""[..], b"null", b"[]", b"{\"hostname\":3}", b"{\"annotations\":{\"a\":1}}"] {
        assert_eq!(oci(bytes), None, "{}", bytes.escape_ascii());
    }
    assert_eq!(docker(b"{\"Name\":[]}"), None);
    assert_eq!(podman(b"{}", "x"), None);
    assert_eq!(runc(b"{\"id\":\"x\"}"), None);
}

#[test]
fn an_applications_environment_gives_no_name() {
    let next = br#"{"process":{"env":["PATH=/bin","HOSTNAME=0.0.0.0"]},"annotations":{}}"#;
    assert_eq!(seen(oci(next)), ["", "", "", "", "container"], "next.js is told so where to listen");
    let named = br#"{"hostname":"web-1","process":{"env":["HOSTNAME=0.0.0.0"]}}"#;
    assert_eq!(seen(oci(named))[3], "web-1");
}

#[test]
fn the_cgroup_record_of_each_runtime_is_parsed() {
    let of = |noted: Option<RuntimeRecord>| {
        noted.expect("it can be read").cgroup.map(String::from).unwrap_or_default()
    };
    assert_eq!(of(oci(corpus!("oci_spec/containerd-ctr"))), "/default/redis");
    assert!(of(oci(corpus!("oci_spec/containerd-pod"))).starts_with("kubepods-burstable-pod9f1f8a52"));
    assert_eq!(of(oci(b"{}")), "");
    assert_eq!(of(crun(corpus!("crun_status/scope"))), "/machine.slice/libpod-f00d.scope");
    assert_eq!(crun(b"{\"pid\":7}"), None);
    let state = |paths: &str| of(runc(format!(r#"{{"config":{{}},"cgroup_paths":{{{paths}}}}}"#).as_bytes()));
    for (paths, want) in [
        (r#""":"/sys/fs/cgroup/docker/ab""#, "/docker/ab"),
        (r#""":"/sys/fs/cgroup/unified/docker/ab""#, "/docker/ab"),
        (r#""cpu":"/sys/fs/cgroup/cpu,cpuacct/docker/ab""#, "/docker/ab"),
        (r#""pids":"/sys/fs/cgroup/pids/x","memory":"/sys/fs/cgroup/memory/docker/ab""#, "/docker/ab"),
        (r#""cpu":"/elsewhere/cpu/docker/ab""#, ""),
        (r#""cpu":"/sys/fs/cgroup/other/docker/ab""#, ""),
        ("", ""),
    ] {
        assert_eq!(state(paths), want, "{paths}");
    }
}

#[test]
fn podmans_volatile_list_is_read_as_the_other() {
    let id = "61".repeat(32);
    assert_eq!(podman(corpus!("podman_containers/volatile"), &id).as_deref(), Some("rm-web"));
}
