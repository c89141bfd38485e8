//! How the release is linked: without the tables that unwinding takes, and as a binary that can lie anywhere.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use crate::rig::{Folder, command, done, run};
use crate::{file, read};

/// It shows where its code lies, and a thread of it breaks.
const BREAKS: &str = r#"
static TABLE: [fn(); 2] = [main, breaks];
fn breaks() {
    let none: Vec<u8> = std::env::args().map(|_| 0).collect();
    println!("{}", none[9]);
}
fn main() {
    println!("{:p}", TABLE[1] as *const ());
    let _ = std::thread::Builder::new().name("worker".into()).spawn(TABLE[1]).unwrap().join();
    println!("it went on");
}
"#;

/// What deploy/static/build hands to the linker.
fn link_argument() -> String {
    let script = read("deploy/static/build");
    let (_, rest) = script.split_once("-Clink-arg=\"").expect("it has one");
    let (argument, _) = rest.split_once('"').expect("it ends");
    argument.replace("$here", file("deploy/static").to_str().unwrap())
}

#[test]
fn a_panic_in_a_thread_of_a_static_binary_says_where_and_aborts() {
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let sysroot = done(command("rustc").args(["--print", "sysroot"]));
    if !Path::new(sysroot.trim()).join("lib/rustlib").join(&target).exists() {
        eprintln!("SKIPPED: there is no standard library for {target}");
        return;
    }
    let folder = Folder::new();
    let (source, program) = (folder.0.join("breaks.rs"), folder.0.join("breaks"));
    fs::write(&source, BREAKS).unwrap();
    let mut rustc = command("rustc");
    rustc.args(["--edition=2024", "-Copt-level=z", "-Cpanic=abort", "-Cstrip=symbols", "--target", &target]);
    done(rustc.arg(format!("-Clink-arg={}", link_argument())).arg("-o").arg(&program).arg(&source));
    let places: Vec<String> = (0..4)
        .map(|_| {
            let output = run(command(&program).env("RUST_BACKTRACE", "1"));
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{said}");
            assert!(said.contains("'worker'") && said.contains("breaks.rs:5:"), "{said}");
            assert!(said.contains("the len is 1 but the index is 9"), "{said}");
            String::from_utf8(output.stdout).unwrap()
        })
        .collect();
    assert!(places.iter().all(|place| place.starts_with("0x") && place.lines().count() == 1), "{places:?}");
    // setarch -R and a sysctl can hold it in its place; then all are the same.
    let randomized = fs::read_to_string("/proc/sys/kernel/randomize_va_space").unwrap();
    if randomized.trim() != "0" {
        assert!(
            places.iter().any(|place| *place != places[0]),
            "its code lies where the kernel likes: {places:?}"
        );
    }
}
