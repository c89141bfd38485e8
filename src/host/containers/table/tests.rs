use super::*;
use crate::host::containers::path;
use crate::host::containers::paths::PATH_MAX;
use crate::host::identity::{NameReport, NameSource, Record};

fn id(number: usize) -> String {
    format!("{number:064x}")
}

fn appear(table: &mut Containers, number: usize) -> Result<Key, Refused> {
    let path = format!("/docker/{}", id(number));
    let found = path::recognise(&path).expect("a container's path");
    table.appear(path.as_bytes(), &found, number as u64 + 1000, Maker::Host)
}

fn changes(table: &mut Containers) -> Vec<(u64, bool)> {
    let mut seen = Vec::new();
    table.changes(|container| seen.push((container.cgroup_id(), container.is_live())));
    seen
}

#[test]
fn a_container_that_is_gone_can_still_be_looked_up() {
    let mut table = Containers::with_capacity(4);
    let key = appear(&mut table, 7).expect("room");
    let told = Identity {
        name: Text::cut("web"),
        namespace: Text::cut("shop"),
        hostname: Text::cut("web-0"),
        ..Identity::UNKNOWN
    };
    table.describe(key, &told);
    table.vanish(key);
    assert!(table.is_empty() && table.iter().next().is_none());
    let gone = table.get(key).expect("its slot is not needed yet");
    assert!(!gone.is_live());
    assert_eq!(
        (gone.id(), gone.name(), gone.namespace(), gone.hostname()),
        (&*id(7), "web", "shop", "web-0")
    );
    assert_eq!(table.find(&id(7)), Err(NotFound::None));
}

#[test]
fn a_full_container_table_refuses_until_one_is_gone() {
    let mut table = Containers::with_capacity(2);
    let first = appear(&mut table, 1).expect("room");
    appear(&mut table, 2).expect("room");
    assert_eq!(appear(&mut table, 3), Err(Refused::Full));
    assert_eq!(appear(&mut table, 1), Ok(first), "what is there already needs no room");
    table.vanish(first);
    assert!(appear(&mut table, 3).is_ok());
    assert_eq!(table.len(), 2);
}

#[test]
fn slots_are_reused_longest_gone_first_and_stale_keys_find_nothing() {
    let mut table = Containers::with_capacity(2);
    let mut keys = Vec::new();
    for number in 0..1000 {
        let key = appear(&mut table, number).expect("room");
        table.vanish(key);
        table.changes(|_| ());
        keys.push(key);
    }
    assert!(table.slots() <= Containers::slots_for(2));
    let known: Vec<bool> = keys.iter().map(|key| table.get(*key).is_some()).collect();
    let forgotten = known.iter().take_while(|known| !**known).count();
    assert!(known.iter().skip(forgotten).all(|known| *known), "the longest gone went first");
    assert_eq!(known.len() - forgotten, REMEMBERED);
}

#[test]
fn a_slot_is_not_reused_before_its_removal_was_reported() {
    let mut table = Containers::with_capacity(2);
    let mut refused = 0;
    let mut gone = Vec::new();
    for number in 0..200 {
        match appear(&mut table, number) {
            Ok(key) => {
                gone.push((number as u64 + 1000, false));
                table.vanish(key);
            }
            Err(error) => {
                assert_eq!(error, Refused::Full);
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "nobody asked for the changes");
    assert_eq!(changes(&mut table), gone, "each is told, in order");
    assert!(appear(&mut table, 201).is_ok());
}

#[test]
fn each_change_is_reported_once_with_the_current_state() {
    let mut table = Containers::with_capacity(4);
    let one = appear(&mut table, 1).expect("room");
    appear(&mut table, 2).expect("room");
    assert_eq!(changes(&mut table), [(1001, true), (1002, true)]);
    assert_eq!(changes(&mut table), []);
    table.vanish(one);
    table.vanish(one);
    let three = appear(&mut table, 3).expect("room");
    table.vanish(three);
    assert_eq!(changes(&mut table), [(1001, false), (1003, false)]);
}

#[test]
fn a_cgroup_recreated_at_the_same_path_is_another_container() {
    let mut table = Containers::with_capacity(4);
    let old = appear(&mut table, 1).expect("room");
    let path = format!("/docker/{}", id(1));
    let found = path::recognise(&path).expect("a container's path");
    let new = table.appear(path.as_bytes(), &found, 5, Maker::Host).expect("room");
    assert_ne!(old, new);
    assert!(table.get(old).is_some_and(|old| !old.is_live()));
    assert_eq!(table.at(path.as_bytes()).map(Container::key), Some(new));
    assert_eq!(table.len(), 1);
}

#[test]
fn a_container_is_found_by_an_unambiguous_prefix_of_its_id() {
    let mut table = Containers::with_capacity(8);
    for (path, id) in [("/default/web", 1), ("/default/web-1", 2), ("/default/db", 3)] {
        table
            .appear(path.as_bytes(), &path::recognise(path).expect("a container"), id, Maker::Host)
            .expect("room");
    }
    let named = |prefix: &str| table.find(prefix).map(|key| table.get(key).map_or("", Container::id));
    assert_eq!(named("d"), Ok("db"));
    assert_eq!(named("web"), Ok("web"), "a whole id is not ambiguous");
    assert_eq!(named("web-"), Ok("web-1"));
    assert_eq!(named("we"), Err(NotFound::Several));
    assert_eq!(named("x"), Err(NotFound::None));
    assert_eq!(named(""), Err(NotFound::None));
}

#[test]
fn a_cgroup_below_a_container_belongs_to_it() {
    let mut table = Containers::with_capacity(8);
    let key = appear(&mut table, 1).expect("room");
    let inner = format!("/docker/{}/system.slice/ssh.service", id(1));
    assert_eq!(table.holding(&inner).map(Container::key), Some(key));
    assert!(table.holding(&format!("/docker/{}", id(2))).is_none());
    assert!(table.holding("/").is_none());
}

#[test]
fn paths_are_kept_whole_up_to_path_max() {
    let mut table = Containers::with_capacity(8);
    let above = PATH_MAX - 1 - "/docker/".len() - id(1).len();
    let path = format!("{}/docker/{}", "/".repeat(above), id(1));
    let found = path::recognise(&path).expect("a container");
    let key = table.appear(path.as_bytes(), &found, 1, Maker::Host).expect("room");
    assert_eq!(table.get(key).map(Container::cgroup_path), Some(&*path));
    let longer = format!("/{path}");
    let other = path::recognise(&longer).expect("a container");
    table.vanish(key);
    assert_eq!(table.appear(longer.as_bytes(), &other, 2, Maker::Host), Err(Refused::TooLong));
    assert!(appear(&mut table, 2).is_ok(), "its slot is not lost");
}

#[test]
fn paths_of_gone_containers_make_room_for_new_ones() {
    let mut table = Containers::with_capacity(16);
    let long = |number: usize| format!("/{}/docker/{}", "x".repeat(3000), id(number));
    let mut keys = Vec::new();
    for number in 0..64 {
        let path = long(number);
        let found = path::recognise(&path).expect("a container");
        let key = table.appear(path.as_bytes(), &found, number as u64, Maker::Host).expect("room");
        assert_eq!(table.get(key).map(Container::cgroup_path), Some(&*path));
        table.vanish(key);
        table.changes(|_| ());
        keys.push(key);
    }
    let first = table.get(keys[0]).expect("its slot is not needed yet");
    assert_eq!((first.id(), first.cgroup_path()), (&*id(0), ""), "an id without a path, and no wrong one");
}

/// A cgroup that a user made, with the id of this number.
fn forge(table: &mut Containers, number: usize) -> Result<Key, Refused> {
    let path = format!("/user.slice/user@1000.service/docker-{}.scope", id(number));
    let found = path::recognise(&path).expect("a container's path");
    if let Some(rival) = table.rival(path.as_bytes(), found.id).map(Container::key)
        && !table.contest(rival, Maker::User(1000))
    {
        table.vanish(rival);
    }
    table.appear(path.as_bytes(), &found, number as u64 + 5000, Maker::User(1000))
}

/// What a runtime's file says of its container, in a file of root's.
fn record(name: &str, cgroup: Option<&str>) -> NameReport {
    let identity = Identity { name: Text::cut(name), ..Identity::UNKNOWN };
    let record = Record { cgroup: cgroup.map(Box::from), owner: 0, stamp: 1 };
    NameReport { identity, by: NameSource::Runtime(record) }
}

#[test]
fn a_forged_id_is_refused_while_the_containers_own_cgroup_is_there() {
    let mut table = Containers::with_capacity(4);
    let real = appear(&mut table, 1).expect("room");
    assert_eq!(forge(&mut table, 1), Err(Refused::Rival));
    assert_eq!((table.len(), table.find(&id(1))), (1, Ok(real)));
    table.changes(|_| ());
    table.vanish(real);
    assert!(forge(&mut table, 1).is_ok(), "without it the cgroup is its own subject");
}

#[test]
fn a_users_cgroup_gets_no_name_from_the_hosts_runtimes() {
    let mut table = Containers::with_capacity(4);
    let forged = forge(&mut table, 1).expect("room");
    let named = |table: &Containers| table.get(forged).map(|it| it.name().to_owned());
    let kubelet = NameReport { by: NameSource::Kubelet, ..record("bank", None) };
    for told in [record("bank", None), record("bank", Some(&format!("/docker/{}", id(1)))), kubelet] {
        assert!(!table.learn(forged, &told));
        assert_eq!(named(&table).as_deref(), Some(""), "{told:?}");
    }
    let mut own = record("mine", Some(&format!("app.slice:docker:{}", id(1))));
    if let NameSource::Runtime(record) = &mut own.by {
        record.owner = 1000;
    }
    table.learn(forged, &own);
    assert_eq!(named(&table).as_deref(), Some(""), "the runtime's is in another slice");
    let mut own = record("mine", Some(&format!("user@1000.service/docker-{}.scope", id(1))));
    if let NameSource::Runtime(record) = &mut own.by {
        record.owner = 1000;
    }
    table.learn(forged, &own);
    assert_eq!(named(&table).as_deref(), Some("mine"), "the user's own runtime says so");
}

/// The same in a file of this user's.
fn users_record(owner: u32, name: &str, cgroup: Option<&str>) -> NameReport {
    let mut told = record(name, cgroup);
    if let NameSource::Runtime(record) = &mut told.by {
        record.owner = owner;
    }
    told
}

#[test]
fn a_users_state_file_names_no_container_of_the_host() {
    let mut table = Containers::with_capacity(4);
    let real = appear(&mut table, 1).expect("room");
    table.learn(real, &record("web", None));
    for cgroup in [None, Some(&*format!("/docker/{}", id(1))), Some("/elsewhere")] {
        assert!(!table.learn(real, &users_record(1000, "bank", cgroup)));
        assert_eq!(table.get(real).map(Container::name), Some("web"), "{cgroup:?}");
    }
    assert_eq!(forge(&mut table, 1), Err(Refused::Rival), "and speaks not against it");
}

#[test]
fn a_users_claim_does_not_displace_the_hosts_container() {
    let mut table = Containers::with_capacity(4);
    let forged = forge(&mut table, 1).expect("the host's is stopped");
    let path = table.get(forged).expect("there").cgroup_path().to_owned();
    table.learn(forged, &users_record(1000, "mine", Some(&path)));
    assert_eq!(table.get(forged).map(Container::name), Some("mine"));
    assert!(!table.contest(forged, Maker::Host), "it gives way");
}

/// A cgroup that a container made within its own, as if it were in another pod.
fn nested(table: &mut Containers, number: usize) -> Key {
    let slice = "kubepods-podaaaaaaaa_0000_4000_8000_000000000001.slice";
    let path = format!("/docker/{}/kubepods.slice/{slice}/cri-containerd-{}.scope", id(1), id(number));
    let found = path::recognise(&path).expect("a container's path");
    table.appear(path.as_bytes(), &found, number as u64 + 9000, Maker::Container).expect("room")
}

#[test]
fn a_cgroup_that_a_container_makes_shows_no_pod_until_the_hosts_runtime_knows_it() {
    let mut table = Containers::with_capacity(4);
    let key = nested(&mut table, 2);
    let kubelet = NameReport { by: NameSource::Kubelet, ..record("bank", None) };
    let shown = |table: &Containers| {
        let it = table.get(key).expect("there");
        (it.name().to_owned(), it.pod_uid().to_owned(), it.qos())
    };
    table.learn(key, &kubelet);
    assert_eq!(shown(&table), (String::new(), String::new(), None), "its path is no proof");
    let noted = format!("kubepods-podaaaaaaaa_0000_4000_8000_000000000001.slice:cri-containerd:{}", id(2));
    table.learn(key, &users_record(1000, "", Some(&noted)));
    table.learn(key, &kubelet);
    assert_eq!(shown(&table).0, "", "a user's file is none, either");
    table.learn(key, &record("", Some(&noted)));
    table.learn(key, &kubelet);
    let pod = "aaaaaaaa-0000-4000-8000-000000000001";
    assert_eq!(shown(&table), ("bank".into(), pod.into(), Some("guaranteed")));
}

#[test]
fn a_users_cgroup_is_in_no_pod() {
    let mut table = Containers::with_capacity(4);
    let path = format!("/user.slice/user@1000.service/kubepods/pod1234-abcd/{}", id(1));
    let found = path::recognise(&path).expect("a container's path");
    for (maker, pod) in [(Maker::User(1000), ""), (Maker::Others, ""), (Maker::Host, "1234-abcd")] {
        let key = table.appear(path.as_bytes(), &found, 1, maker).expect("room");
        assert_eq!(table.get(key).map(Container::pod_uid), Some(pod), "{maker:?}");
    }
}

#[test]
fn a_cgroup_found_to_be_a_users_loses_names_from_the_hosts_runtimes() {
    let mut table = Containers::with_capacity(4);
    let path = format!("/system.slice/app.service/docker-{}.scope", id(1));
    let found = path::recognise(&path).expect("a container's path");
    let see = |table: &mut Containers, maker| table.appear(path.as_bytes(), &found, 7, maker).expect("room");
    let key = see(&mut table, Maker::Host);
    table.learn(key, &record("bank", None));
    assert_eq!(table.get(key).map(|it| (it.name(), it.needs_proof())), Some(("bank", false)));
    table.changes(|_| ());
    assert_eq!(see(&mut table, Maker::User(998)), key);
    assert_eq!(table.get(key).map(|it| (it.name(), it.needs_proof())), Some(("", true)));
    assert_eq!(changes(&mut table), [(7, true)], "and is asked about once more");
    assert!(!table.contest(key, Maker::Host), "it gives way to the host's");
    see(&mut table, Maker::User(998));
    assert_eq!(changes(&mut table), [], "once");
}

#[test]
fn the_runtimes_record_decides_between_two_cgroups_of_one_id() {
    let mut table = Containers::with_capacity(4);
    // As a container leaves it whose runtime got another driver for cgroups.
    let stale = appear(&mut table, 1).expect("room");
    table.changes(|_| ());
    assert!(table.contest(stale, Maker::Host), "nobody knows better yet");
    let mut asked = Vec::new();
    table.changes(|container| asked.push((container.key(), container.needs_proof())));
    assert_eq!(asked, [(stale, true)], "so the runtime's record is looked for");
    let says = format!("system.slice:docker:{}", id(1));
    assert!(table.learn(stale, &record("web", Some(&says))), "another look is due");
    assert!(!table.contest(stale, Maker::Host));
    table.vanish(stale);
    let path = format!("/system.slice/docker-{}.scope", id(1));
    let found = path::recognise(&path).expect("a container's path");
    let real = table.appear(path.as_bytes(), &found, 9, Maker::Host).expect("room");
    table.succeed(real);
    assert!(!table.learn(real, &record("web", Some(&says))));
    assert_eq!(table.get(real).map(Container::name), Some("web"));
    assert!(table.contest(real, Maker::Host) && table.contest(real, Maker::User(7)));
}

#[test]
fn two_claimants_without_a_record_do_not_alternate() {
    let mut table = Containers::with_capacity(4);
    let first = appear(&mut table, 1).expect("room");
    assert!(table.contest(first, Maker::Host));
    assert!(table.learn(first, &record("web", Some("/elsewhere/x"))));
    table.vanish(first);
    let second = appear(&mut table, 1).expect("room");
    table.succeed(second);
    assert!(!table.learn(second, &record("web", Some("/elsewhere/x"))));
    assert!(table.contest(second, Maker::Host), "it stays");
}

#[test]
fn names_of_a_gone_container_survive_three_hundred_others() {
    let mut table = Containers::with_capacity(1024);
    let key = appear(&mut table, 1).expect("room");
    table.describe(key, &Identity { name: Text::cut("web"), ..Identity::UNKNOWN });
    table.vanish(key);
    // At ten a second that is half a minute: longer than a capture and its symbols take.
    for number in 2..302 {
        let other = appear(&mut table, number).expect("room");
        table.vanish(other);
        table.changes(|_| ());
    }
    assert_eq!(table.get(key).map(Container::name), Some("web"));
}

#[test]
fn a_late_name_does_not_go_to_the_slots_next_container() {
    let mut table = Containers::with_capacity(2);
    let key = appear(&mut table, 1).expect("room");
    let other = Key { generation: key.generation + 1, ..key };
    table.describe(other, &Identity { name: Text::cut("web"), ..Identity::UNKNOWN });
    assert_eq!(table.get(key).map(Container::name), Some(""));
}

#[test]
fn a_pods_name_replaces_its_uid_once_known() {
    let mut table = Containers::with_capacity(2);
    let path = format!("/kubepods/burstable/pod1234-abcd/{}", id(1));
    let found = path::recognise(&path).expect("a container's path");
    let key = table.appear(path.as_bytes(), &found, 1, Maker::Host).expect("room");
    assert_eq!(table.get(key).map(Container::pod), Some("1234-abcd"));
    table.describe(key, &Identity { pod: Text::cut("web-0"), ..Identity::UNKNOWN });
    let known = table.get(key).expect("it is there");
    assert_eq!((known.pod(), known.pod_uid(), known.qos()), ("web-0", "1234-abcd", Some("burstable")));
}
