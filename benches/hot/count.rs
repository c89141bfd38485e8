//! Instructions of the paths that must be comparable between machines, as valgrind counts them: a path
//! run many times, less the same run fewer times. The kernel's own are not among them.

use std::process::{Command, Stdio};

use onset::clock::Wall;
use onset::ship::bench::bulk;

use crate::Scratch;
use crate::documents::{append, document, documents, writer};
use crate::parsers::target;
use crate::scrape::WarmTracers;
use crate::tree::{OF_CONTAINERS, Tree, corpus};

/// A path's name, what one run of it is divided by, and what is left then.
const PATHS: [(&str, u64, &str); 8] = [
    ("tick", 100, "one sampling of one container"),
    ("scrape", 1, "a scrape of 100 containers"),
    ("document", 1, "4 KiB into the log"),
    ("bulk", 250, "4 KiB into a bulk request"),
    ("proc_stat", 1, "/proc/stat parsed"),
    ("meminfo", 1, "/proc/meminfo parsed"),
    ("diskstats", 1, "/proc/diskstats parsed"),
    ("memory_stat", 1, "memory.stat of v2 parsed"),
];

const FEW: u64 = 5;
const MANY: u64 = 25;

/// Runs one path so often.
pub fn run(path: &str, times: u64, scratch: &Scratch) {
    let again = |mut call: Box<dyn FnMut()>| (0..times).for_each(|_| call());
    match path {
        "tick" => {
            let mut tree = Tree::new(&scratch.0, 100);
            again(Box::new(move || _ = tree.read(OF_CONTAINERS)));
        }
        "scrape" => {
            let mut fed = WarmTracers::new(scratch);
            again(Box::new(move || _ = fed.scrape()));
        }
        "document" => {
            let (mut writer, document) = (writer(&scratch.0.join("log"), "4MiB"), document(1));
            again(Box::new(move || append(&mut writer, &document)));
        }
        "bulk" => {
            let documents = documents();
            again(Box::new(move || _ = bulk(1 << 20, &documents, Wall(1_795_452_413_007))));
        }
        name => {
            let file = if name == "memory_stat" { "v2-6.1" } else { "6.18" };
            let (text, parse) = (corpus(&format!("{name}/{file}")), target(name).expect("a path"));
            again(Box::new(move || parse(&text)));
        }
    }
}

pub fn lines() {
    println!("\n{:<50} {:>13}", "instructions, as valgrind counts them", "onset");
    for (path, divided, what) in PATHS {
        match counted(path, FEW).zip(counted(path, MANY)) {
            Some((few, many)) => {
                let each = many.saturating_sub(few) / (MANY - FEW) / divided;
                println!("{what:<50} {each:>13}");
            }
            None => println!("{what}: not counted: valgrind is not here, or it failed"),
        }
    }
}

/// What valgrind says of so many runs.
fn counted(path: &str, times: u64) -> Option<u64> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    valgrind.arg(std::env::current_exe().ok()?).args(["--count", path, &times.to_string()]);
    let output = valgrind.stdin(Stdio::null()).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok())
}
