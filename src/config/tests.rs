use super::*;
use crate::tracer::TRACERS;

fn errors(text: &str) -> Vec<String> {
    match Config::parse(text, TRACERS) {
        Ok(config) => panic!("{text} was taken: {config:?}"),
        Err(error) => error.to_string().lines().map(str::to_owned).collect(),
    }
}

#[test]
fn the_printed_default_is_what_an_empty_file_means() {
    let printed = Config::default_text(TRACERS);
    let read = Config::parse(&printed, TRACERS).expect("the printed default is valid");
    assert_eq!(read, Config::parse("", TRACERS).expect("an empty file is valid"));
    assert_eq!(read.log.segment, 16 << 20);
    assert_eq!(read.log.sync, Duration::from_secs(1));
    assert_eq!(read.listen.to_string(), "127.0.0.1:9710");
    assert_eq!(read.capture_percent, 10);
}

#[test]
fn the_example_known_issue_is_valid_when_uncommented() {
    let text =
        "[[known_issue]]\nname = \"nfs server gone\"\nframes = [\"nfs_wait_bit_killable\", \"rpc_\"]\n";
    let config = Config::parse(text, TRACERS).expect("valid");
    assert!(config.tracers.iter().all(|tracer| tracer.settings.known_issues().len() == 1));
}

#[test]
fn all_config_errors_are_reported_at_once_by_key_path() {
    let found = errors(
        "hostnam = \"x\"\nsocket = 5\n[log]\nsegment = \"16MB\"\nbudget = \"1GiB\"\nfoo = 1\n[http]\nlisten = \"nowhere\"\n\
         [tracer.cpuidle]\nevery = \"10 parsecs\"\nuser_percent = -1\n[tracer.nosuch]\nenabled = true\n[capture]\nbudget_percent = 101\n",
    );
    for path in [
        "hostnam:",
        "socket:",
        "log.segment:",
        "log.foo:",
        "http.listen:",
        "tracer.cpuidle.every:",
        "tracer.cpuidle.user_percent:",
        "tracer.nosuch:",
        "capture.budget_percent:",
    ] {
        assert_eq!(found.iter().filter(|line| line.starts_with(path)).count(), 1, "{path} in {found:#?}");
    }
    assert_eq!(found.len(), 9, "{found:#?}");
}

#[test]
fn a_value_of_another_kind_or_out_of_its_range_is_refused_with_what_would_be_right() {
    for (text, hint) in [
        ("[tracer.dload]\nenabled = \"yes\"", "true or false"),
        ("[tracer.dload]\nevery = 5", "in quotes"),
        ("[tracer.dload]\nevery = \"0s\"", "from 100ms to"),
        ("[tracer.dload]\nload = inf", "number of at least 0"),
        ("[tracer.dload]\nsustained_samples = -1", "whole number"),
        ("[containers]\ncapacity = 3", "from 16 to 16384"),
        ("[tracer.dload]\nexclude = \"qos:x\"", "list of texts"),
        ("[tracer.dload]\nexclude = [3]", "exclude: [0] must be a text"),
        (
            "[tracer.dload]\ninclude = [\"pod:a\", \"kube-*\"]",
            "tracer.dload.include: [1] must be WHAT:PATTERN",
        ),
        ("hostname = \"${ONSET_NO_SUCH_VARIABLE}\"", "no variable ONSET_NO_SUCH_VARIABLE"),
        ("[containers]\nkubelet = \"https://${ONSET\"", "containers.kubelet: has a ${"),
        ("[containers]\ndocker = [\"var/lib\"]", "begins with /"),
        ("[containers]\nkubelet = \"10.0.0.1:10250\"", "https://"),
        ("[containers]\nkubelet = \"http://127.0.0.1:10255\"\nkubelet_token_file = \"/t\"", "only to https"),
        ("[containers]\nkubelet = \"https://n\"\nkubelet_cert_file = \"/t\"", "kubelet_key_file"),
        ("[log]\nsegment = \"1GiB\"", "two segments"),
        ("[log]\nsegment = \"1MiB\"", "half a segment"),
        ("log = 3", "must be a table"),
        ("known_issue = 3", "must be a list"),
        ("[[known_issue]]\nname = \"x\"", "frames"),
        ("[[known_issue]]\nname = \"x\"\nframes = [3]", "each must be a text"),
        ("[elasticsearch]\nurl = \"ftp://x\"", "http:// or https://"),
        ("[elasticsearch]\nusername = \"x\"", "password_file"),
    ] {
        let found = errors(text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].contains(hint), "{text}: {found:?}");
    }
}

#[test]
fn broken_toml_is_named_by_its_line() {
    let found = errors("region = \"x\"\n[log\n");
    assert!(found[0].starts_with("line 2:"), "{found:?}");
}

#[test]
fn changed_keys_that_need_a_restart_are_named() {
    let old = Config::parse("", TRACERS).expect("valid");
    let new = Config::parse("[log]\ndir = \"/x\"\n[tracer.dload]\nload = 1", TRACERS).expect("valid");
    assert_eq!(old.fixed_at_start(&new), ["[log]"]);
}
