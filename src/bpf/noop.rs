//! A program that does nothing at every context switch: the baseline that benchmarks compare the others with.

use std::os::fd::AsFd as _;

use libbpf_rs::Link;
use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};

use super::error::{Error, attempt};
use super::meter::Meter;
use super::place;
use super::skeletons::noop::{NoopSkel, NoopSkelBuilder};

/// The program, attached until this is dropped.
pub struct NoopProgram {
    _link: Link,
    _skeleton: NoopSkel<'static>,
}

impl NoopProgram {
    /// Loads and attaches it.
    pub fn attach(meter: &mut Meter) -> Result<NoopProgram, Error> {
        attempt("the program that does nothing", || {
            let skeleton = NoopSkelBuilder::default().open(place())?.load()?;
            meter.add("nothing", skeleton.progs.nothing.as_fd());
            Ok(NoopProgram { _link: skeleton.progs.nothing.attach_trace()?, _skeleton: skeleton })
        })
    }
}
