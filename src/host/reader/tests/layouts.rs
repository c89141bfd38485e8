//! How hosts have their cgroups: each layout is read, or the doctor is told what is lost.

use super::*;

const SLICED: &str = "9f1f8a52_8e51_4f0a_9c1f_0d6f5f1d2a3b";

/// Id, runtime, class and pod of each container, by id.
fn seen(reader: &Reader) -> Vec<(String, Option<&'static str>, Option<&'static str>, String)> {
    let one = |it: Container<'_>| (it.id().to_owned(), it.runtime(), it.qos(), it.pod_uid().to_owned());
    let mut all: Vec<_> = reader.containers().iter().map(one).collect();
    all.sort();
    all
}

fn missing_controllers(reader: &mut Reader) -> Vec<(&'static str, String)> {
    reader.missing_controllers(at(0)).into_iter().map(|missing| (missing.controller, missing.why)).collect()
}

/// Paths by which the drivers and runtimes have containers, the number standing for the id.
fn paths(number: u32) -> Vec<(String, Option<&'static str>, Option<&'static str>, bool)> {
    let id = id(number);
    let slice = "kubepods.slice/kubepods-burstable.slice";
    vec![
        (format!("/kubepods/burstable/pod{UID}/{id}"), None, Some("burstable"), true),
        (format!("/kubepods/pod{UID}/crio-{id}"), Some("crio"), Some("guaranteed"), true),
        (
            format!("/{slice}/kubepods-burstable-pod{SLICED}.slice/cri-containerd-{id}.scope"),
            Some("containerd"),
            Some("burstable"),
            true,
        ),
        (
            format!("/system.slice/containerd.service/kubepods-pod{SLICED}.slice:cri-containerd:{id}"),
            Some("containerd"),
            Some("guaranteed"),
            true,
        ),
        (format!("/system.slice/docker-{id}.scope"), Some("docker"), None, false),
        (format!("/docker/{id}"), Some("docker"), None, false),
        (format!("/machine.slice/libpod-{id}.scope"), Some("podman"), None, false),
        (format!("/default/{id}"), Some("containerd"), None, false),
    ]
}

#[test]
fn each_drivers_and_runtimes_path_is_found_and_read_on_v1_v2_and_both() {
    for layout in ["v1", "hybrid", "v2"] {
        for (path, runtime, qos, in_pod) in paths(1) {
            let host = if layout == "v2" { Host::v2() } else { Host::v1() };
            if layout == "hybrid" {
                host.write("cgroup/unified/cgroup.controllers", b"\n");
            }
            if layout == "v2" {
                host.v2_container(&path)
            } else {
                host.v1_container(&path)
            }
            let mut reader = host.open();
            let pod = if in_pod { UID } else { "" };
            assert_eq!(seen(&reader), [(id(1), runtime, qos, pod.to_owned())], "{layout}: {path}");
            reader.read(ALL, at(0));
            let read = reading(&reader, &id(1));
            assert!(read.cpu.is_some() && read.memory.is_some(), "{layout}: {path}");
            assert_eq!(missing_controllers(&mut reader), [], "{layout}: {path}");
        }
    }
}

#[test]
fn of_nested_runtimes_each_container_is_found_and_the_inner_one_is_itself() {
    let outer = format!("/docker/{}", id(1));
    for inside in [
        format!("/kubelet/kubepods/burstable/pod{UID}/{}", id(2)),
        format!(
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{SLICED}.slice/cri-containerd-{}.scope",
            id(2)
        ),
        format!("/docker/{}", id(2)),
    ] {
        let host = Host::v2();
        host.v2_container(&outer);
        host.v2_container(&format!("{outer}{inside}"));
        let mut reader = host.open();
        assert_eq!(ids(&reader), [id(1), id(2)], "{inside}");
        let task = format!("{outer}{inside}/init.scope");
        let holding = reader.containers().holding(&task).map(Container::id);
        assert_eq!(holding, Some(&*id(2)), "a task of the inner one is the inner one's");
        reader.read(ALL, at(0));
        assert!(reading(&reader, &id(1)).cpu.is_some() && reading(&reader, &id(2)).cpu.is_some());

        let (above, _) = inside.rsplit_once('/').expect("a path");
        host.v2_container(&format!("{outer}{above}/{}", id(3)));
        assert_eq!(reader.changed(at(1)), Scan::Whole);
        assert_eq!(ids(&reader), [id(1), id(2), id(3)], "those that come later, at once: {inside}");
        host.remove(&format!("cgroup{outer}{above}/{}", id(3)));
        assert_eq!(reader.changed(at(2)), Scan::Whole);
        host.remove(&format!("cgroup{outer}"));
        assert_eq!(reader.changed(at(3)), Scan::Whole);
        assert_eq!(ids(&reader), Vec::<String>::new(), "{inside}");
        assert_eq!(reader.faults(), Faults::default());
    }
}

#[test]
fn one_that_begins_to_run_others_is_looked_into_with_the_next_sweep() {
    let host = Host::v2();
    let outer = format!("/docker/{}", id(1));
    host.v2_container(&outer);
    let mut reader = host.open();
    host.v2_container(&format!("{outer}/docker/{}", id(2)));
    assert_eq!(reader.changed(at(0)), Scan::Whole);
    assert_eq!(ids(&reader), [id(1)], "it has no watch");
    assert_eq!(reader.rescan(at(1)), Scan::Whole);
    assert_eq!(ids(&reader), [id(1), id(2)]);
    assert_eq!(reader.rescan(at(2)), Scan::Whole);
    assert_eq!(ids(&reader), [id(1), id(2)]);
    host.v2_container(&format!("{outer}/docker/{}", id(3)));
    assert_eq!(reader.changed(at(3)), Scan::Whole);
    assert_eq!(ids(&reader), [id(1), id(2), id(3)]);
}

#[test]
fn the_outer_containers_limits_hold_for_the_inner_one() {
    let host = Host::v2();
    let outer = format!("/docker/{}", id(1));
    host.v2_container(&outer);
    host.write(&format!("cgroup{outer}/cpu.max"), b"100000 100000\n");
    host.write(&format!("cgroup{outer}/memory.max"), b"67108864\n");
    host.v2_container(&format!("{outer}/docker/{}", id(2)));
    let mut reader = host.open();
    reader.read(ALL, at(0));
    let inner = reading(&reader, &id(2));
    assert_eq!(inner.capacity_cores, Some(1.0));
    assert_eq!(inner.memory.and_then(|memory| memory.limit_bytes), Some(64 << 20));
}

#[test]
fn controllers_that_are_off_for_a_leaf_are_told_with_what_they_cost() {
    let host = Host::v2();
    host.v2_container(&pod(1));
    host.v2_container(&pod(2));
    for file in ["memory.stat", "memory.current", "memory.max", "cpu.max"] {
        fs::remove_file(host.root.join(format!("cgroup{}/{file}", pod(2)))).expect("a file");
    }
    host.write(&format!("cgroup{}/cpu.stat", pod(2)), b"usage_usec 3\nuser_usec 1\nsystem_usec 2\n");
    let mut reader = host.open();
    let lost = missing_controllers(&mut reader);
    assert_eq!(lost.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["cpu", "memory"]);
    for (_, why) in &lost {
        assert!(why.starts_with("1 of 2 containers") && why.contains(&pod(2)), "{why}");
        assert!(why.contains("cgroup.subtree_control"), "{why}");
    }
    reader.read(ALL, at(1));
    let read = reading(&reader, &id(2));
    assert!(read.cpu.is_some() && read.memory.is_none() && read.throttling.is_none(), "the rest is read");
    assert!(reading(&reader, &id(1)).memory.is_some());
}

#[test]
fn controllers_that_the_kernel_has_not_are_told_once() {
    let host = Host::v2();
    host.write("cgroup/cgroup.controllers", b"cpu io pids\n");
    host.v2_container(&pod(1));
    fs::remove_file(host.root.join(format!("cgroup{}/memory.stat", pod(1)))).expect("a file");
    let lost = missing_controllers(&mut host.open());
    assert_eq!(lost.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["cpuset", "memory"]);
    assert!(lost.iter().all(|(_, why)| why.contains("cgroup_disable=")), "{lost:?}");
}

#[test]
fn v1_hierarchies_that_are_not_mounted_are_told() {
    let host = Host::v1();
    host.v1_container(&pod(1));
    fs::rename(host.root.join("cgroup/cpu,cpuacct"), host.root.join("cgroup/cpu")).expect("renamed");
    host.remove("cgroup/memory");
    let lost = missing_controllers(&mut host.open());
    assert_eq!(lost.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["cpuacct", "memory"]);
    host.write("cgroup/unified/cgroup.controllers", b"memory\n");
    let lost = missing_controllers(&mut host.open());
    assert!(lost[1].1.contains("unified while that of cpu is v1"), "{lost:?}");
}

#[test]
fn what_proc_cgroups_says_does_not_matter() {
    let host = Host::v2();
    // As 6.12 has it on a host without v1: what is only v2's is left out.
    host.write(
        "proc/cgroups",
        b"#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t61\t1\npids\t0\t61\t1\n",
    );
    host.v2_container(&pod(1));
    let mut reader = host.open();
    assert_eq!(missing_controllers(&mut reader), []);
    reader.read(ALL, at(0));
    assert!(reading(&reader, &id(1)).memory.is_some());
}
