use super::*;

const SYSTEMD: &[u8] = include_bytes!("../../../../fuzz/corpus/kubelet_pods/systemd-driver");
const CGROUPFS: &[u8] = include_bytes!("../../../../fuzz/corpus/kubelet_pods/cgroupfs-driver");

fn told(body: &[u8]) -> (BTreeMap<String, Identity>, BTreeMap<String, Identity>) {
    let (mut containers, mut pods) = (BTreeMap::new(), BTreeMap::new());
    let each: &mut dyn FnMut(PodOrContainer<'_>, &Identity) = &mut |whose, told| {
        let (list, key) = match whose {
            PodOrContainer::Container(id) => (&mut containers, id),
            PodOrContainer::Pod(uid) => (&mut pods, uid),
        };
        list.insert(key.to_owned(), *told);
    };
    read(body, each).expect("a list of pods");
    (containers, pods)
}

/// Name, role, pod, namespace, host name and class of the container whose name this is.
fn named(body: &[u8], name: &str) -> [String; 6] {
    let (containers, _) = told(body);
    let it = containers.values().find(|it| *it.name == *name).expect("it is in there");
    let role = it.role.map_or("", Role::name);
    [&*it.name, role, &it.pod, &it.namespace, &it.hostname, it.qos.unwrap_or_default()].map(str::to_owned)
}

#[test]
fn init_sidecar_and_ephemeral_containers_are_listed_with_their_pod() {
    let shop = "shop-7d4b9c6f5-x2v9k";
    for (name, role) in [
        ("web", "container"),
        ("metrics", "container"),
        ("migrate", "init"),
        ("istio-proxy", "sidecar"),
        ("debugger-k7x2p", "ephemeral"),
    ] {
        assert_eq!(named(SYSTEMD, name), [name, role, shop, "shop", shop, "burstable"]);
    }
    assert_eq!(named(SYSTEMD, "postgres"), ["postgres", "container", "db-0", "shop", "db-0", "guaranteed"]);
}

#[test]
fn a_pod_on_the_host_network_has_the_nodes_host_name() {
    assert_eq!(named(SYSTEMD, "dns")[4], "worker-1");
    assert_eq!(named(SYSTEMD, "etcd")[2..5], ["etcd-worker-1", "kube-system", "worker-1"]);
}

#[test]
fn the_id_of_a_containers_previous_run_is_listed_too() {
    let (containers, _) = told(SYSTEMD);
    assert_eq!(containers.len(), 9, "eight that run or ran, and one that ran before");
    assert_eq!(containers.values().filter(|it| &*it.name == "postgres").count(), 2);
    assert!(containers.keys().all(|id| id.len() == 64), "{containers:#?}");
    let (containers, _) = told(CGROUPFS);
    assert!(containers.values().any(|it| &*it.name == "job"), "it is over, and still told of");
    assert!(containers.values().all(|it| &*it.name != "app"), "it has no id yet");
}

#[test]
fn a_static_pod_is_found_by_its_own_uid_and_its_mirrors() {
    let (_, pods) = told(CGROUPFS);
    for uid in ["e0b5c2d4-19a7-4c66-b1de-55aa66bb77cc", "4f2ab9d07c1e4c3b8e6d5a4938271605"] {
        assert_eq!(&*pods[uid].pod, "kube-apiserver-cp-1");
    }
    let (_, pods) = told(SYSTEMD);
    assert_eq!(&*pods["8d1c5f0a3be24f6f9a7d6e5c4b3a2910"].pod, "etcd-worker-1");
}

#[test]
fn an_empty_pod_list_is_valid_and_other_json_is_an_error() {
    assert!(read(&br#"{"kind":"PodList","items":null}"#[..], &mut |_, _| ()).is_ok());
    assert!(read(&br#"{"items":[]}"#[..], &mut |_, _| ()).is_ok());
    for body in [
        &b"Unauthorized\n"[..],
        b"",
        b"{}",
        b"[]",
        br#"{"items":3}"#,
        br#"{"items":[{}]}"#,
        br#"{"items":[]} trailing"#,
        &SYSTEMD[..SYSTEMD.len() / 2],
    ] {
        let error = read(body, &mut |_, _| ()).expect_err("no list");
        assert!(error.to_string().starts_with("the answer is no list of pods: "), "{error}");
    }
}

#[test]
fn nulls_and_missing_fields_give_no_names() {
    let body = br#"{"items":[{"metadata":{"name":"p","uid":"u","annotations":null},"spec":{"initContainers":null},
        "status":{"containerStatuses":[{"name":"c","containerID":"x://y","state":null},{"name":"d"}],"qosClass":"Odd"}},
        {"metadata":{}}]}"#;
    let (containers, pods) = told(body);
    assert_eq!(containers.keys().collect::<Vec<_>>(), ["y"]);
    assert_eq!((pods.len(), containers["y"].qos, &*containers["y"].hostname), (1, None, "p"));
}
