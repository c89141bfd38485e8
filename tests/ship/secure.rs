//! HTTPS, with nginx and a private CA before a real OpenSearch.

use serde_json::json;

use crate::fixture::{config, events, outcomes, shipped};
use crate::nginx::{Authority, Nginx, only_user};
use crate::opensearch::shared;
use crate::rig::{Agent, Folder, SOON, root};

#[test]
fn the_right_ca_works_and_the_wrong_one_or_a_wrong_name_is_refused_with_a_clear_line() {
    if !root("shipping") {
        return;
    }
    let Some(server) = shared("HTTPS") else { return };
    let folder = Folder::new();
    let right = Authority::new(&folder.0, "right");
    let other = Authority::new(&folder.0, "other");
    let who = only_user(&folder.0, "onset", "pass word");
    let password = folder.file("password", "pass word\n");
    let good = Nginx::start(&folder.0, server.address(), &right.certificate("IP:127.0.0.1"), &who);
    let misnamed =
        Nginx::start(&folder.0, server.address(), &right.certificate("DNS:elsewhere.example"), &who);
    let ships = |nginx: &Nginx, ca: Option<&Authority>, index: &str| {
        let ca = ca.map(|ca| format!("ca_file = \"{}\"\n", ca.file().display())).unwrap_or_default();
        let more = format!(
            "index = \"{index}\"\nusername = \"onset\"\npassword_file = \"{}\"\n{ca}",
            password.display()
        );
        let agent = Agent::start(&config(&nginx.url(), &more));
        assert_eq!(events(&agent, 3), 3);
        agent
    };
    let agent = ships(&good, Some(&right), "secure");
    shipped(&agent, SOON * 2);
    assert_eq!(outcomes(&agent), [3.0, 0.0, 0.0]);
    assert_eq!(server.found("secure", &json!({ "match_all": {} })).len(), 3);
    drop(agent);
    for (nginx, ca, word) in [
        (&good, Some(&other), "not of a CA that is trusted"),
        (&good, None, "not of a CA that is trusted"), // the system's roots do not know it
        (&misnamed, Some(&right), "for another name"),
    ] {
        let agent = ships(nginx, ca, "refused");
        let line = agent.said.wait("a line on the certificate", SOON, |line| {
            line.contains("cannot ship").then(|| line.to_owned())
        });
        assert!(line.contains(word), "{word}: {line}");
        assert_eq!(outcomes(&agent), [0.0; 3]);
        assert_eq!(agent.metric("onset_ship_lag_records"), Some(3.0));
        assert_eq!(agent.leave(), Some(0));
    }
    assert_eq!(server.count("refused"), 0);
}
