//! Code that a compiler wrote into memory of its own, with a perf map: memory of all kinds, whatever the
//! kernel calls it in /proc/PID/maps.

use super::*;

/// Writes a perf map that names a place in memory of a kind, which may be executed. Says where.
const COMPILER: &str = r#"
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/shm.h>
enum { LEN = 1 << 20, ALL = PROT_READ | PROT_WRITE | PROT_EXEC };
static void *memory(const char *kind, char **first)
{
	int fd = -1;
	if (!strcmp(kind, "heap")) {
		char *at = (char *)(((long)sbrk(2 * LEN) + 4095) & ~4095L);
		return mprotect(at, LEN, ALL) ? MAP_FAILED : at;
	}
	if (!strcmp(kind, "stack")) {
		char *at = (char *)((long)first & ~4095L);
		return mprotect(at, 4096, ALL) ? MAP_FAILED : at;
	}
	if (!strcmp(kind, "sysv"))
		return shmat(shmget(IPC_PRIVATE, LEN, 0600), 0, SHM_EXEC);
	if (!strcmp(kind, "memfd"))
		fd = memfd_create("jit", 0);
	if (!strcmp(kind, "file"))
		fd = open(".", O_TMPFILE | O_RDWR, 0600);
	if (!strcmp(kind, "huge"))
		return mmap(0, 2 << 20, ALL, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (fd >= 0)
		return ftruncate(fd, LEN) ? MAP_FAILED : mmap(0, LEN, ALL, MAP_SHARED, fd, 0);
	return mmap(0, LEN, ALL, (strcmp(kind, "shared") ? MAP_PRIVATE : MAP_SHARED) | MAP_ANONYMOUS, -1, 0);
}
int main(int argc, char **argv)
{
	char *at = memory(argv[1], argv), name[64];
	FILE *map;
	sprintf(name, "/tmp/perf-%d.map", getpid());
	map = fopen(name, "w");
	fprintf(map, "%lx 100 compiled\n", (long)at);
	fclose(map);
	printf("%lx\n", at == MAP_FAILED ? 0 : (long)at);
	fflush(stdout);
	for (;;)
		pause();
}
"#;

fn compiler(dir: &Dir) -> PathBuf {
    let (source, binary) = (dir.0.join("compiler.c"), dir.0.join("compiler"));
    fs::write(&source, COMPILER).unwrap();
    assert!(Command::new("cc").arg("-O1").arg("-o").arg(&binary).arg(&source).status().unwrap().success());
    binary
}

/// Memory of a kind in a running process, with its perf map.
struct Compiled(Spinner);

impl Compiled {
    fn new(dir: &Dir, kind: &str) -> Compiled {
        Compiled(Spinner::start(Command::new(compiler(dir)).arg(kind).current_dir(&dir.0)))
    }

    /// Its line in /proc/PID/maps.
    fn line(&self) -> String {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.0.pid())).unwrap();
        let holds = |line: &&str| {
            maps::Mapping::parse(line.as_bytes()).is_some_and(|line| line.range.contains(&self.0.address))
        };
        maps.lines().find(holds).unwrap().to_owned()
    }
}

impl Drop for Compiled {
    fn drop(&mut self) {
        let _ = fs::remove_file(format!("/tmp/perf-{}.map", self.0.pid()));
    }
}

#[test]
fn jit_code_is_named_by_its_perf_map_in_every_kind_of_memory() {
    let dir = Dir::new("kinds");
    for (kind, called) in [
        ("anonymous", ""),
        ("heap", "[heap]"),
        ("stack", "[stack]"),
        ("memfd", "/memfd:jit (deleted)"),
        ("shared", "/dev/zero (deleted)"),
        ("sysv", "/SYSV00000000"),
        ("file", " (deleted)"),
        ("huge", "/anon_hugepage (deleted)"),
    ] {
        let compiled = Compiled::new(&dir, kind);
        if compiled.0.address < 4096 {
            assert_eq!(kind, "huge", "every kernel has the others");
            continue;
        }
        let line = compiled.line();
        assert!(line.contains(called), "{kind}: {line}");
        let frames =
            vec![UserFrame::Address(compiled.0.address), UserFrame::Address(compiled.0.address + 0x200)];
        let mut symbolizer = Symbolizer::new(Path::new("/proc"));
        observe(&mut symbolizer, compiled.0.pid(), &frames);
        assert_eq!(names(symbolizer, compiled.0.pid(), frames), ["compiled", UNKNOWN], "{line}");
    }
}

/// A process in a /proc of our own, whose maps are what `edit` makes of the real ones.
fn edited(dir: &Dir, pid: u32, edit: impl Fn(&str) -> String) -> PathBuf {
    let (proc, real) = (dir.0.join("proc"), PathBuf::from(format!("/proc/{pid}")));
    let own = proc.join(pid.to_string());
    fs::create_dir_all(&own).unwrap();
    for name in ["stat", "status", "root", "exe", "map_files"] {
        std::os::unix::fs::symlink(real.join(name), own.join(name)).unwrap();
    }
    let maps: Vec<String> =
        fs::read_to_string(real.join("maps")).unwrap().lines().map(|line| edit(line) + "\n").collect();
    fs::write(own.join("maps"), maps.concat()).unwrap();
    proc
}

/// Not every kernel lets a process name its memory (CONFIG_ANON_VMA_NAME): the name is put in here.
#[test]
fn jit_code_in_named_anonymous_memory_is_named_by_its_perf_map() {
    for called in ["[anon:Ruby:rb_yjit_reserve_addr_space]", "[anon:[vdso]]", "[anon_shmem:v8]", "//anon"] {
        let dir = Dir::new("named");
        let compiled = Compiled::new(&dir, "anonymous");
        let (pid, line) = (compiled.0.pid(), compiled.line());
        let proc = edited(&dir, pid, |other| {
            if other == line { format!("{other}                          {called}") } else { other.into() }
        });
        let frames = vec![UserFrame::Address(compiled.0.address)];
        let mut symbolizer = Symbolizer::new(&proc);
        observe(&mut symbolizer, pid, &frames);
        assert_eq!(names(symbolizer, pid, frames), ["compiled"], "{called}");
    }
}

#[test]
fn a_program_in_a_memfd_has_its_own_symbols() {
    let dir = Dir::new("memfd");
    let binary = dir.compile("spin_in_memory", &["-static"]);
    // Opened for a descriptor that the shell hands on, then gone: the file is in memory alone.
    let script = "import os,sys; fd=os.memfd_create('payload',0); os.write(fd,open(sys.argv[1],'rb').read()); os.execve(fd,['x'],{})";
    let spinner = Spinner::start(Command::new("python3").args(["-c", script]).arg(&binary));
    let frames = vec![UserFrame::Address(spinner.address)];
    let mut symbolizer = Symbolizer::new(Path::new("/proc"));
    observe(&mut symbolizer, spinner.pid(), &frames);
    assert_eq!(names(symbolizer, spinner.pid(), frames), ["spin_in_memory"]);
}

/// A program without a build id that was deleted, in a /proc that leads to no file of it, with a perf map
/// from before it was mapped.
fn unopened(dir: &Dir) -> (Spinner, PathBuf) {
    let binary = dir.compile("spin_here", &["-static", "-no-pie", "-Wl,--build-id=none"]);
    let spinner = Spinner::start(&mut Command::new(&binary));
    fs::write(perf_map(spinner.pid()), format!("{:x} 100 stale\n", spinner.address)).unwrap();
    fs::remove_file(&binary).unwrap();
    let proc = edited(dir, spinner.pid(), str::to_owned);
    for link in ["exe", "map_files"] {
        fs::remove_file(proc.join(spinner.pid().to_string()).join(link)).unwrap();
    }
    (spinner, proc)
}

fn perf_map(pid: u32) -> String {
    format!("/tmp/perf-{pid}.map")
}

#[test]
fn code_of_an_unreadable_file_is_not_named_by_a_perf_map() {
    let dir = Dir::new("unopened");
    let (spinner, proc) = unopened(&dir);
    let frames = vec![UserFrame::Address(spinner.address)];
    let mut symbolizer = Symbolizer::new(&proc);
    observe(&mut symbolizer, spinner.pid(), &frames);
    let named = names(symbolizer, spinner.pid(), frames);
    fs::remove_file(perf_map(spinner.pid())).unwrap();
    assert_eq!(named, [UNKNOWN]);
}

#[test]
fn memory_that_a_file_was_mapped_over_has_no_name() {
    let dir = Dir::new("over-memory");
    let binary = dir.compile("spin_here", &["-static", "-no-pie"]);
    let spinner = Spinner::start(&mut Command::new(&binary));
    let before = edited(&dir, spinner.pid(), |line| {
        let fields: Vec<&str> = line.split(' ').collect();
        format!("{} {} 00000000 00:00 0 ", fields[0], fields[1])
    });
    let (image, mut modules) = (Image { pid: spinner.pid(), id: 1 }, Modules::default());
    let layout = Layout::now(Path::new("/proc"), spinner.pid()).unwrap();
    let mut look = |proc: &Path| Process::look(proc, image, layout, &mut modules).unwrap();
    let mut process = look(&before);
    assert!(matches!(process.at(spinner.address), Some(MappingContent::Jit)));
    let now = look(Path::new("/proc"));
    assert!(matches!(now.at(spinner.address), Some(MappingContent::File { .. })));
    process.update(now);
    assert!(matches!(process.at(spinner.address), Some(MappingContent::Unknown)));
}
