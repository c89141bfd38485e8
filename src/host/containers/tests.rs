use super::*;

fn id(number: usize) -> String {
    format!("{number:064x}")
}

fn appear(table: &mut Containers, number: usize) -> Result<Key, Refused> {
    let path = format!("/docker/{}", id(number));
    let found = path::recognise(&path).expect("a container's path");
    table.appear(&path, &found, number as u64 + 1000)
}

fn changes(table: &mut Containers) -> Vec<(u64, bool)> {
    let mut seen = Vec::new();
    table.changes(|container| seen.push((container.cgroup_id(), container.is_live())));
    seen
}

#[test]
fn one_that_is_gone_can_still_be_looked_up() {
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
fn more_than_the_capacity_are_refused_until_one_goes() {
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
fn slots_are_used_again_longest_gone_first_and_their_old_keys_name_nobody() {
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
fn a_slot_whose_going_was_not_told_is_not_given_away() {
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
fn a_change_is_told_once_and_as_it_is_now() {
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
fn a_cgroup_made_anew_at_the_same_path_is_another_container() {
    let mut table = Containers::with_capacity(4);
    let old = appear(&mut table, 1).expect("room");
    let path = format!("/docker/{}", id(1));
    let found = path::recognise(&path).expect("a container's path");
    let new = table.appear(&path, &found, 5).expect("room");
    assert_ne!(old, new);
    assert!(table.get(old).is_some_and(|old| !old.is_live()));
    assert_eq!(table.at(&path).map(Container::key), Some(new));
    assert_eq!(table.len(), 1);
}

#[test]
fn an_id_is_found_by_its_beginning_if_that_is_enough() {
    let mut table = Containers::with_capacity(8);
    for (path, id) in [("/default/web", 1), ("/default/web-1", 2), ("/default/db", 3)] {
        table.appear(path, &path::recognise(path).expect("a container"), id).expect("room");
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
fn a_path_that_is_too_long_is_refused() {
    let mut table = Containers::with_capacity(8);
    let path = format!("/{}/{}", "x".repeat(PATH_MAX), id(1));
    let found = path::recognise(&path).expect("a container");
    assert_eq!(table.appear(&path, &found, 1), Err(Refused::TooLong));
}

#[test]
fn names_outlive_the_container_while_three_hundred_others_come_and_go() {
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
fn a_name_for_a_slot_that_went_to_another_is_left_alone() {
    let mut table = Containers::with_capacity(2);
    let key = appear(&mut table, 1).expect("room");
    let other = Key { generation: key.generation + 1, ..key };
    table.describe(other, &Identity { name: Text::cut("web"), ..Identity::UNKNOWN });
    assert_eq!(table.get(key).map(Container::name), Some(""));
}

#[test]
fn a_pods_name_takes_the_place_of_its_uid_once_it_is_known() {
    let mut table = Containers::with_capacity(2);
    let path = format!("/kubepods/burstable/pod1234-abcd/{}", id(1));
    let found = path::recognise(&path).expect("a container's path");
    let key = table.appear(&path, &found, 1).expect("room");
    assert_eq!(table.get(key).map(Container::pod), Some("1234-abcd"));
    table.describe(key, &Identity { pod: Text::cut("web-0"), ..Identity::UNKNOWN });
    let known = table.get(key).expect("it is there");
    assert_eq!((known.pod(), known.pod_uid(), known.qos()), ("web-0", "1234-abcd", Some("burstable")));
}
