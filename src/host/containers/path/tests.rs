//! Paths as runtimes and drivers make them.

use super::*;

const ID: &str = "4b1f0c1a2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f5061728394a5b6c7d8";
const UID: &str = "9f1f8a52-8e51-4f0a-9c1f-0d6f5f1d2a3b";

/// Runtime, QoS class and pod of a path, in which ID and UID stand for those above.
fn seen(path: &str) -> Option<(Option<&'static str>, Option<&'static str>, String)> {
    let path = path.replace("ID", ID).replace("PUU", &UID.replace('-', "_")).replace("PU", UID);
    recognise(&path).map(|found| {
        assert_eq!(found.id, ID, "{path}");
        (found.runtime, found.qos, found.pod.to_string())
    })
}

#[test]
fn cgroupfs_driver_paths_give_qos_class_and_pod() {
    for (path, runtime, qos) in [
        ("/kubepods/burstable/podPU/ID", None, "burstable"),
        ("/kubepods/besteffort/podPU/ID", None, "besteffort"),
        ("/kubepods/podPU/ID", None, "guaranteed"),
        ("/kubepods/podPU/crio-ID", Some("crio"), "guaranteed"),
        ("/docker/ID/kubelet/kubepods/burstable/podPU/ID", None, "burstable"),
    ] {
        assert_eq!(seen(path), Some((runtime, Some(qos), UID.to_owned())), "{path}");
    }
}

#[test]
fn systemd_driver_paths_give_runtime_qos_class_and_pod() {
    for (path, runtime, qos) in [
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podPUU.slice/cri-containerd-ID.scope",
            "containerd",
            "burstable",
        ),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podPUU.slice/crio-ID.scope",
            "crio",
            "besteffort",
        ),
        ("/kubepods.slice/kubepods-podPUU.slice/docker-ID.scope", "docker", "guaranteed"),
        (
            "/docker/ID/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podPUU.slice/cri-containerd-ID.scope",
            "containerd",
            "guaranteed",
        ),
        (
            "/system.slice/containerd.service/kubepods-burstable-podPUU.slice:cri-containerd:ID",
            "containerd",
            "burstable",
        ),
    ] {
        assert_eq!(seen(path), Some((Some(runtime), Some(qos), UID.to_owned())), "{path}");
    }
}

#[test]
fn paths_of_runtimes_without_pods_are_recognised() {
    for (path, runtime) in [
        ("/docker/ID", Some("docker")),
        ("/system.slice/docker-ID.scope", Some("docker")),
        ("/default/ID", Some("containerd")),
        ("/k8s.io/ID", Some("containerd")),
        ("/system.slice/nerdctl-ID.scope", Some("containerd")),
        ("/machine.slice/libpod-ID.scope", Some("podman")),
        ("/machine.slice/machine-libpod_pod_0.slice/libpod-ID.scope", Some("podman")),
        ("/libpod_parent/libpod-ID", Some("podman")),
        ("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope", Some("podman")),
        ("/my-parent/ID", None),
        ("/ID", None),
    ] {
        assert_eq!(seen(path), Some((runtime, None, String::new())), "{path}");
    }
    let redis = recognise("/default/redis").expect("any name will do there");
    assert_eq!((redis.id, redis.runtime), ("redis", Some("containerd")));
}

#[test]
fn cgroups_that_are_no_container_are_not_recognised() {
    for path in [
        "",
        "/",
        "ID",
        "/kubepods/burstable/podPU",
        "/kubepods.slice/kubepods-podPUU.slice",
        "/kubepods.slice/kubepods-podPUU.slice/crio-conmon-ID.scope",
        "/libpod_parent/libpod-conmon-ID",
        "/docker/ID/init.scope",
        "/docker/ID/docker",
        "/system.slice/docker.service",
        "/system.slice/ssh.service",
        "/process_api/8751e16cb310d735f8d8aee808833b1f",
        "/default/user.slice",
        "/other/default/redis",
        "/default/\u{e9}",
    ] {
        assert_eq!(seen(path), None, "{path}");
    }
    assert_eq!(recognise(&format!("/docker/{}", ID.to_uppercase())), None);
}

#[test]
fn a_pod_needs_kubepods_above_it() {
    assert_eq!(seen("/burstable/podPU/ID"), Some((None, None, String::new())));
    assert_eq!(seen("/x/notkubepods-podPUU.slice/ID"), Some((None, None, String::new())));
    assert_eq!(seen("/kubepods/pod../ID"), Some((None, None, String::new())));
}

/// Id, runtime and name.
fn kind(path: &str) -> Option<(String, Option<&'static str>, String)> {
    let path = path.replace("GUID", "6f1a9b2c-3f6d-4a0c-5d1b-9e6c").replace("UUID", UID).replace("ID", ID);
    recognise(&path).map(|found| (found.id.to_owned(), found.runtime, found.name.to_string()))
}

#[test]
fn runtimes_with_other_ids_are_recognised_by_their_paths() {
    let task = "7f2d0a4be7c14d0f9a4f0c5b6a7d8e9f";
    for (path, id, runtime, name) in [
        ("/lxc/web-1", "web-1", "lxc", "web-1"),
        ("/lxc.payload.web-1", "web-1", "lxc", "web-1"),
        ("/user.slice/user-7.slice/session-1.scope/lxc.payload.db", "db", "lxc", "db"),
        ("/machine.slice/machine-web.scope", "web", "nspawn", "web"),
        (r"/machine.slice/machine-web\x2d1.scope", r"web\x2d1", "nspawn", "web-1"),
        ("/machine.slice/systemd-nspawn@web.service", "web", "nspawn", "web"),
        ("/nomad.slice/UUID.web.scope", &format!("{UID}.web"), "nomad", "web"),
        ("/nomad.slice/share.slice/UUID.web.scope", &format!("{UID}.web"), "nomad", "web"),
        ("/nomad/UUID.web", &format!("{UID}.web"), "nomad", "web"),
        ("/nomad.slice/docker-ID.scope", ID, "docker", ""),
        ("/garden/UUID", UID, "garden", ""),
        ("/garden-x/good/GUID", "6f1a9b2c-3f6d-4a0c-5d1b-9e6c", "garden", ""),
        ("/buildkit/x7qz0p8k2m5n4b6v1c3l9s0dq", "x7qz0p8k2m5n4b6v1c3l9s0dq", "buildkit", ""),
        ("/docker/buildkit/x7qz0p8k2m5n4b6v1c3l9s0dq", "x7qz0p8k2m5n4b6v1c3l9s0dq", "buildkit", ""),
        (&format!("/ecs/{task}/{task}-2531612879"), &format!("{task}-2531612879"), "ecs", ""),
        (&format!("/ecs/cluster/{task}/ID"), ID, "ecs", ""),
        (&format!("/ecs/{task}/ID"), ID, "ecs", ""),
        ("/kubepods/burstable/podUUID/kata_ID", ID, "kata", ""),
    ] {
        assert_eq!(kind(path), Some((id.to_owned(), Some(runtime), name.to_owned())), "{path}");
    }
}

#[test]
fn paths_that_resemble_those_runtimes_are_not_recognised() {
    let long = format!("/lxc/{}", "x".repeat(ID_MAX + 1));
    for path in [
        "/kata_overhead/ID",
        "/lxc.monitor.web",
        "/lxc",
        "/app/lxc/web",
        "/lxc/system.slice",
        "/lxc/a b",
        &long,
        r"/machine.slice/machine-qemu\x2d1\x2dvm.scope",
        r"/machine.slice/machine-lxc\x2d77\x2dweb.scope",
        "/machine.slice/machine-.scope",
        "/machine.slice/machine-...scope",
        "/system.slice/machine-web.scope",
        "/nomad.slice/share.slice",
        "/nomad.slice/UUID.scope",
        "/nomad.slice/web.scope",
        "/other/UUID.web.scope",
        "/garden/web",
        "/gardens/UUID",
        "/garden/good",
        "/buildkit/x7qz0p8k2m5n4b6v1c3l9s0d",
        "/ecs/abc/abc-12",
        "/slurm/uid_1000/job_7/step_0",
        "/system.slice/slurmstepd.scope/job_7",
    ] {
        assert_eq!(kind(path), None, "{path}");
    }
}

#[test]
fn a_name_of_144_bytes_keeps_its_id() {
    let name = format!("kubepods-burstable-pod{}.slice:cri-containerd:{ID}", UID.replace('-', "_"));
    assert_eq!(name.len(), 144);
    assert_eq!(kind(&format!("/system.slice/containerd.service/{name}")).map(|it| it.0).as_deref(), Some(ID));
}
