//! The tables of the config file and their keys, but for the tracers', which are in their specs.

use std::time::Duration;

use super::names;
use super::{Knob, Section, Value};

const SECOND: Duration = Duration::from_secs(1);

/// The keys at the top of the file.
pub(super) const TOP: Section = Section {
    name: "",
    about: "",
    knobs: &[
        Knob {
            key: "hostname",
            default: Value::Text(""),
            about: "Name of this host in documents; empty: the kernel's, also when that changes; \"${NODE_NAME}\": that variable of the environment",
        },
        Knob { key: "region", default: Value::Text(""), about: "Region in documents" },
        Knob {
            key: "socket",
            default: Value::Text("/run/onset.sock"),
            about: "For `onset status` and `onset trigger`; root and onset's own user can use it",
        },
        Knob {
            key: "socket_group",
            default: Value::Text(""),
            about: "... and the members of this group, by name or number; empty: nobody else",
        },
    ],
};

/// The tables, in the order in which they are printed.
pub(super) const SECTIONS: [Section; 6] = [
    Section {
        name: "paths",
        about: "Roots of the host's trees, for a container that sees them elsewhere",
        knobs: &[
            Knob { key: "proc", default: Value::Text("/proc"), about: "procfs" },
            Knob { key: "sys", default: Value::Text("/sys"), about: "sysfs" },
            Knob {
                key: "cgroup",
                default: Value::Text("/sys/fs/cgroup"),
                about: "The cgroup hierarchies, v1, v2 or both",
            },
            Knob {
                key: "root",
                default: Value::Text("/"),
                about: "The host's root: the folders of container runtimes are below it",
            },
        ],
    },
    Section {
        name: "log",
        about: "The local log: every event is here before it is anywhere else",
        knobs: &[
            Knob {
                key: "dir",
                default: Value::Text("/var/lib/onset"),
                about: "Its folder; one agent writes to it",
            },
            Knob {
                key: "segment",
                default: Value::Size(16 << 20, 64 << 10, 1 << 30),
                about: "Size of one file of it",
            },
            Knob {
                key: "budget",
                default: Value::Size(256 << 20, 128 << 10, 1 << 40),
                about: "Size of all of it: the oldest files go first",
            },
            Knob {
                key: "document",
                default: Value::Size(1 << 20, 16 << 10, 16 << 20),
                about: "The largest document: what is least in a larger one is left out and counted",
            },
            Knob {
                key: "sync",
                default: Value::Time(SECOND, Duration::ZERO, Duration::from_secs(3600)),
                about: "Written to the disk at most this often; \"0s\": after every event",
            },
        ],
    },
    Section {
        name: "http",
        about: "The endpoint: /metrics, /healthz, /readyz",
        knobs: &[Knob { key: "listen", default: Value::Text("127.0.0.1:9710"), about: "Address and port" }],
    },
    Section {
        name: "elasticsearch",
        about: "Elasticsearch or OpenSearch; off while url is empty",
        knobs: &[
            Knob { key: "url", default: Value::Text(""), about: "http:// or https://" },
            Knob { key: "index", default: Value::Text("onset"), about: "A data stream's or an index's name" },
            Knob {
                key: "username",
                default: Value::Text(""),
                about: "For basic authentication, with password_file",
            },
            Knob { key: "password_file", default: Value::Text(""), about: "A file that holds the password" },
            Knob { key: "api_key_file", default: Value::Text(""), about: "A file that holds an API key" },
            Knob {
                key: "ca_file",
                default: Value::Text(""),
                about: "A CA's certificate in PEM; empty: the system's",
            },
            Knob {
                key: "flush",
                default: Value::Time(SECOND, Duration::from_millis(10), Duration::from_secs(3600)),
                about: "A batch is sent at least this often",
            },
            Knob {
                key: "batch",
                default: Value::Size(1 << 20, 16 << 10, 64 << 20),
                about: "... or at this size",
            },
            Knob {
                key: "timeout",
                default: Value::Time(
                    Duration::from_secs(30),
                    Duration::from_millis(100),
                    Duration::from_secs(600),
                ),
                about: "A server that has not answered by then is asked again",
            },
            Knob {
                key: "retry",
                default: Value::Time(
                    Duration::from_secs(60),
                    Duration::from_millis(500),
                    Duration::from_secs(3600),
                ),
                about: "The longest pause between attempts; pauses double up to it, each with some chance in it",
            },
            Knob {
                key: "catch_up",
                default: Value::Size(1 << 20, 0, 1 << 40),
                about: "Bytes per second at most, so that a fleet does not flood a server that comes back; \"0B\": no cap",
            },
            Knob {
                key: "compress",
                default: Value::Flag(true),
                about: "Requests of more than a packet are gzipped",
            },
        ],
    },
    names::SECTION,
    Section {
        name: "capture",
        about: "Limits of what is expensive",
        knobs: &[Knob {
            key: "budget_percent",
            default: Value::Number(10.0),
            about: "Share of wall time, over 10 min, that captures may run",
        }],
    },
];
