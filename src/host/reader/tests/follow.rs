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
fn cgroups_that_a_user_makes_do_not_keep_the_hosts_containers_out() {
    let host = Host::v2();
    host.make("cgroup/docker");
    let service = "cgroup/user.slice/user-1000.slice/user@1000.service";
    for number in 0..30 {
        host.make(&format!("{service}/docker-{}.scope", id(100 + number)));
    }
    let mut reader = host.open();
    assert_eq!(reader.containers().len(), 16);
    for number in 0..20 {
        host.make(&format!("cgroup/docker/{}", id(number)));
        reader.changes(|_| ());
        while reader.changed(at(0)) == Scan::Partial {}
        let known = reader.containers().find(&id(number)).is_ok();
        assert_eq!(known, number < 16, "all sixteen are the host's then");
    }
    assert!(reader.containers().iter().all(|it| it.cgroup_path().starts_with("/docker/")));
    let before = reader.containers().find(&id(0));
    assert_eq!(reader.rescan(at(1)), Scan::Whole);
    assert_eq!(reader.containers().find(&id(0)), before, "the user's do not take the room back");
}

#[test]
fn long_paths_that_a_user_makes_leave_room_for_those_of_the_hosts_containers() {
    let host = Host::v2();
    host.make("cgroup/docker");
    let service = "cgroup/user.slice/user-1000.slice/user@1000.service";
    let deep = format!("/{}", "d".repeat(250)).repeat(12);
    for number in 0..15 {
        // Deeper than one call opens, so step by step.
        let folder = host.root.join(format!("{service}/{number}"));
        fs::create_dir_all(&folder).expect("a folder");
        fs::create_dir_all(folder.join(&deep[1..])).expect("a folder");
        fs::create_dir(folder.join(&deep[1..]).join(id(100 + number))).expect("a folder");
    }
    let mut reader = host.open();
    let before = reader.containers().len();
    for number in 0..10 {
        host.make(&format!("cgroup/docker/{}", id(number)));
    }
    while reader.changed(at(0)) == Scan::Partial {}
    assert!((0..10).all(|number| reader.containers().find(&id(number)).is_ok()), "{before} were there");
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

/// A docker container's id in a scope of a user's own.
fn forged(number: u32) -> String {
    format!("/user.slice/user-1000.slice/user@1000.service/app.slice/docker-{}.scope", id(number))
}

fn path_of(reader: &Reader, id: &str) -> String {
    let key = reader.containers().find(id).expect("there is one, and only one");
    reader.containers().get(key).expect("it is there").cgroup_path().to_owned()
}

#[test]
fn a_cgroup_with_anothers_id_takes_nothing_of_it_whichever_came_first() {
    let real = format!("/docker/{}", id(1));
    for forged_first in [true, false] {
        let host = Host::v2();
        host.make("cgroup/docker");
        let mut reader = host.open();
        let order = if forged_first { [forged(1), real.clone()] } else { [real.clone(), forged(1)] };
        for (turn, path) in (0..).zip(&order) {
            host.v2_container(path);
            assert_eq!(reader.changed(at(turn)), Scan::Whole);
        }
        assert_eq!((path_of(&reader, &id(1)), ids(&reader)), (real.clone(), vec![id(1)]));
        assert!(reader.faults().claimed_twice > 0, "and it is said");
        let key = reader.containers().find(&id(1)).expect("it is there");
        assert_eq!(reader.rescan(at(2)), Scan::Whole);
        assert_eq!(reader.containers().find(&id(1)), Ok(key), "a sweep changes nothing");
        let mut told = Vec::new();
        reader.changes(|container| told.push((container.cgroup_path().to_owned(), container.is_live())));
        assert!(told.contains(&(real.clone(), true)) && !told.contains(&(forged(1), true)), "{told:?}");

        host.remove(&format!("cgroup{real}"));
        assert_eq!(reader.changed(at(3)), Scan::Whole);
        assert_eq!(reader.rescan(at(4)), Scan::Whole);
        assert_eq!(
            path_of(&reader, &id(1)),
            forged(1),
            "the forged cgroup is its own subject while no other has its id"
        );
    }
}

#[test]
fn a_container_cannot_be_another_one_by_a_cgroup_that_it_makes() {
    let host = Host::v2();
    let nested = format!("/docker/{}/docker/{}", id(2), id(1));
    host.v2_container(&nested);
    let mut reader = host.open();
    assert_eq!(path_of(&reader, &id(1)), nested);
    host.v2_container(&format!("/docker/{}", id(1)));
    assert_eq!(reader.changed(at(0)), Scan::Whole);
    assert_eq!(path_of(&reader, &id(1)), format!("/docker/{}", id(1)));
}

#[test]
fn a_folder_that_belongs_to_a_user_is_that_users() {
    let host = Host::v2();
    let own = format!("/system.slice/app.service/docker-{}.scope", id(1));
    host.v2_container(&own);
    if std::os::unix::fs::chown(host.root.join("cgroup/system.slice/app.service"), Some(998), None).is_err() {
        eprintln!("SKIPPED: only root can give a folder away");
        return;
    }
    let mut reader = host.open();
    let key = reader.containers().find(&id(1)).expect("it is there");
    assert!(reader.containers().get(key).is_some_and(Container::needs_proof));
    host.v2_container(&format!("/system.slice/docker-{}.scope", id(1)));
    assert_eq!(reader.changed(at(0)), Scan::Whole);
    assert_eq!(path_of(&reader, &id(1)), format!("/system.slice/docker-{}.scope", id(1)));
}

#[test]
fn a_folder_that_is_given_to_a_user_after_it_was_made_is_that_users() {
    let host = Host::v2();
    let app = host.root.join("cgroup/system.slice/app.service");
    host.make("cgroup/system.slice/app.service");
    host.v2_container(&format!("/system.slice/app.service/docker-{}.scope", id(1)));
    let mut reader = host.open();
    let proven = |reader: &Reader, number| {
        let key = reader.containers().find(&id(number)).expect("it is there");
        !reader.containers().get(key).expect("it is there").needs_proof()
    };
    assert!(proven(&reader, 1), "as the service manager makes it");
    if std::os::unix::fs::chown(&app, Some(998), None).is_err() {
        eprintln!("SKIPPED: only root can give a folder away");
        return;
    }
    host.v2_container(&format!("/system.slice/app.service/docker-{}.scope", id(2)));
    assert_eq!(reader.changed(at(0)), Scan::Whole);
    assert!(!proven(&reader, 2), "the new one at once");
    assert_eq!(reader.rescan(at(1)), Scan::Whole);
    assert!(!proven(&reader, 1), "those before with the next sweep");
    std::os::unix::fs::chown(&app, Some(0), None).expect("it is given back");
    assert_eq!(reader.rescan(at(2)), Scan::Whole);
    assert!(proven(&reader, 1) && proven(&reader, 2));
}

#[test]
fn a_folder_in_which_others_may_make_some_is_not_the_hosts_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let host = Host::v2();
    host.v2_container(&format!("/open.slice/docker-{}.scope", id(1)));
    let open = host.root.join("cgroup/open.slice");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o757)).expect("it is ours");
    let mut reader = host.open();
    let key = reader.containers().find(&id(1)).expect("it is there");
    assert!(reader.containers().get(key).is_some_and(Container::needs_proof));
    host.v2_container(&format!("/docker/{}", id(1)));
    while reader.changed(at(0)) == Scan::Partial {}
    assert_eq!(path_of(&reader, &id(1)), format!("/docker/{}", id(1)));
}

#[test]
fn one_that_was_moved_without_a_word_keeps_its_id_at_its_new_place() {
    let host = Host::v2();
    host.v2_container("/docker/x");
    host.v2_container(&format!("/docker/{}", id(1)));
    let mut reader = host.open();
    let from = host.root.join(format!("cgroup/docker/{}", id(1)));
    host.make("cgroup/docker/x");
    fs::rename(from, host.root.join(format!("cgroup/docker/x/{}", id(1)))).expect("renamed");
    assert_eq!(reader.rescan(at(0)), Scan::Whole);
    assert_eq!(path_of(&reader, &id(1)), format!("/docker/x/{}", id(1)));
}

#[test]
fn deep_and_long_paths_are_followed_and_read_whole() {
    let host = Host::v2();
    let deep = format!("{}/docker/{}", "/level".repeat(60), id(1));
    let slice = format!("kubepods-burstable-pod{}.slice", UID.replace('-', "_"));
    let long = format!("/system.slice/containerd.service/{slice}:cri-containerd:{}", id(2));
    let wide = format!("/{}/{}/{}/docker/{}", "a".repeat(255), "b".repeat(255), "c".repeat(255), id(3));
    for path in [&deep, &long, &wide] {
        host.v2_container(path);
    }
    let mut reader = host.open();
    assert_eq!([1, 2, 3].map(|number| path_of(&reader, &id(number))), [deep, long, wide]);
    reader.read(ALL, at(1));
    for number in 1..=3 {
        let read = reading(&reader, &id(number));
        assert!(read.cpu.is_some() && read.memory.is_some(), "{number}");
    }
    assert_eq!(reader.faults(), Faults::default());
}

#[test]
fn a_name_that_is_no_text_hides_nothing_below_it() {
    use std::os::unix::ffi::OsStrExt as _;
    let host = Host::v2();
    let above = host.root.join("cgroup").join(std::ffi::OsStr::from_bytes(b"odd-\xff\xfe.slice"));
    let folder = above.join(format!("docker-{}.scope", id(1)));
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("memory.current"), b"4096\n").expect("a file");
    fs::write(folder.join("memory.stat"), b"anon 4096\n").expect("a file");
    let mut reader = host.open();
    assert_eq!(path_of(&reader, &id(1)), format!("/odd-\u{fffd}\u{fffd}.slice/docker-{}.scope", id(1)));
    reader.read(ALL, at(0));
    assert_eq!(reading(&reader, &id(1)).memory.map(|memory| memory.usage_bytes), Some(4096));
    fs::remove_dir_all(&above).expect("it goes");
    assert_eq!(reader.changed(at(1)), Scan::Whole);
    assert!(reader.containers().is_empty());
}
