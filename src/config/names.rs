//! `[containers]`: where names come from. The host's folders are below `[paths] root`; the files for
//! the kubelet are the agent's own.

use std::path::{Path, PathBuf};

use crate::knob::{Check, Knob, Section, Value, Values};

/// Where names of containers come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The kubelet, where one is asked.
    pub kubelet: Option<Kubelet>,
    /// Docker's folders.
    pub docker: Vec<PathBuf>,
    /// Containerd's state folders.
    pub containerd: Vec<PathBuf>,
    /// Folders of podman and CRI-O: of what is stored, and of what runs.
    pub storage: Vec<PathBuf>,
    /// Runc's state folders.
    pub runc: Vec<PathBuf>,
}

/// How the kubelet is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubelet {
    /// Of its list of pods.
    pub url: String,
    /// Its CA; `None`: the system's.
    pub ca_file: Option<PathBuf>,
    /// Our token.
    pub token_file: Option<PathBuf>,
    /// Our certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

pub(super) const SECTION: Section = Section {
    name: "containers",
    about: "Containers are found by their cgroup paths; their names come from here",
    knobs: &[
        Knob {
            key: "kubelet",
            default: Value::Text(""),
            about: "The kubelet to ask for pods, by the name in its certificate, e.g. \"https://node-1:10250\" or \"https://${NODE_NAME}:10250\"; empty: none",
        },
        Knob {
            key: "kubelet_ca_file",
            default: Value::Text(""),
            about: "The CA of the kubelet's certificate in PEM; empty: the system's. It is always verified",
        },
        Knob {
            key: "kubelet_token_file",
            default: Value::Text(""),
            about: "A file that holds a token that may get nodes/proxy; read anew each time",
        },
        Knob {
            key: "kubelet_cert_file",
            default: Value::Text(""),
            about: "Or a client's certificate in PEM ...",
        },
        Knob { key: "kubelet_key_file", default: Value::Text(""), about: "... and its key" },
        Knob {
            key: "docker",
            default: Value::Texts(
                &["/var/lib/docker", "/var/snap/docker/common/var-lib-docker"],
                Check::Folder,
            ),
            about: "Docker's folders, with those of user namespaces in them; these four are below [paths] root",
        },
        Knob {
            key: "containerd",
            default: Value::Texts(
                &[
                    "/run/containerd",
                    "/run/k3s/containerd",
                    "/var/lib/rancher/k3s/agent/containerd",
                    "/var/lib/rancher/rke2/agent/containerd",
                    "/run/k0s/containerd",
                    "/var/snap/microk8s/common/run/containerd",
                    "/var/snap/microk8s/common/var/lib/containerd",
                ],
                Check::Folder,
            ),
            about: "Containerd's state folders: its own, and those of k3s, rke2, k0s and microk8s",
        },
        Knob {
            key: "storage",
            default: Value::Texts(&["/var/lib/containers/storage", "/run/containers/storage"], Check::Folder),
            about: "Folders of podman and CRI-O",
        },
        Knob {
            key: "runc",
            default: Value::Texts(
                &["/run/runc", "/run/containerd/runc/*", "/run/docker/runtime-runc/*", "/run/crun"],
                Check::Folder,
            ),
            about: "State folders of runc and crun; a last part of * is each folder there",
        },
        Knob {
            key: "capacity",
            default: Value::Count(1024, 16, 16_384),
            about: "How many are followed at once; memory for them is set aside at start",
        },
    ],
};

pub(super) fn read(values: &Values, root: &Path, errors: &mut Vec<String>) -> Names {
    let below =
        |key: &str| values.texts(key).iter().map(|path| root.join(path.trim_start_matches('/'))).collect();
    Names {
        kubelet: kubelet(values, errors),
        docker: below("docker"),
        containerd: below("containerd"),
        storage: below("storage"),
        runc: below("runc"),
    }
}

fn kubelet(values: &Values, errors: &mut Vec<String>) -> Option<Kubelet> {
    let file = |key: &str| Some(values.text(key)).filter(|path| !path.is_empty()).map(PathBuf::from);
    let (cert, key) = (file("kubelet_cert_file"), file("kubelet_key_file"));
    if cert.is_some() != key.is_some() {
        let missing = if key.is_none() { "kubelet_key_file" } else { "kubelet_cert_file" };
        errors.push(format!("containers.{missing}: a certificate and its key are set together"));
    }
    let given = super::variables(values, "containers.", "kubelet", errors);
    let given = given.trim_end_matches('/');
    if given.is_empty() {
        return None;
    }
    let after = ["https://", "http://"].iter().find_map(|scheme| given.strip_prefix(scheme));
    let Some(after) = after.filter(|after| !after.is_empty()) else {
        errors.push(format!(
            "containers.kubelet: must begin with https:// (or http:// for the read-only port), not \"{given}\""
        ));
        return None;
    };
    let token_file = file("kubelet_token_file");
    if given.starts_with("http://") && (token_file.is_some() || cert.is_some()) {
        errors.push("containers.kubelet: a token or a certificate is given only to https://".to_owned());
    }
    let url = if after.contains('/') { given.to_owned() } else { format!("{given}/pods") };
    Some(Kubelet { url, ca_file: file("kubelet_ca_file"), token_file, identity: cert.zip(key) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn names(text: &str) -> Names {
        Config::parse(text, &[]).expect("valid").names
    }

    #[test]
    fn runtime_directories_are_below_the_hosts_root_and_kubelet_files_are_not() {
        let names = names(
            "[paths]\nroot = \"/host\"\n[containers]\nrunc = [\"/run/x\"]\nkubelet = \"https://node-1:10250/\"\nkubelet_ca_file = \"/etc/ca\"",
        );
        assert_eq!(names.docker.first().map(PathBuf::as_path), Some(Path::new("/host/var/lib/docker")));
        assert_eq!(names.runc, [Path::new("/host/run/x")]);
        let kubelet = names.kubelet.expect("one is named");
        assert_eq!(kubelet.url, "https://node-1:10250/pods");
        assert_eq!(kubelet.ca_file.as_deref(), Some(Path::new("/etc/ca")));
        assert_eq!((kubelet.token_file, kubelet.identity), (None, None));
    }

    #[test]
    fn a_url_with_a_path_stays_as_it_is() {
        let names = names("[containers]\nkubelet = \"http://127.0.0.1:10255/runningpods/\"");
        assert_eq!(names.kubelet.expect("one is named").url, "http://127.0.0.1:10255/runningpods");
    }
}
