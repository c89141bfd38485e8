//! Which file an address is in: never another one with the same numbers, the same name, or the same id.

use super::*;

/// A build id that a linker is told, as whoever forges one would.
const SAME_ID: &str = "-Wl,--build-id=0x00112233445566778899aabbccddeeff00112233";

/// A program in a folder of its own, its function under this name.
fn program(dir: &Dir, folder: &str, function: &str, flags: &[&str]) -> PathBuf {
    let own = Dir(dir.0.join(folder));
    fs::create_dir_all(&own.0).unwrap();
    let binary = own.compile(function, flags);
    // The folder goes with the one that it is in.
    std::mem::forget(own);
    binary
}

fn strip(binary: &Path) {
    assert!(Command::new("strip").arg(binary).status().unwrap().success());
}

/// Shows some processes one after the other, each with the frame of its function; then names them all.
fn named(spinners: &[(&Spinner, UserFrame)]) -> Vec<String> {
    let mut symbolizer = Symbolizer::new(Path::new("/proc"));
    for (spinner, frame) in spinners {
        observe(&mut symbolizer, spinner.pid(), &[*frame]);
    }
    let stacks: Vec<Stack<'_>> = spinners
        .iter()
        .map(|(spinner, frame)| Stack {
            image: Image { pid: spinner.pid(), id: 1 },
            weight: 1,
            user: std::slice::from_ref(frame),
            kernel: &[],
        })
        .collect();
    let names = symbolizer.resolve(&stacks, Instant::now() + PATIENCE);
    stacks.iter().map(|stack| names.row(*stack, "it").user[0].to_owned()).collect()
}

#[test]
fn the_one_of_two_files_with_a_build_id_that_has_symbols_names_both() {
    let dir = Dir::new("twins");
    let whole = program(&dir, "whole", "spin_here", &["-Wl,--build-id"]);
    let bare = dir.0.join("bare");
    fs::copy(&whole, &bare).unwrap();
    strip(&bare);
    let [bare, whole] = [bare, whole].map(|binary| (Spinner::start(&mut Command::new(&binary)), binary));
    let [bare, whole] = [&bare, &whole].map(|(spinner, binary)| (spinner, spinner.file_frame(binary)));
    assert_eq!(named(&[bare, whole]), ["spin_here", "spin_here"], "stripped first");
    assert_eq!(named(&[whole, bare]), ["spin_here", "spin_here"], "stripped last");
    assert!(named(&[bare])[0].starts_with("bare+0x"), "the stripped one alone");
}

#[test]
fn a_forged_build_id_does_not_name_anothers_code() {
    let dir = Dir::new("forged");
    let mine = program(&dir, "mine", "spin_here", &[SAME_ID]);
    let forged = program(&dir, "forged", "a_lie", &[SAME_ID, "-O0"]);
    strip(&mine);
    let [mine, forged] = [mine, forged].map(|binary| (Spinner::start(&mut Command::new(&binary)), binary));
    let [mine, forged] = [&mine, &forged].map(|(spinner, binary)| (spinner, spinner.file_frame(binary)));
    for order in [[mine, forged], [forged, mine]] {
        let names = named(&order);
        let of_mine = &names[usize::from(order[0].0.pid() == forged.0.pid())];
        assert!(of_mine.starts_with("spinner+0x"), "{names:?}");
    }
    // Nobody knows which of the two a process ran that was never looked at.
    let mut symbolizer = Symbolizer::new(Path::new("/proc"));
    for (spinner, frame) in [mine, forged] {
        observe(&mut symbolizer, spinner.pid(), &[frame]);
    }
    assert_eq!(names_of(symbolizer, Image { pid: u32::MAX, id: 9 }, vec![mine.1]), [UNKNOWN]);
}

#[test]
fn an_overwritten_binary_names_nothing_of_the_old_process() {
    let dir = Dir::new("over");
    let flags = ["-Wl,--build-id=none", "-static", "-no-pie"];
    let binary = program(&dir, "one", "older_spins", &flags);
    let newer = fs::read(program(&dir, "two", "newer_spins", &flags)).unwrap();
    let older = Spinner::start(&mut Command::new(&binary));
    let (pid, frame) = (older.pid(), UserFrame::Address(older.address));
    let mut symbolizer = Symbolizer::new(Path::new("/proc"));
    observe(&mut symbolizer, pid, &[frame]);
    drop(older);
    fs::write(&binary, newer).unwrap();
    let newer = Spinner::start(&mut Command::new(&binary));
    let new_frame = UserFrame::Address(newer.address);
    let image = Image { pid: newer.pid(), id: 2 };
    let layout = Layout::now(Path::new("/proc"), newer.pid()).unwrap();
    symbolizer.observe(image, layout, &[new_frame], Instant::now());
    let stacks = [(Image { pid, id: 1 }, &frame), (image, &new_frame)].map(|(image, frame)| Stack {
        image,
        weight: 1,
        user: std::slice::from_ref(frame),
        kernel: &[],
    });
    let names = symbolizer.resolve(&stacks, Instant::now() + PATIENCE);
    let names = stacks.map(|stack| names.row(stack, "it").user[0]);
    assert_eq!(names, ["spinner", "newer_spins"]);
}

#[test]
fn a_file_that_replaces_a_deleted_one_is_a_different_module() {
    let dir = Dir::new("replaced");
    let flags = ["-Wl,--build-id=none", "-static", "-no-pie"];
    let binary = program(&dir, "one", "older_spins", &flags);
    let mut spinners = vec![Spinner::start(&mut Command::new(&binary))];
    for function in ["second_spins", "third_spins"] {
        fs::remove_file(&binary).unwrap();
        program(&dir, "one", function, &flags);
        spinners.push(Spinner::start(&mut Command::new(&binary)));
    }
    let all: Vec<_> = spinners.iter().map(|spinner| (spinner, UserFrame::Address(spinner.address))).collect();
    assert_eq!(named(&all), ["older_spins", "second_spins", "third_spins"]);
}

#[test]
fn a_process_that_executed_another_program_is_skipped() {
    let dir = Dir::new("by-now");
    let flags = ["-Wl,--build-id=none", "-static", "-no-pie"];
    let spinner = Spinner::start(&mut Command::new(program(&dir, "one", "spin_here", &flags)));
    let frame = UserFrame::Address(spinner.address);
    let sampled = Layout { start_code: 7, end_code: 7, start_stack: 7 };
    let mut symbolizer = Symbolizer::new(Path::new("/proc"));
    symbolizer.observe(Image { pid: spinner.pid(), id: 1 }, sampled, &[frame], Instant::now());
    assert_eq!(names(symbolizer, spinner.pid(), vec![frame]), [UNKNOWN]);
}

#[test]
fn symbols_that_miss_the_deadline_are_labelled_so() {
    let dir = Dir::new("late");
    let spinner = Spinner::start(&mut Command::new(dir.compile("spin_here", &[])));
    let frame = UserFrame::Address(spinner.address);
    let mut symbolizer = Symbolizer::new(Path::new("/proc"));
    observe(&mut symbolizer, spinner.pid(), &[frame]);
    let image = Image { pid: spinner.pid(), id: 1 };
    let stack = Stack { image, weight: 1, user: &[frame], kernel: &[] };
    let names = symbolizer.resolve(&[stack], Instant::now());
    assert_eq!(names.row(stack, "it").user, [LATE]);
}

/// Maps a library when a file is there, which is what dlopen(3) does; then burns in it.
const LATER: &str = r#"
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <stdio.h>
    #include <unistd.h>
    int main(int argc, char **argv)
    {
        puts("0");
        fflush(stdout);
        while (access(argv[2], F_OK))
            usleep(1000);
        void *spin = dlsym(dlopen(argv[1], RTLD_NOW), "spin_later");
        FILE *said = fopen(argv[3], "w");
        fprintf(said, "%lx\n", (long)spin);
        fclose(said);
        rename(argv[3], argv[4]);
        ((int (*)(volatile int *))spin)(&(volatile int){0});
    }
"#;

#[test]
fn a_library_mapped_after_the_first_read_of_maps_is_found() {
    let dir = Dir::new("later");
    let library = dir.compile("spin_later", &["-shared", "-fPIC", "-Wl,--build-id=none"]);
    let (source, binary) = (dir.0.join("later.c"), dir.0.join("later"));
    fs::write(&source, LATER).unwrap();
    let mut cc = Command::new("cc");
    assert!(cc.arg("-o").arg(&binary).arg(&source).arg("-ldl").status().unwrap().success());
    let [go, draft, said] = ["go", "draft", "said"].map(|name| dir.0.join(name));
    let spinner = Spinner::start(Command::new(&binary).args([&library, &go, &draft, &said]));
    let (image, proc) = (Image { pid: spinner.pid(), id: 1 }, Path::new("/proc"));
    let layout = Layout::now(proc, spinner.pid()).unwrap();
    let mut symbolizer = Symbolizer::new(proc);
    assert!(symbolizer.observe(image, layout, &[UserFrame::Address(8)], Instant::now()), "the first look");
    fs::write(&go, "").unwrap();
    let began = Instant::now();
    let address = loop {
        assert!(began.elapsed() < PATIENCE);
        if let Ok(text) = fs::read_to_string(&said) {
            break u64::from_str_radix(text.trim(), 16).unwrap() + 4;
        }
    };
    let (frame, first) = (UserFrame::Address(address), Instant::now());
    assert!(!symbolizer.observe(image, layout, &[frame], first), "it is too soon for another look");
    while !symbolizer.observe(image, layout, &[frame], first) {
        assert!(first.elapsed() < PATIENCE);
    }
    assert_eq!(names(symbolizer, spinner.pid(), vec![frame]), ["spin_later"]);
}

#[test]
fn reading_files_of_one_build_id_stops_at_the_deadline() {
    let dir = Dir::new("late-twins");
    let whole = program(&dir, "whole", "spin_here", &["-Wl,--build-id"]);
    let bare = dir.0.join("bare");
    fs::copy(&whole, &bare).unwrap();
    strip(&bare);
    let spinners = [&bare, &whole].map(|binary| Spinner::start(&mut Command::new(binary)));
    let UserFrame::File { id, offset } = spinners[1].file_frame(&whole) else { panic!("it has a build id") };
    let mut modules = Modules::default();
    let [bare, _] = spinners.each_ref().map(|spinner| {
        let layout = Layout::now(Path::new("/proc"), spinner.pid()).unwrap();
        let image = Image { pid: spinner.pid(), id: 1 };
        let seen = Process::look(Path::new("/proc"), image, layout, &mut modules).unwrap();
        seen.file(id).unwrap()
    });
    let named = |in_time: bool| modules.names(bare, &[offset], || in_time).pop().flatten().unwrap();
    assert_eq!(&*named(true), "spin_here");
    assert!(named(false).starts_with("bare+0x"), "its own file is read all the same");
    let by_id = |in_time: bool| modules.names_by_id(id, &[offset], || in_time);
    assert_eq!(by_id(true), Some(vec![Some("spin_here".into())]));
    assert_eq!(by_id(false), None, "nobody knows yet whether they agree");
}
