//! Real containers by runc, containerd and podman: each is told by its names in the event that it
//! causes, also when it lives for two seconds only and its runtime has forgotten it by then.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cgroup::Cgroup;
use crate::cpuidle::{share, spinner};
use crate::rig::{Agent, Folder, KillOnDrop, SOON, await_that, command, done, only, root, run, start, text};

/// Ends by itself, should the test be killed. The shell stays the first process: that one could not be
/// killed from inside.
const SPIN: &str = "timeout -s KILL 60 sh -c 'while :; do :; done'; true";

/// A root filesystem with a shell in it, and nothing else.
fn filesystem(folder: &Folder) -> PathBuf {
    let rootfs = folder.0.join("rootfs");
    for name in ["bin", "proc", "dev", "sys", "tmp", "etc"] {
        fs::create_dir_all(rootfs.join(name)).unwrap();
    }
    fs::copy("/bin/busybox", rootfs.join("bin/busybox")).unwrap();
    for name in ["sh", "dd", "sleep", "timeout"] {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(name)).unwrap();
    }
    rootfs
}

/// An agent that sees any container that spins on its fifth of a CPU, and looks for names in these folders.
fn agent(capture: &str, names: &str) -> Agent {
    let keys =
        format!("every = \"200ms\"\ncapture = \"{capture}\"\nsustained_samples = 1\ntotal_percent = 30");
    let all = ["docker", "containerd", "storage", "runc"];
    let none: String = all
        .iter()
        .filter(|key| !names.contains(&format!("{key} = ")))
        .map(|key| format!("{key} = []\n"))
        .collect();
    Agent::start(&format!("{}[containers]\n{none}{names}\n", only("cpuidle", &keys)))
}

/// Kills what is in these cgroups, in every hierarchy, and takes them away.
fn clear(path: &str) {
    let roots = fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
    let folders: Vec<_> =
        roots.chain([PathBuf::from("/sys/fs/cgroup")]).map(|root| root.join(path)).collect();
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        let list = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        for pid in list.lines().filter_map(|line| line.parse().ok()) {
            // SAFETY: takes no pointers; these processes are in a cgroup of ours.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        let end = std::time::Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(folder).is_err() && folder.exists() && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A container of runc's, described as a CRI runtime does it.
struct Runc {
    folder: Folder,
    cgroup: String,
}

const POD: &str = "3f1f8a52-8e51-4f0a-9c1f-0d6f5f1d2a3b";

impl Runc {
    fn command(&self) -> Command {
        let mut runc = command("runc");
        runc.arg("--root").arg(self.state());
        runc
    }

    fn state(&self) -> PathBuf {
        self.folder.0.join("state")
    }

    fn id(&self) -> &str {
        self.cgroup.rsplit('/').next().unwrap()
    }

    /// A bundle that runs this, with at most so much memory.
    fn new(script: &str, memory: u64) -> Runc {
        let id = format!("{:064x}", u128::from(std::process::id()) << 64 | 0xc0de);
        let runc = Runc { folder: Folder::new(), cgroup: format!("kubepods/burstable/pod{POD}/{id}") };
        done(runc.command().args(["spec", "-b"]).arg(&runc.folder.0));
        let file = runc.folder.0.join("config.json");
        let mut spec: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        spec["process"]["terminal"] = false.into();
        spec["process"]["args"] = json!(["/bin/sh", "-c", script]);
        spec["hostname"] = "web-0.shop".into();
        spec["root"] = json!({ "path": filesystem(&runc.folder) });
        spec["linux"]["cgroupsPath"] = format!("/{}", runc.cgroup).into();
        spec["linux"]["resources"]["memory"] = json!({ "limit": memory });
        spec["linux"]["resources"]["cpu"] = json!({ "quota": 20_000, "period": 100_000 });
        spec["annotations"] = json!({
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.container-name": "web",
            "io.kubernetes.cri.sandbox-name": "web-0",
            "io.kubernetes.cri.sandbox-namespace": "shop",
        });
        fs::write(file, spec.to_string()).unwrap();
        runc
    }

    /// Starts it. It writes nowhere: a pipe of ours would be held by what it leaves behind.
    fn start(&self) {
        let mut runc = self.command();
        runc.args(["run", "-d", "-b"]).arg(&self.folder.0).arg(self.id());
        let out = fs::File::create(self.folder.0.join("said")).unwrap();
        let status = runc.stdout(out.try_clone().unwrap()).stderr(out).status().unwrap();
        assert!(status.success(), "{}", fs::read_to_string(self.folder.0.join("said")).unwrap());
    }
}

impl Drop for Runc {
    fn drop(&mut self) {
        let _ = self.command().args(["delete", "-f", self.id()]).stderr(Stdio::null()).status();
        clear(&self.cgroup);
        clear(&format!("kubepods/burstable/pod{POD}"));
    }
}

fn assert_named(event: &Value, names: &[(&str, &str)]) {
    for (field, value) in names {
        assert_eq!(event[*field], *value, "{field} of {event:#}");
    }
}

const OF_RUNC: [(&str, &str); 6] = [
    ("container_name", "web"),
    ("pod", "web-0"),
    ("pod_uid", POD),
    ("container_host_namespace", "shop"),
    ("container_hostname", "web-0.shop"),
    ("container_qos", "burstable"),
];

#[test]
fn a_runc_container_is_named_by_its_state_annotations() {
    if !root("runc") {
        return;
    }
    let runc = Runc::new(SPIN, 64 << 20);
    let agent = agent("1s", &format!("runc = [{:?}]", runc.state()));
    runc.start();
    let event = agent.event("the container's event", SOON, |it| it["container_id"] == runc.id());
    assert_named(&event, &OF_RUNC);
    let label = format!("container_id=\"{}\",container=\"web\",pod=\"web-0\",namespace=\"shop\"", runc.id());
    await_that("its metrics", SOON, || agent.get("/metrics").1.contains(&label).then_some(()));
    let listed = done(&mut agent.onset(&["containers", "--json"]));
    let rows: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let row = rows.iter().find(|row| row["container_id"] == runc.id()).unwrap();
    assert_named(row, &OF_RUNC);
    assert_eq!(agent.leave(), Some(0));
}

#[test]
fn the_victim_of_an_oom_kill_is_named_even_if_its_container_ends() {
    if !root("runc") {
        return;
    }
    let hog = "sleep 1; dd if=/dev/zero of=/dev/null bs=128M count=1";
    let runc = Runc::new(hog, 32 << 20);
    let agent = Agent::start(&format!("{}[containers]\nrunc = [{:?}]\n", only("oom", ""), runc.state()));
    runc.start();
    let event = agent.event("the kill", SOON, |it| it["container_id"] == runc.id());
    assert_eq!(text(&event, "/tracer_name"), "oom");
    assert_eq!(text(&event, "/tracer_data/victim/comm"), "dd");
    assert_named(&event, &OF_RUNC);
    assert_eq!(agent.leave(), Some(0));
}

#[test]
fn an_oom_kill_in_a_filtered_container_is_counted_without_an_event() {
    if !root("runc") {
        return;
    }
    let runc = Runc::new("sleep 1; dd if=/dev/zero of=/dev/null bs=128M count=1", 32 << 20);
    let filter = "exclude = [\"container:w?b\"]";
    let agent = Agent::start(&format!("{}[containers]\nrunc = [{:?}]\n", only("oom", filter), runc.state()));
    runc.start();
    await_that("the kill", SOON, || agent.metric("onset_oom_kills_total").filter(|kills| *kills >= 1.0));
    let done = "onset_captures_total{tracer=\"oom\",outcome=\"done\"}";
    await_that("its answer", SOON, || agent.metric(done).filter(|done| *done >= 1.0));
    assert!(agent.events().iter().all(|event| event["container_id"] != runc.id()));
    assert_eq!(agent.leave(), Some(0));
}

/// A containerd of the test's own, without the plugin for Kubernetes.
struct Containerd {
    _running: KillOnDrop,
    folder: Folder,
}

impl Containerd {
    fn start() -> Containerd {
        let folder = Folder::new();
        let at = &folder.0;
        let text = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{0}/sock\"\n",
            at.display()
        );
        fs::write(at.join("config.toml"), text).unwrap();
        let said = fs::File::create(at.join("said")).unwrap();
        let mut daemon = command("containerd");
        daemon.arg("--config").arg(at.join("config.toml")).stdout(said.try_clone().unwrap()).stderr(said);
        let containerd = Containerd { _running: start(&mut daemon), folder };
        await_that("containerd to answer", SOON, || {
            run(&mut containerd.ctr(&["version"])).status.success().then_some(())
        });
        containerd
    }

    fn ctr(&self, arguments: &[&str]) -> Command {
        let mut ctr = command("timeout");
        ctr.args(["-k", "1", "60", "ctr", "--address"]).arg(self.folder.0.join("sock")).args(arguments);
        ctr
    }
}

/// Its shims outlive it, and hold the containers.
impl Drop for Containerd {
    fn drop(&mut self) {
        let address = self.folder.0.join("sock").display().to_string();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let shim = line.starts_with(b"/usr/bin/containerd-shim-runc-v2");
            if let Some(pid) = pid.filter(|_| shim && String::from_utf8_lossy(&line).contains(&address)) {
                // SAFETY: takes no pointers; this process has our folder in its arguments.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        }
    }
}

#[test]
fn a_two_second_containerd_container_is_named_after_its_end() {
    if !root("containerd") {
        return;
    }
    let containerd = Containerd::start();
    let rootfs = filesystem(&containerd.folder);
    let state = containerd.folder.0.join("state");
    let agent = agent("10s", &format!("containerd = [\"{}\"]", state.display()));
    let spin = SPIN.replace("60", "2");
    let rootfs = rootfs.display().to_string();
    let name = format!("redis-{}", std::process::id());
    let arguments = [
        "run",
        "--rm",
        "--cpus",
        "0.2",
        "--rootfs",
        "--env",
        "PATH=/bin",
        "--env",
        "HOSTNAME=cache-1",
        &rootfs,
        &name,
        "/bin/sh",
        "-c",
        &spin,
    ];
    let ended = run(&mut containerd.ctr(&arguments));
    let task = state.join("io.containerd.runtime.v2.task/default").join(&name);
    assert!(!task.exists(), "containerd has forgotten it: {ended:?}");
    assert!(agent.events().is_empty(), "its capture still goes on");
    let event = agent.event("the container's event", SOON, |it| it["container_id"] == name.as_str());
    assert_named(
        &event,
        &[
            ("container_name", &name),
            ("container_runtime", "containerd"),
            ("container_type", "container"),
            ("cgroup_path", &format!("/default/{name}")),
        ],
    );
    assert!(event.get("container_hostname").is_none(), "a variable of the application's is no host name");
    assert_eq!(agent.leave(), Some(0));
    clear(&format!("default/{name}"));
}

/// Podman with folders of the test's own.
struct Podman {
    folder: Folder,
    name: &'static str,
}

impl Podman {
    fn command(&self) -> Command {
        let mut podman = command("podman");
        podman
            .arg("--root")
            .arg(self.folder.0.join("storage"))
            .arg("--runroot")
            .arg(self.folder.0.join("run"));
        podman.args(["--tmpdir"]).arg(self.folder.0.join("tmp"));
        podman.args([
            "--runtime",
            "/usr/sbin/runc",
            "--cgroup-manager",
            "cgroupfs",
            "--storage-driver",
            "vfs",
        ]);
        podman
    }

    /// Starts a container that spins on its fifth of a CPU. Returns its id.
    fn start(&self, rootfs: &Path, options: &[&str]) -> String {
        let mut begin = self.command();
        begin.args(["run", "-d", "--name", self.name, "--hostname", "db-1", "--network", "none"]);
        begin.args(["--cpus", "0.2", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]);
        begin.args(["--log-driver", "none"]).args(options);
        begin.arg("--rootfs").arg(rootfs).args(["/bin/sh", "-c", SPIN]);
        done(&mut begin).trim().to_owned()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = run(self.command().args(["rm", "-f", "-t", "0", self.name]));
    }
}

#[test]
fn a_podman_container_has_the_name_that_its_owner_gave() {
    if !root("podman") {
        return;
    }
    let podman = Podman { folder: Folder::new(), name: "shop-db" };
    let rootfs = filesystem(&podman.folder);
    let storage = format!("storage = [\"{0}/storage\", \"{0}/run\"]", podman.folder.0.display());
    let agent = agent("1s", &storage);
    let id = podman.start(&rootfs, &[]);
    let event = agent.event("the container's event", SOON, |it| it["container_id"] == id.as_str());
    assert_named(
        &event,
        &[
            ("container_name", "shop-db"),
            ("container_hostname", "db-1"),
            ("container_runtime", "podman"),
            ("container_type", "container"),
        ],
    );
    assert_eq!(agent.leave(), Some(0));
}

/// The value of a label in a container's metrics.
fn label(agent: &Agent, id: &str, label: &str) -> Option<String> {
    let page = agent.get("/metrics").1;
    let line = page.lines().find(|line| line.contains(&format!("container_id=\"{id}\"")))?;
    Some(line.split_once(&format!(",{label}=\""))?.1.split('"').next()?.to_owned())
}

fn await_name(agent: &Agent, id: &str, name: &str, within: Duration) {
    await_that(name, within, || (label(agent, id, "container")? == name).then_some(()));
}

#[test]
fn a_podman_container_with_rm_is_named_and_renamed() {
    if !root("podman") {
        return;
    }
    let mut podman = Podman { folder: Folder::new(), name: "passing" };
    let rootfs = filesystem(&podman.folder);
    let storage = format!("storage = [\"{0}/storage\", \"{0}/run\"]", podman.folder.0.display());
    let agent = agent("1s", &storage);
    let id = podman.start(&rootfs, &["--rm"]);
    await_name(&agent, &id, "passing", SOON);
    done(podman.command().args(["rename", "passing", "passing-on"]));
    podman.name = "passing-on";
    // It is looked at each minute; who cannot wait asks for it.
    agent.signal(libc::SIGHUP);
    await_name(&agent, &id, "passing-on", SOON);
    assert_eq!(agent.leave(), Some(0));
}

/// A folder of docker's, in which a container has this name.
struct Docker(Folder);

impl Docker {
    fn name(&self, id: &str, name: &str) {
        let folder = self.0.0.join("containers").join(id);
        fs::create_dir_all(&folder).unwrap();
        let config = json!({ "ID": id, "Name": format!("/{name}"), "Config": { "Hostname": "h1" } });
        fs::write(folder.join("new"), config.to_string()).unwrap();
        fs::rename(folder.join("new"), folder.join("config.v2.json")).unwrap();
    }

    fn key(&self) -> String {
        format!("docker = [{:?}]", self.0.0)
    }
}

#[test]
fn a_renamed_container_shows_its_new_name_within_about_a_minute() {
    if !root("a cgroup") {
        return;
    }
    let (docker, cgroup) = (Docker(Folder::new()), Cgroup::new("renamed"));
    docker.name(&cgroup.id, "old-name");
    let agent = agent("1s", &docker.key());
    await_name(&agent, &cgroup.id, "old-name", SOON);
    docker.name(&cgroup.id, "new-name");
    await_name(&agent, &cgroup.id, "new-name", Duration::from_secs(75));
    assert_eq!(agent.leave(), Some(0));
}

/// Folders of cgroups that are taken away when it is dropped, innermost first.
struct Left(Vec<String>);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.iter().for_each(|path| clear(path));
    }
}

impl Left {
    /// The folders above the last part of `path`, without the first `but` of them.
    fn above(path: &str, but: usize) -> Left {
        let ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).skip(but).collect();
        Left(ends.iter().rev().map(|end| path[..*end].to_owned()).collect())
    }
}

#[test]
fn a_users_cgroup_with_a_containers_id_gets_no_name_and_no_samples() {
    if !root("a spinner") {
        return;
    }
    let (docker, folder) = (Docker(Folder::new()), Folder::new());
    let id = format!("{:032x}{:032x}", 0xf0_49ed, std::process::id());
    docker.name(&id, "bank");
    let path = format!("onset-{}.slice/user@1000.service/app.slice/docker-{id}.scope", std::process::id());
    let _left = Left::above(&path, 0);
    let forged = Cgroup::at(&path, &id);
    let agent = agent("2s", &docker.key());
    let mut spin = command(spinner(&folder, "forged_burns"));
    let _attacker = forged.start(&mut spin);
    let row = format!("container_id=\"{id}\"");
    let page = await_that("it to be shown", SOON, || {
        Some(agent.get("/metrics").1).filter(|page| page.contains(&row))
    });
    assert!(!page.contains("bank"), "{page}");
    // The container itself comes late, and is idle.
    let real = Cgroup::at(&format!("docker/{id}"), &id);
    let _innocent = real.start(command("sleep").arg("300"));
    await_name(&agent, &id, "bank", SOON);
    let page = agent.get("/metrics").1;
    let mut series: Vec<_> = page.lines().filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect();
    series.retain(|line| !line.starts_with('#'));
    series.sort_unstable();
    let twice: Vec<_> = series.windows(2).filter(|two| two[0] == two[1]).map(|two| two[0]).collect();
    assert!(twice.is_empty(), "{twice:?}");
    let claims = agent.metric("onset_faults_total{tracer=\"onset\",fault=\"cgroup_claims_id\"}");
    assert!(claims.is_some_and(|claims| claims > 0.0), "{claims:?}");
    let asked = await_that("a capture of it", SOON, || {
        let asked = run(&mut agent.onset(&["trigger", "cpuidle", "--container", &id, "--seconds", "2"]));
        asked.status.success().then(|| String::from_utf8(asked.stdout).unwrap().trim().to_owned())
    });
    let event = agent.event("what was asked for", SOON, |event| event["tracer_id"] == asked.as_str());
    assert_named(&event, &[("container_name", "bank"), ("cgroup_path", &format!("/docker/{id}"))]);
    assert!(!event["tracer_data"].to_string().contains("forged_burns"), "{event:#}");
    assert_eq!(agent.leave(), Some(0));
}

#[test]
fn a_task_in_a_deeply_nested_cgroup_belongs_to_its_container() {
    if !root("a spinner") {
        return;
    }
    let folder = Folder::new();
    let id = format!("{:032x}{:032x}", 0xdee9, std::process::id());
    let path = format!("docker/{id}{}", "/n".repeat(150));
    let container = Cgroup::at(&format!("docker/{id}"), &id);
    container.quota(20);
    let _left = Left::above(&path, 2);
    let deep = Cgroup::at(&path, &id);
    let agent = agent("2s", "");
    let _spinner = deep.start(&mut command(spinner(&folder, "deep_burns")));
    let event = agent.event("the container's event", SOON, |event| event["container_id"] == id.as_str());
    assert_eq!(text(&event, "/cgroup_path"), format!("/docker/{id}"));
    assert!(share(&event, "deep_burns") > 0.5, "{event:#}");
    assert_eq!(agent.leave(), Some(0));
}
