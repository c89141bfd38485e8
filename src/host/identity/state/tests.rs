use super::*;
use crate::host::identity::Role;

macro_rules! corpus {
    ($file:literal) => {
        include_bytes!(concat!("../../../../fuzz/corpus/", $file))
    };
}

/// Name, pod, namespace, host name and role.
fn seen(it: Option<Noted>) -> [String; 5] {
    let it = it.expect("it can be read").identity;
    [&*it.name, &it.pod, &it.namespace, &it.hostname, it.role.map_or("", Role::name)].map(str::to_owned)
}

#[test]
fn a_spec_of_containerd_tells_a_pods_container_and_its_sandbox() {
    let shop = "shop-7d4b9c6f5-x2v9k";
    assert_eq!(seen(oci(corpus!("oci_spec/containerd-pod"))), ["web", shop, "shop", "", ""]);
    assert_eq!(seen(oci(corpus!("oci_spec/containerd-sandbox"))), ["", shop, "shop", shop, "sandbox"]);
    let told = oci(corpus!("oci_spec/containerd-pod")).expect("read");
    assert_eq!(&*told.identity.pod_uid, "9f1f8a52-8e51-4f0a-9c1f-0d6f5f1d2a3b");
}

#[test]
fn a_spec_of_containerds_own_tools_has_at_most_a_name() {
    assert_eq!(seen(oci(corpus!("oci_spec/containerd-ctr"))), ["", "", "", "", "container"]);
    assert_eq!(seen(oci(corpus!("oci_spec/nerdctl"))), ["proxy", "", "", "3f5a0b7c9d1e", "container"]);
}

#[test]
fn a_spec_of_crio_or_podman_is_read_by_the_same_keys() {
    let batch = "batch-28541-qq7lm";
    assert_eq!(seen(oci(corpus!("oci_spec/crio-pod"))), ["job", batch, "jobs", batch, ""]);
    assert_eq!(seen(oci(corpus!("oci_spec/crio-sandbox"))), ["", batch, "jobs", batch, "sandbox"]);
    assert_eq!(seen(oci(corpus!("oci_spec/podman"))), ["", "", "", "f00dfeed0011", "container"]);
}

#[test]
fn docker_tells_the_name_that_people_gave_or_the_pods() {
    assert_eq!(seen(docker(corpus!("docker_config/plain"))), ["shop-cache-1", "", "", "cache", "container"]);
    assert_eq!(seen(docker(corpus!("docker_config/cri-dockerd"))), ["postgres", "db-0", "shop", "db-0", ""]);
    assert_eq!(
        seen(docker(corpus!("docker_config/cri-dockerd-sandbox"))),
        ["", "db-0", "shop", "db-0", "sandbox"]
    );
}

#[test]
fn podmans_list_names_those_that_have_a_name() {
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
fn runcs_state_tells_the_annotations_or_at_least_the_host_name() {
    let shop = "shop-7d4b9c6f5-x2v9k";
    assert_eq!(seen(runc(corpus!("runc_state/annotated"))), ["web", shop, "shop", "web-1", ""]);
    assert_eq!(seen(runc(corpus!("runc_state/plain"))), ["", "", "", "runc", "container"]);
}

#[test]
fn what_is_no_such_file_tells_nothing() {
    for bytes in [&b""[..], b"null", b"[]", b"{\"hostname\":3}", b"{\"annotations\":{\"a\":1}}"] {
        assert_eq!(oci(bytes), None, "{}", bytes.escape_ascii());
    }
    assert_eq!(docker(b"{\"Name\":[]}"), None);
    assert_eq!(podman(b"{}", "x"), None);
    assert_eq!(runc(b"{\"id\":\"x\"}"), None);
}
