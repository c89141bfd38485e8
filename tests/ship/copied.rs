//! A log that was copied with its host's image: two agents go on with it, and one index takes
//! everything that either of them kept.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::fake::{Answer, Fake};
use crate::fixture::{events, folder, outcomes, shipped, write};
use crate::rig::{Agent, SOON, root, text};

/// Documents that the image had in its log.
const IMAGE: usize = 20;
/// Events of each agent between two starts.
const EACH: usize = 5;

#[test]
fn two_hosts_cloned_from_one_image_keep_all_their_documents() {
    if !root("shipping") {
        return;
    }
    let index: Arc<Mutex<BTreeMap<String, Value>>> = Arc::default();
    let theirs = index.clone();
    let fake = Fake::start(move |request, _| {
        let mut index = theirs.lock().unwrap();
        let mut statuses = BTreeMap::new();
        for (id, document) in request.ids().into_iter().zip(request.documents()) {
            statuses.insert(id.clone(), if index.contains_key(&id) { 409 } else { 201 });
            index.entry(id).or_insert(document);
        }
        Answer::items(request, |id| statuses[id])
    });
    let [one, two] = [(); 2].map(|()| folder(&fake.url(), "", ""));
    write(&one.1, IMAGE);
    fs::create_dir(two.0.0.join("log")).unwrap();
    for entry in fs::read_dir(one.0.0.join("log")).unwrap().map(|entry| entry.unwrap()) {
        fs::copy(entry.path(), two.0.0.join("log").join(entry.file_name())).unwrap();
    }
    let mut agents = [one, two].map(|(folder, config)| Agent::start_in(folder, config));
    let mut taken = [0.0; 3];
    for round in 0..2 {
        for agent in &mut agents {
            if round > 0 {
                agent.signal(libc::SIGKILL);
                agent.child.0.wait().unwrap();
                agent.again();
            }
            assert_eq!(events(agent, EACH), EACH);
        }
        for agent in &agents {
            shipped(agent, SOON);
            taken = [0, 1, 2].map(|outcome| taken[outcome] + outcomes(agent)[outcome]);
        }
    }
    let index = index.lock().unwrap();
    for agent in &agents {
        let kept = agent.events();
        assert_eq!(kept.len(), IMAGE + 2 * EACH);
        for event in kept {
            let mut there = index[text(&event, "/tracer_id")].clone();
            there.as_object_mut().unwrap().remove("uploaded_time");
            assert_eq!(there, event, "what the index has is this document");
        }
    }
    assert_eq!(index.len(), IMAGE + 4 * EACH);
    let [created, duplicates, rejected] = taken;
    assert_eq!((created, rejected), (index.len() as f64, 0.0));
    assert!(duplicates >= IMAGE as f64, "each sent what the image had not sent yet");
    for agent in agents {
        assert_eq!(agent.leave(), Some(0));
    }
}
