//! Against real processes: small C programs that are compiled, looked at, killed and deleted.
//! An `asm` label gives a C function whatever name a Rust or C++ compiler would have.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::modules::Module;
use super::*;

mod files;
mod memory;

/// No naming here takes longer.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// Says where its function is, then runs in it.
const SPIN: &str = r#"
    #include <stdio.h>
    int spin(volatile int *n) asm(NAME);
    __attribute__((noinline)) int spin(volatile int *n) { for (;;) ++*n; }
    int main(void) { volatile int n = 0; printf("%lx\n", (unsigned long)spin); fflush(stdout); return spin(&n); }
"#;

/// A directory that goes away with the test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("onset-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    /// Compiles `SPIN` with its function under that name.
    fn compile(&self, function: &str, flags: &[&str]) -> PathBuf {
        let binary = self.0.join("spinner");
        fs::write(self.0.join("spin.c"), SPIN).unwrap();
        let mut cc = Command::new("cc");
        cc.args(["-O1", "-fno-omit-frame-pointer", &format!("-DNAME=\"{function}\"")]);
        cc.args(flags).arg("-o").arg(&binary).arg(self.0.join("spin.c"));
        assert!(cc.status().unwrap().success());
        binary
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running spinner.
#[derive(Debug)]
struct Spinner {
    child: Child,
    /// An address within its function.
    address: u64,
}

impl Spinner {
    fn start(command: &mut Command) -> Spinner {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Spinner { child, address: u64::from_str_radix(line.trim(), 16).unwrap() + 4 }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The frame as the kernel gives it for a file with a build id; the id as readelf(1) reads it.
    fn file_frame(&self, binary: &Path) -> UserFrame {
        let notes = Command::new("readelf").arg("-n").arg(binary).output().unwrap().stdout;
        let notes = String::from_utf8(notes).unwrap();
        let digits = notes.split("Build ID: ").nth(1).unwrap().trim().as_bytes()[..40].to_vec();
        let mut id = BuildId([0; 20]);
        for (byte, pair) in id.0.iter_mut().zip(digits.chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        }
        UserFrame::File { id, offset: self.mapping(|range| range.contains(&self.address)) }
    }

    /// The file offset of `self.address`, out of the mapping that `wanted` picks.
    fn mapping(&self, wanted: impl Fn(std::ops::Range<u64>) -> bool) -> u64 {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.pid())).unwrap();
        let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
        let fields = |line: &str| line.split_whitespace().map(String::from).collect::<Vec<_>>();
        let found = maps.lines().map(fields).find_map(|line| {
            let (start, end) = line[0].split_once('-').unwrap();
            wanted(number(start)..number(end)).then(|| number(&line[2]) + self.address - number(start))
        });
        found.unwrap()
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Shows a stack of what a process runs now.
fn observe(symbolizer: &mut Symbolizer, pid: u32, user: &[UserFrame]) {
    let layout = Layout::now(Path::new("/proc"), pid).unwrap_or_default();
    symbolizer.observe(Image { pid, id: 1 }, layout, user, Instant::now());
}

fn names(symbolizer: Symbolizer, pid: u32, user: Vec<UserFrame>) -> Vec<String> {
    names_of(symbolizer, Image { pid, id: 1 }, user)
}

fn names_of(symbolizer: Symbolizer, image: Image, user: Vec<UserFrame>) -> Vec<String> {
    let stack = Stack { image, weight: 1, user: &user, kernel: &[] };
    let names = symbolizer.resolve(&[stack], Instant::now() + PATIENCE);
    names.row(stack, "it").user.iter().map(ToString::to_string).collect()
}

fn name_of(binary: &Path, frame: impl Fn(&Spinner) -> UserFrame) -> String {
    let spinner = Spinner::start(&mut Command::new(binary));
    let frame = frame(&spinner);
    let mut symbolizer = Symbolizer::new(Path::new("/proc"));
    observe(&mut symbolizer, spinner.pid(), &[frame]);
    fs::remove_file(binary).unwrap();
    let pid = spinner.pid();
    drop(spinner);
    names(symbolizer, pid, vec![frame]).pop().unwrap()
}

#[test]
fn a_deleted_binary_of_a_dead_process_is_named_by_its_build_id() {
    let dir = Dir::new("build-id");
    let binary = dir.compile("spin_here", &["-Wl,--build-id"]);
    assert_eq!(name_of(&binary.clone(), |spinner| spinner.file_frame(&binary)), "spin_here");
}

#[test]
fn a_binary_without_build_id_is_found_by_its_mapping() {
    let dir = Dir::new("no-build-id");
    for flags in [&["-Wl,--build-id=none"][..], &["-Wl,--build-id=none", "-static"], &["-no-pie"]] {
        let binary = dir.compile("spin_here", flags);
        assert_eq!(name_of(&binary, |spinner| UserFrame::Address(spinner.address)), "spin_here", "{flags:?}");
    }
}

#[test]
fn mangled_names_are_demangled() {
    let dir = Dir::new("mangled");
    for (mangled, name) in [
        ("_ZN3app4Spin4loopERVi", "app::Spin::loop"),
        ("_ZN3app4spin17h0123456789abcdefE", "app::spin"),
        ("_RNvCs1234_3app4spin", "app::spin"),
    ] {
        let binary = dir.compile(mangled, &[]);
        assert_eq!(name_of(&binary, |spinner| UserFrame::Address(spinner.address)), name);
    }
}

#[test]
fn a_stripped_binary_is_labelled_by_file_name_and_address() {
    let dir = Dir::new("stripped");
    let binary = dir.compile("spin_here", &[]);
    let symbols = Command::new("nm").arg(&binary).output().unwrap().stdout;
    let symbols = String::from_utf8(symbols).unwrap();
    let line = symbols.lines().find(|line| line.ends_with(" spin_here")).unwrap();
    let address = u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap() + 4;
    assert!(Command::new("strip").arg(&binary).status().unwrap().success());
    let name = name_of(&binary, |spinner| UserFrame::Address(spinner.address));
    assert_eq!(name, format!("spinner+{address:#x}"));
}

#[test]
fn a_binary_truncated_during_symbolization_is_harmless() {
    let dir = Dir::new("truncated");
    let binary = dir.compile("spin_here", &[]);
    let spinner = Spinner::start(&mut Command::new(&binary));
    let frame = UserFrame::Address(spinner.address);
    let mut symbolizer = Symbolizer::new(Path::new("/proc"));
    observe(&mut symbolizer, spinner.pid(), &[frame]);
    let pid = spinner.pid();
    drop(spinner);
    fs::File::options().write(true).open(&binary).unwrap().set_len(100).unwrap();
    assert_eq!(names(symbolizer, pid, vec![frame]), ["spinner"]);
}

#[test]
fn hostile_elf_files_give_no_wrong_name() {
    let dir = Dir::new("hostile");
    let binary = dir.compile("spin_here", &[]);
    let sound = fs::read(&binary).unwrap();
    let mut dice: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut roll = |sides: usize| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        dice as usize % sides
    };
    let tables = sound.len() - 2000; // section headers stand last
    for _ in 0..500 {
        let mut broken = sound.clone();
        for _ in 0..4 {
            let at = if roll(2) == 0 { roll(800) } else { tables + roll(2000) };
            broken[at] = [0, 1, 0x7f, 0xff][roll(4)];
        }
        broken.truncate(if roll(4) == 0 { roll(sound.len()) } else { sound.len() });
        fs::write(&binary, &broken).unwrap();
        let line = maps::Mapping::parse(b"1000-2000 r-xp 00000000 fe:00 1 /x").unwrap();
        let Some(module) = Module::open(File::open(&binary).unwrap(), &line) else { continue };
        let offsets = [0, 0x1000, 0x1139, u64::MAX];
        assert_eq!(module.names(&offsets).len(), offsets.len());
    }
}

#[test]
fn the_vdso_and_unmapped_addresses_have_their_own_labels() {
    let dir = Dir::new("vdso");
    let binary = dir.compile("spin_here", &[]);
    let spinner = Spinner::start(&mut Command::new(&binary));
    let maps = fs::read_to_string(format!("/proc/{}/maps", spinner.pid())).unwrap();
    let vdso = maps.lines().find(|line| line.ends_with("[vdso]")).unwrap();
    let vdso = u64::from_str_radix(vdso.split('-').next().unwrap(), 16).unwrap();
    let gone = UserFrame::File { id: BuildId([9; 20]), offset: 0x1000 };
    let frames = vec![UserFrame::Address(vdso + 8), UserFrame::Address(8), gone];
    let mut symbolizer = Symbolizer::new(Path::new("/proc"));
    observe(&mut symbolizer, spinner.pid(), &frames);
    assert_eq!(names(symbolizer, spinner.pid(), frames), ["[vdso]", UNKNOWN, UNKNOWN]);
}

#[test]
fn a_return_address_is_symbolized_as_its_call() {
    let dir = Dir::new("return");
    let binary = dir.compile("spin_here", &[]);
    let spinner = Spinner::start(&mut Command::new(&binary));
    let start = spinner.address - 4;
    let frames = vec![UserFrame::Address(start), UserFrame::Address(start + 1), UserFrame::Address(start)];
    let mut symbolizer = Symbolizer::new(Path::new("/proc"));
    observe(&mut symbolizer, spinner.pid(), &frames);
    let names = names(symbolizer, spinner.pid(), frames);
    assert_eq!(names[..2], ["spin_here", "spin_here"]);
    assert_ne!(names[2], "spin_here", "the call before its first byte is another's");
}

#[test]
fn addresses_of_an_unknown_process_are_unknown() {
    let frames = vec![UserFrame::Address(0x1000)];
    let mut symbolizer = Symbolizer::new(Path::new("/proc"));
    observe(&mut symbolizer, u32::MAX, &frames);
    assert_eq!(names(symbolizer, u32::MAX, frames), [UNKNOWN]);
}

/// A pid namespace and a root of its own, as a container has.
#[test]
fn a_containers_perf_map_is_found_by_the_pid_in_its_namespace() {
    let dir = Dir::new("perf-map");
    dir.compile("spin_here", &["-static"]);
    fs::create_dir(dir.0.join("tmp")).unwrap();
    fs::write(dir.0.join("tmp/perf-1.map"), "5000 100 LazyCompile:*fib main.js:1\n").unwrap();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "chroot"]).arg(&dir.0).arg("/spinner");
    let spinner = Spinner::start(&mut command);
    let outer = spinner.pid();
    let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).unwrap();
    let pid: u32 = children.trim().parse().unwrap();
    let frames =
        vec![UserFrame::Address(0x5010), UserFrame::Address(spinner.address + 1), UserFrame::Address(0x9000)];
    let mut symbolizer = Symbolizer::new(Path::new("/proc"));
    observe(&mut symbolizer, pid, &frames);
    fs::remove_file(dir.0.join("tmp/perf-1.map")).unwrap();
    drop(spinner);
    let want = ["LazyCompile:*fib main.js:1", "spin_here", UNKNOWN].map(String::from);
    assert_eq!(names(symbolizer, pid, frames), want);
}

#[test]
fn kernel_frames_are_named_with_their_call_sites() {
    let stack = Stack { image: Image::default(), weight: 1, user: &[], kernel: &[1, 2] };
    let symbolizer = Symbolizer::new(Path::new("/proc"));
    let names = symbolizer.resolve(&[stack], Instant::now());
    assert!(names.kernel(stack).eq([UNKNOWN, UNKNOWN]));
}

#[test]
fn a_user_frame_is_parsed_as_the_kernel_lays_it_out() {
    let mut raw = [0; UserFrame::SIZE];
    assert_eq!(UserFrame::parse(&raw), None);
    raw[24..].copy_from_slice(&0x1234_u64.to_ne_bytes());
    raw[4..24].fill(7);
    raw[..4].copy_from_slice(&1_u32.to_ne_bytes());
    assert_eq!(UserFrame::parse(&raw), Some(UserFrame::File { id: BuildId([7; 20]), offset: 0x1234 }));
    raw[..4].copy_from_slice(&2_u32.to_ne_bytes());
    assert_eq!(UserFrame::parse(&raw), Some(UserFrame::Address(0x1234)));
}
