//! A real BPF ring that a real program fills, read as the loop reads it. Needs root.

use std::hint::black_box;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use libbpf_rs::libbpf_sys::{
    BPF_PROG_TYPE_SOCKET_FILTER, bpf_insn, bpf_map_create_opts, bpf_prog_load, bpf_prog_test_run_opts,
    bpf_test_run_opts,
};
use libbpf_rs::{MapHandle, MapType};
use onset::bpf::{Drained, Ring};

use crate::table::{Budget, cpu, head, line};

/// Bytes of a record, about as long as those of `oom`.
const RECORD: usize = 256;
const RING: u32 = 1 << 20;
/// So many are put in and taken out at a time; they fit.
const RECORDS: usize = 2048;
/// As the loop takes them.
const PORTION: u32 = 256;
const ROUNDS: usize = 25;

pub fn lines() {
    head("a BPF ring, a record of 256 bytes");
    let options = bpf_map_create_opts { sz: size_of::<bpf_map_create_opts>() as _, ..Default::default() };
    let map = MapHandle::create(MapType::RingBuf, Some("bench"), 0, 0, RING, &options);
    let made = map.ok().and_then(|map| Some((writer(map.as_fd().as_raw_fd())?, map)));
    let Some((writer, map)) = made else {
        println!("this user, or this kernel, has no BPF rings");
        return;
    };
    let mut ring = Ring::open(&map).expect("a ring");
    ring.reserve(PORTION as usize, RECORD);
    let mut sink = vec![0_u8; RECORD];
    let (mut filled, mut drained) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        filled.push(timed(|| fill(&writer)));
        let mut taken = 0;
        drained.push(timed(|| {
            let mut each = |record: &[u8]| {
                sink.copy_from_slice(black_box(record));
                taken += 1;
            };
            while ring.drain(PORTION, &mut each) == Drained::More {}
        }));
        assert_eq!(taken, RECORDS, "each record comes out");
    }
    let (from, mut to) = (vec![7_u8; RECORD * RECORDS], vec![0_u8; RECORD * RECORDS]);
    let copied = (0..ROUNDS).map(|_| {
        timed(|| {
            for (to, from) in to.chunks_mut(RECORD).zip(black_box(&from).chunks(RECORD)) {
                to.copy_from_slice(from);
            }
        })
    });
    let copied = middle(copied.collect());
    line("drained in portions of 256", middle(drained), Some(("memcpy", copied)), Budget::None);
    line("put in by a program, for comparison", middle(filled), None, Budget::None);
}

/// Nanoseconds of CPU for each record.
fn timed(work: impl FnOnce()) -> f64 {
    let began = cpu();
    work();
    (cpu() - began).as_nanos() as f64 / RECORDS as f64
}

fn middle(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn op(code: u8, to: u8, from: u8, off: i16, imm: i32) -> bpf_insn {
    let mut insn = bpf_insn { code, off, imm, ..Default::default() };
    insn.set_dst_reg(to);
    insn.set_src_reg(from);
    insn
}

/// `bpf_ringbuf_output(map, 256 bytes of the stack, 256, BPF_RB_NO_WAKEUP)`, in bpf(2)'s instructions.
fn writer(map: RawFd) -> Option<OwnedFd> {
    const STORE: u8 = 0x7a; // *(u64 *)(to + off) = imm
    const COPY: u8 = 0xbf;
    const ADD: u8 = 0x07;
    const SET: u8 = 0xb7;
    const WIDE: u8 = 0x18; // of two instructions
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    const MAP_FD: u8 = 1;
    const RINGBUF_OUTPUT: i32 = 130;
    const NO_WAKEUP: i32 = 1;
    let bytes = i16::try_from(RECORD).expect("it fits the stack");
    let mut code: Vec<bpf_insn> = (1..=bytes / 8).map(|word| op(STORE, 10, 0, -8 * word, 7)).collect();
    code.extend([
        op(WIDE, 1, MAP_FD, 0, map),
        op(0, 0, 0, 0, 0),
        op(COPY, 2, 10, 0, 0),
        op(ADD, 2, 0, 0, -i32::from(bytes)),
        op(SET, 3, 0, 0, bytes.into()),
        op(SET, 4, 0, 0, NO_WAKEUP),
        op(CALL, 0, 0, 0, RINGBUF_OUTPUT),
        op(SET, 0, 0, 0, 0),
        op(EXIT, 0, 0, 0, 0),
    ]);
    // SAFETY: the instructions and both strings live through the call; there are no options.
    let fd = unsafe {
        bpf_prog_load(
            BPF_PROG_TYPE_SOCKET_FILTER,
            c"bench".as_ptr(),
            c"GPL".as_ptr(),
            code.as_ptr(),
            code.len() as _,
            std::ptr::null_mut(),
        )
    };
    // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Runs the program so often that all records are in the ring.
fn fill(writer: &OwnedFd) {
    let packet = [0_u8; 64];
    let mut options = bpf_test_run_opts {
        sz: size_of::<bpf_test_run_opts>() as _,
        data_in: packet.as_ptr().cast(),
        data_size_in: 64,
        repeat: i32::try_from(RECORDS).expect("small"),
        ..Default::default()
    };
    // SAFETY: the options and the packet live through the call, and the program is loaded.
    let failed = unsafe { bpf_prog_test_run_opts(writer.as_raw_fd(), &raw mut options) };
    assert_eq!(failed, 0, "the program runs");
}
