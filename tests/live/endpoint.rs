//! The endpoint beside the tools that it is for.

use std::io::Write;
use std::net::TcpListener;
use std::process::Stdio;

use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::rig::{Agent, Folder, KillOnDrop, SOON, await_that, command, get, root, start};

#[test]
fn promtool_accepts_the_metrics() {
    if !root("promtool") {
        return;
    }
    let cgroup = Cgroup::new("promtool");
    let _sleeper = cgroup.start(command("sleep").arg("600"));
    let agent = Agent::start(
        "[tracer.cpuidle]\nevery = \"1s\"\n[tracer.dload]\nevery = \"1s\"\n[tracer.cpusys]\nevery = \"1s\"\n",
    );
    let container = format!("container_id=\"{}\"", cgroup.id);
    let page = await_that("the container's metrics", SOON, || {
        let (status, page) = agent.get("/metrics");
        assert_eq!(status, 200);
        let families = [
            "onset_container_cpu_ratio{",
            "onset_container_dload{",
            "onset_container_tasks{",
            "onset_host_cpu_ratio{",
        ];
        let shown = |family: &&str| {
            page.lines()
                .any(|line| line.starts_with(*family) && (line.contains(&container) || line.contains("host")))
        };
        families.iter().all(shown).then_some(page)
    });
    let mut promtool = start(
        command("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    );
    promtool.0.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let said = {
        let mut said = String::new();
        std::io::Read::read_to_string(promtool.0.stderr.as_mut().unwrap(), &mut said).unwrap();
        said
    };
    let status = promtool.0.wait().unwrap();
    assert!(status.success() && said.is_empty(), "{status}: {said}\n{page}");
    for name in [
        "onset_build_info",
        "onset_tracer_state",
        "onset_events_total",
        "onset_captures_total",
        "onset_lost_records_total",
        "onset_faults_total",
        "onset_log_records_total",
        "onset_log_bytes_total",
        "onset_log_dropped_records_total",
        "onset_ship_documents_total",
        "onset_ship_retries_total",
        "onset_ship_lag_records",
        "onset_loop_turn_seconds_bucket",
        "onset_bpf_run_seconds_total",
        "onset_bpf_program_state{program=\"bio_queued\",state=\"loaded\"} 1",
        "onset_bpf_program_state{program=\"oom\",state=\"attached\"} 1",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
    ] {
        assert!(page.lines().any(|line| line.starts_with(name)), "{name} in\n{page}");
    }
    assert_eq!(agent.get("/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(agent.get("/readyz").0, 200);
    assert_eq!(agent.get("/").0, 200);
    assert_eq!(agent.get("/nothing").0, 404);
    assert_eq!(agent.leave(), Some(0));
}

/// A port that was free just now.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_real_prometheus_scrapes_it() {
    if !root("prometheus") {
        return;
    }
    let agent = Agent::start("");
    let folder = Folder::new();
    let config = folder.file(
        "prometheus.yml",
        &format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: onset, static_configs: [{{targets: ['{}']}}]}}]\n",
            agent.address
        ),
    );
    let port = port();
    let _prometheus: KillOnDrop = start(
        command("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.0.join("tsdb").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    );
    let query = |query: &str| -> Option<Value> {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
        let (status, body) = get(([127, 0, 0, 1], port).into(), &format!("/api/v1/query?query={query}"));
        let body: Value = serde_json::from_str(&body).ok().filter(|_| status == 200)?;
        body["data"]["result"].as_array()?.first().map(|sample| sample["value"][1].clone())
    };
    let up = await_that("a scrape", SOON * 2, || query("up%7Bjob%3D%22onset%22%7D").filter(|up| *up == "1"));
    assert_eq!(up, "1");
    assert_eq!(query("onset_build_info").unwrap(), "1");
    assert_eq!(query("onset_tracer_state%7Btracer%3D%22dload%22%2Cstate%3D%22active%22%7D").unwrap(), "1");
}
