//! Containers that come and go.

use super::*;

#[test]
fn containers_are_followed_as_their_cgroups_come_and_go() {
    let host = Host::v2();
    let mut reader = host.open();
    assert!(reader.containers().is_empty());
    host.v2_container(&pod(1));
    host.make(&format!("cgroup/docker/{}/init.scope/deep", id(2)));
    assert_eq!(reader.changed(at(0)), Scan::Whole);
    assert_eq!(ids(&reader), [id(1), id(2)], "deep folders that came before any watch are seen");
    let mut told = Vec::new();
    reader.changes(|container| told.push((container.id().to_owned(), container.is_live())));
    told.sort();
    assert_eq!(told, [(id(1), true), (id(2), true)]);

    let key = reader.containers().find(&id(1)).expect("it is there");
    let inode = inode(&host.root.join(format!("cgroup{}", pod(1))));
    let container = reader.containers().get(key).expect("it is there");
    assert_eq!((container.cgroup_id(), container.cgroup_path()), (inode, &*pod(1)));
    assert_eq!((container.qos(), container.pod()), (Some("burstable"), UID));

    host.remove(&format!("cgroup{}", pod(1)));
    host.v2_container(&pod(3));
    assert_eq!(reader.changed(at(1)), Scan::Whole);
    assert_eq!(ids(&reader), [id(2), id(3)]);
    let mut told = Vec::new();
    reader.changes(|container| told.push((container.id().to_owned(), container.is_live())));
    assert_eq!(told, [(id(1), false), (id(3), true)]);
    reader.read(ALL, at(2));
    assert!(reading(&reader, &id(3)).cpu.is_some());

    host.remove("cgroup/kubepods");
    assert_eq!(reader.changed(at(3)), Scan::Whole);
    assert_eq!(ids(&reader), [id(2)]);
    assert_eq!(reader.faults(), Faults::default());
}

#[test]
fn a_pod_moved_away_takes_its_containers_along() {
    let host = Host::v2();
    host.v2_container(&pod(1));
    let mut reader = host.open();
    let from = host.root.join("cgroup/kubepods");
    fs::rename(&from, host.root.join("elsewhere")).expect("renamed");
    assert_eq!(reader.changed(at(0)), Scan::Whole);
    assert!(reader.containers().is_empty());
    fs::rename(host.root.join("elsewhere"), &from).expect("renamed");
    assert_eq!(reader.changed(at(1)), Scan::Whole);
    assert_eq!(ids(&reader), [id(1)]);
}

#[test]
fn a_sweep_finds_what_no_watch_told_and_forgets_what_is_gone() {
    let host = Host::v2();
    host.v2_container(&pod(1));
    host.v2_container(&pod(2));
    let mut reader = host.open();
    host.remove(&format!("cgroup{}", pod(1)));
    host.make(&format!("cgroup/new/{}", id(3)));
    assert_eq!(reader.rescan(at(0)), Scan::Whole);
    assert_eq!(ids(&reader), [id(2), id(3)]);
    let key = reader.containers().find(&id(2)).expect("it is there");
    assert_eq!(reader.changed(at(1)), Scan::Whole, "the watches tell late, and change nothing");
    assert_eq!(ids(&reader), [id(2), id(3)]);
    assert_eq!(reader.containers().find(&id(2)), Ok(key), "who stayed is the same");
}

#[test]
fn lost_events_make_a_sweep() {
    let host = Host::v2();
    host.make("cgroup/docker");
    let mut reader = host.open();
    let most: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .expect("the kernel has inotify");
    // Two events each; the queue is full half way, and the container comes after that.
    for number in 0..most / 2 + 10 {
        let other = host.root.join(format!("cgroup/docker/other-{number}"));
        fs::create_dir(&other).expect("a folder");
        fs::remove_dir(&other).expect("a folder");
    }
    host.make(&format!("cgroup/docker/{}", id(1)));
    while reader.changed(at(0)) == Scan::Partial {}
    assert_eq!(ids(&reader), [id(1)]);
}

#[test]
fn more_containers_than_the_capacity_are_counted() {
    let host = Host::v2();
    for number in 0..20 {
        host.make(&format!("cgroup/docker/{}", id(number)));
    }
    let mut reader = host.open();
    assert_eq!((reader.containers().len(), reader.faults().beyond_capacity), (16, 4));
    reader.changes(|_| ());
    let one = ids(&reader).pop().expect("sixteen");
    host.remove(&format!("cgroup/docker/{one}"));
    assert_eq!(reader.changed(at(0)), Scan::Whole);
    assert_eq!(reader.rescan(at(0)), Scan::Whole);
    assert_eq!(reader.containers().len(), 16, "the next sweep fills the room");
}

#[test]
fn a_look_that_is_too_long_goes_on_in_the_next_call() {
    let host = Host::v2();
    for number in 0..900 {
        host.make(&format!("cgroup/a.slice/b{number}.service"));
    }
    let mut reader = host.open();
    host.make(&format!("cgroup/a.slice/b700.service/docker/{}", id(1)));
    let mut calls = 1;
    while reader.rescan(at(0)) == Scan::Partial {
        calls += 1;
        assert!(calls < 100, "it comes to an end");
    }
    assert!(calls > 1);
    assert_eq!(ids(&reader), [id(1)]);
}
