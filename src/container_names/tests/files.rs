//! What is found in the runtimes' files, where each of them has its own, and when they change.

use std::os::unix::fs::MetadataExt as _;

use super::*;
use crate::host::NameSource;

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
fn the_state_directories_of_each_distribution_are_read() {
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
fn podmans_volatile_containers_have_names() {
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
        let resolver = NameResolver::new(&root.names(), 16, bell.wake(), spawner());
        let mut tell = |name: &str, find: &dyn Fn(Container<'_>)| {
            replace(&root, &file, &text.replace("NAME", name));
            find(table.get(key).expect("there"));
            let (whose, mut report) = bell.report(&resolver);
            if let NameSource::Runtime(record) = &mut report.by {
                // As on a host, also where the tests are not root's.
                record.owner = 0;
            }
            table.learn(whose, &report);
            assert_eq!(table.get(key).map(Container::name), Some(name), "{file}");
        };
        tell("old", &|container| resolver.resolve(container));
        tell("new", &|container| assert_eq!(resolver.recheck([container].into_iter()), None));
        tell("newer", &|container| assert_eq!(resolver.recheck([container].into_iter()), None));
        assert_eq!(resolver.faults(), Faults::default());
    }
}

/// A resolver that brings work and starts nobody for it, and a container that was told what is found of it.
fn unstaffed(root: &Root) -> (NameResolver, Containers, Key) {
    let (mut table, key) = container(&format!("/docker/{}", id(1)));
    let mut report = runtimes::find(&root.names(), &id(1), false).expect("it is there");
    if let NameSource::Runtime(record) = &mut report.by {
        record.owner = 0;
    }
    table.learn(key, &report);
    (NameResolver::new(&root.names(), 1, Arc::new(|| ()), ThreadSpawner::new()), table, key)
}

#[test]
fn an_immutable_name_is_not_resolved_again() {
    let root = Root::new();
    root.write(&format!("run/runc/{}/state.json", id(1)), "runc_state/annotated");
    let stamp = || {
        let report = runtimes::find(&root.names(), &id(1), false).expect("it is there");
        let NameSource::Runtime(record) = report.by else { panic!("a runtime told it") };
        (record.stamp, runtimes::stamp(&root.names(), &id(1)))
    };
    assert_eq!(stamp(), (0, 0));
    let waits = || {
        let (resolver, table, key) = unstaffed(&root);
        assert_eq!(resolver.recheck(table.get(key).into_iter()), None);
        // Whoever brings something has a thread started for it.
        resolver.shared.files.has_worker()
    };
    assert!(!waits(), "nothing waits in the queue");
    root.write(&format!("var/lib/docker/containers/{}/config.v2.json", id(1)), "docker_config/plain");
    let (report, now) = stamp();
    assert_ne!(report, 0);
    assert_eq!(report, now, "as long as the file stays the same");
    assert!(waits(), "docker's can change");
}

#[test]
fn a_container_evicted_from_a_full_table_is_resolved_again() {
    let root = Root::new();
    root.write(&format!("var/lib/docker/containers/{}/config.v2.json", id(1)), "docker_config/plain");
    let (resolver, table, key) = unstaffed(&root);
    let again = |times| resolver.recheck(std::iter::repeat_n(table.get(key).expect("there"), times));
    let room = Containers::slots_for(1);
    assert_eq!((again(room), again(1)), (None, Some(key)));
    assert_eq!(resolver.faults().dropped, 0, "it has a name");
    resolver.resolve(table.get(key).expect("there"));
    assert_eq!(resolver.faults().dropped, 1, "of a new one nothing is known");
}

fn write(root: &Root, path: &str, text: &str) {
    replace(root, path, text);
}

/// The name that is found, and whose word that is.
fn owned(root: &Root, names: &Names) -> Option<(String, u32)> {
    let report = runtimes::find(names, &id(1), false)?;
    let NameSource::Runtime(record) = report.by else { panic!("a runtime told it") };
    let root_or_us = fs::metadata(&root.0).expect("a folder").uid();
    Some((report.identity.name.to_string(), if record.owner == root_or_us { 0 } else { record.owner }))
}

#[test]
fn a_container_with_anothers_name_gets_none_of_its_labels() {
    let root = Root::new();
    root.write(
        "run/containerd/io.containerd.runtime.v2.task/default/web/config.json",
        "oci_spec/containerd-ctr",
    );
    for (path, report) in
        [("/lxc.payload.web", false), ("/machine.slice/machine-web.scope", false), ("/default/web", true)]
    {
        let (table, key) = container(path);
        let (found, _) = resolve_all(&root.names(), &table);
        assert_eq!(found.len(), usize::from(report), "{path}");
        let resolver = NameResolver::new(&root.names(), 1, Arc::new(|| ()), ThreadSpawner::new());
        resolver.resolve(table.get(key).expect("there"));
        assert_eq!(resolver.shared.files.has_worker(), report, "{path}");
    }
}

#[test]
fn state_files_below_a_users_home_have_only_the_users_trust() {
    let root = Root::new();
    let storage = "home/u/storage";
    let mut names = root.names();
    names.storage = vec![root.0.join(storage)];
    let text = format!(r#"[{{"id":"{}","names":["bank"]}}]"#, id(1));
    write(&root, &format!("{storage}/overlay-containers/containers.json"), &text);
    assert_eq!(owned(&root, &names), Some(("bank".into(), 0)));
    if std::os::unix::fs::chown(root.0.join("home/u"), Some(1000), None).is_ok() {
        assert_eq!(owned(&root, &names), Some(("bank".into(), 1000)), "it may be another's in its place");
    }
}

#[test]
fn old_dockers_userns_directory_is_trusted_as_dockers() {
    let root = Root::new();
    let file = |above: &str| format!("{above}/100000.100000/containers/{}/config.v2.json", id(1));
    root.write(&file("var/lib/docker"), "docker_config/plain");
    let names = root.names();
    if !give(&root.0.join("var/lib/docker/100000.100000"), 100_000) {
        return;
    }
    assert_eq!(owned(&root, &names), Some(("shop-cache-1".into(), 0)));
    // A user makes a folder that is so called in a docker folder of the user's own.
    assert!(give(&root.0.join("var/lib/docker"), 100_000));
    assert_eq!(owned(&root, &names), Some(("shop-cache-1".into(), 100_000)));
}

/// Gives a folder and all that is in it to a user. False: only root can.
fn give(path: &Path, user: u32) -> bool {
    if std::os::unix::fs::lchown(path, Some(user), None).is_err() {
        eprintln!("SKIPPED: only root can give a folder away");
        return false;
    }
    let is_folder = fs::symlink_metadata(path).is_ok_and(|about| about.is_dir());
    let entries = if is_folder { fs::read_dir(path).ok() } else { None };
    entries.into_iter().flatten().flatten().all(|entry| give(&entry.path(), user))
}

#[test]
fn a_users_state_file_does_not_override_roots() {
    let root = Root::new();
    let list = |name: &str| format!(r#"[{{"id":"{}","names":["{name}"]}}]"#, id(1));
    let spec = |name: &str| format!(r#"{{"annotations":{{"io.kubernetes.container.name":"{name}"}}}}"#);
    let folders = ["home/u", "var/lib/containers/storage", "zz/u"];
    let mut names = root.names();
    names.storage = folders.iter().map(|folder| root.0.join(folder)).collect();
    for (folder, name) in folders.iter().zip(["one", "web", "two"]) {
        let driver = format!("{folder}/overlay-containers");
        write(&root, &format!("{driver}/containers.json"), &list(name));
        write(&root, &format!("{driver}/{}/userdata/config.json", id(1)), &spec(name));
    }
    let users = ["home/u", "zz/u"].map(|folder| root.0.join(folder));
    if !users.iter().all(|folder| give(folder, 1000)) {
        return;
    }
    assert_eq!(owned(&root, &names), Some(("web".into(), 0)));
    fs::remove_dir_all(root.0.join(folders[1])).expect("it goes");
    assert_eq!(owned(&root, &names), Some(("one".into(), 1000)));
    write(&root, &format!("run/runc/{}/state.json", id(1)), r#"{"config":{"hostname":"real"}}"#);
    assert_ne!(owned(&root, &names), Some(("one".into(), 1000)), "also what comes from another source");
}

#[test]
fn a_symlink_in_a_users_directory_does_not_claim_roots_file() {
    let root = Root::new();
    let (file, text) =
        ("overlay-containers/containers.json", format!(r#"[{{"id":"{}","names":["bank"]}}]"#, id(1)));
    let storage = "home/u/storage";
    let mut names = root.names();
    names.storage = vec![root.0.join(storage)];
    write(&root, &format!("roots/{file}"), &text);
    let at = |path: &str| root.0.join(path);
    fs::create_dir_all(at(&format!("{storage}/overlay-containers"))).expect("a folder");
    std::os::unix::fs::symlink(at(&format!("roots/{file}")), at(&format!("{storage}/{file}")))
        .expect("a link");
    assert_eq!(owned(&root, &names), None, "the file is a link");
    fs::remove_dir_all(at(storage)).expect("it goes");
    fs::create_dir_all(at(storage)).expect("a folder");
    let folders = ["roots/overlay-containers", "home/u/storage/overlay-containers"].map(at);
    std::os::unix::fs::symlink(&folders[0], &folders[1]).expect("a link");
    assert_eq!(owned(&root, &names), None, "its folder is one");
    fs::remove_file(&folders[1]).expect("it goes");
    if give(&at(storage), 1000) {
        fs::create_dir(&folders[1]).expect("a folder");
        fs::hard_link(at(&format!("roots/{file}")), at(&format!("{storage}/{file}"))).expect("a link");
        assert_eq!(owned(&root, &names), Some(("bank".into(), 1000)), "the folder is the user's");
    }
}

#[test]
fn a_rename_during_a_scan_is_seen_by_the_next_scan() {
    let root = Root::new();
    let list = "var/lib/containers/storage/overlay-containers/containers.json";
    let text = |name: &str| format!(r#"[{{"id":"{}","names":["{name}"]}}]"#, id(1));
    let names = root.names();
    for _ in 0..300 {
        replace(&root, list, &text("old"));
        let report = std::thread::scope(|scope| {
            let found = scope.spawn(|| runtimes::find(&names, &id(1), false));
            replace(&root, list, &text("new"));
            found.join().expect("it finds").expect("it is there")
        });
        let NameSource::Runtime(record) = report.by else { panic!("a runtime told it") };
        let changed = record.stamp != runtimes::stamp(&names, &id(1));
        assert!(&*report.identity.name == "new" || changed, "an old name as if nothing had changed");
    }
}

#[test]
fn a_fifo_or_an_endless_state_file_blocks_nothing() {
    let root = Root::new();
    let list = root.0.join("var/lib/containers/storage/overlay-containers/containers.json");
    fs::create_dir_all(list.parent().expect("a parent")).expect("a folder");
    let path = std::ffi::CString::new(list.as_os_str().as_encoded_bytes()).expect("no NUL");
    // SAFETY: the path ends with a NUL and outlives the call.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    let (send, done) = std::sync::mpsc::channel();
    let names = root.names();
    std::thread::spawn(move || {
        let found = runtimes::find(&names, &id(1), false);
        send.send((found.is_some(), runtimes::stamp(&names, &id(1)))).is_ok()
    });
    let found = done.recv_timeout(Duration::from_secs(30)).expect("nobody waits for the FIFO's writer");
    assert_eq!(found, (false, 0));
    fs::remove_file(&list).expect("it goes");
    let text = format!(r#"[{{"id":"{}","names":["web"]}}]"#, id(1));
    fs::write(&list, &text).expect("a file");
    let name = || root.found(&id(1)).map(|it| it[0].clone());
    assert_eq!(name().as_deref(), Some("web"));
    fs::write(&list, text + &" ".repeat(16 << 20)).expect("a file");
    assert_eq!(name(), None, "no list is as long");
}

#[test]
fn the_runtimes_cgroup_record_is_read_only_on_demand() {
    let root = Root::new();
    let cgroup = |proof: bool| {
        let report = runtimes::find(&root.names(), &id(1), proof).expect("it is there");
        let NameSource::Runtime(record) = report.by else { panic!("a runtime told it") };
        (report.identity.name.to_string(), record.cgroup.map(String::from))
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
