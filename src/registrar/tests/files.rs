//! What is found in the runtimes' files, where each of them has its own, and when they change.

use super::*;
use crate::host::Teller;

/// In the recorded spec of a pod's container: its sandbox.
const SANDBOX: &str = "2ea9209947dc6556d9dc4fa114275813de319abee3f3cd035c7f075a7389d585";

#[test]
fn a_pods_container_has_the_host_name_of_its_sandbox() {
    let root = Root::new();
    let space = "run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io";
    root.write(&format!("{space}/{}/config.json", id(2)), "oci_spec/containerd-pod");
    root.write(&format!("{space}/{SANDBOX}/config.json"), "oci_spec/containerd-sandbox");
    let shop = "shop-7d4b9c6f5-x2v9k";
    assert_eq!(root.found(&id(2)), Some(["web", shop, shop, ""].map(str::to_owned)));
}

#[test]
fn the_folders_of_each_distribution_are_looked_into() {
    for state in [
        "run/containerd",
        "run/k3s/containerd",
        "var/lib/rancher/k3s/agent/containerd",
        "var/lib/rancher/rke2/agent/containerd",
        "run/k0s/containerd",
        "var/snap/microk8s/common/run/containerd",
        "var/snap/microk8s/common/var/lib/containerd",
    ] {
        let root = Root::new();
        let task = format!("{state}/io.containerd.runtime.v2.task/k8s.io/{}", id(2));
        root.write(&format!("{task}/config.json"), "oci_spec/containerd-pod");
        assert_eq!(root.found(&id(2)).map(|it| it[0].clone()).as_deref(), Some("web"), "{state}");
    }
    for docker in ["var/lib/docker", "var/lib/docker/100000.100000", "var/snap/docker/common/var-lib-docker"]
    {
        let root = Root::new();
        root.write(&format!("{docker}/containers/{}/config.v2.json", id(1)), "docker_config/plain");
        root.write(
            &format!("var/lib/docker/overlay2/containers/{}/config.v2.json", id(1)),
            "docker_config/cri-dockerd",
        );
        assert_eq!(root.found(&id(1)).map(|it| it[0].clone()).as_deref(), Some("shop-cache-1"), "{docker}");
    }
}

#[test]
fn podmans_containers_that_do_not_outlast_a_boot_have_names_too() {
    let id = "61".repeat(32);
    for folder in ["var/lib/containers/storage", "run/containers/storage"] {
        let root = Root::new();
        let driver = format!("{folder}/overlay-containers");
        root.write(&format!("{driver}/volatile-containers.json"), "podman_containers/volatile");
        root.write(&format!("{driver}/containers.json"), "podman_containers/two");
        assert_eq!(root.found(&id).map(|it| it[0].clone()).as_deref(), Some("rm-web"), "{folder}");
    }
}

/// As docker and podman do it: another file takes the place of the old one.
fn replace(root: &Root, path: &str, text: &str) {
    let path = root.0.join(path);
    let new = path.with_extension("new");
    fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    fs::write(&new, text).expect("a file");
    fs::rename(new, path).expect("renamed");
}

#[test]
fn a_renamed_container_shows_its_new_name() {
    let list = "var/lib/containers/storage/vfs-containers";
    for (file, text) in [
        (
            format!("var/lib/docker/containers/{}/config.v2.json", id(1)),
            r#"{"Name":"/NAME","Config":{}}"#.to_owned(),
        ),
        (format!("{list}/containers.json"), format!(r#"[{{"id":"{}","names":["NAME"]}}]"#, id(1))),
        (format!("{list}/volatile-containers.json"), format!(r#"[{{"id":"{}","names":["NAME"]}}]"#, id(1))),
    ] {
        let root = Root::new();
        let (mut table, key) = container(&format!("/docker/{}", id(1)));
        let bell = Arc::new(Bell::default());
        let registrar = Registrar::new(&root.names(), 16, bell.wake(), starter());
        let mut tell = |name: &str, find: &dyn Fn(Container<'_>)| {
            replace(&root, &file, &text.replace("NAME", name));
            find(table.get(key).expect("there"));
            let (whose, told) = bell.told(&registrar);
            table.told(whose, &told);
            assert_eq!(table.get(key).map(Container::name), Some(name), "{file}");
        };
        tell("old", &|container| registrar.find(container));
        tell("new", &|container| registrar.look_again([container].into_iter()));
        tell("newer", &|container| registrar.look_again([container].into_iter()));
        assert_eq!(registrar.faults(), Faults::default());
    }
}

#[test]
fn a_name_that_cannot_change_is_not_looked_for_again() {
    let root = Root::new();
    root.write(&format!("run/runc/{}/state.json", id(1)), "runc_state/annotated");
    let told = runtimes::find(&root.names(), &id(1), false).expect("it is there");
    let Teller::Runtime(record) = told.by else { panic!("a runtime told it") };
    assert_eq!((record.stamp, runtimes::stamp(&root.names(), &id(1))), (0, 0));
    root.write(&format!("var/lib/docker/containers/{}/config.v2.json", id(1)), "docker_config/plain");
    let told = runtimes::find(&root.names(), &id(1), false).expect("it is there");
    let Teller::Runtime(record) = told.by else { panic!("a runtime told it") };
    assert_ne!(record.stamp, 0);
    assert_eq!(record.stamp, runtimes::stamp(&root.names(), &id(1)), "as long as the file stays the same");
}

#[test]
fn the_record_of_the_cgroup_is_looked_for_where_it_is_asked_for() {
    let root = Root::new();
    let cgroup = |proof: bool| {
        let told = runtimes::find(&root.names(), &id(1), proof).expect("it is there");
        let Teller::Runtime(record) = told.by else { panic!("a runtime told it") };
        (told.identity.name.to_string(), record.cgroup.map(String::from))
    };
    root.write(&format!("var/lib/docker/containers/{}/config.v2.json", id(1)), "docker_config/plain");
    let name = "shop-cache-1".to_owned();
    assert_eq!(cgroup(true), (name.clone(), None));
    root.write(&format!("run/crun/{}/status", id(1)), "crun_status/scope");
    assert_eq!(cgroup(true), (name.clone(), Some("/machine.slice/libpod-f00d.scope".into())));
    root.write(
        &format!("run/containerd/io.containerd.runtime.v2.task/moby/{}/config.json", id(1)),
        "oci_spec/containerd-ctr",
    );
    assert_eq!(cgroup(true), (name.clone(), Some("/default/redis".into())), "the first that knows");
    assert_eq!(cgroup(false), (name, None), "one file is enough for a name");
}
