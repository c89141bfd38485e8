//! A program that does nothing at every switch of tasks: what benchmarks hold the others against.

use std::os::fd::AsFd as _;

use libbpf_rs::Link;
use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};

use super::error::{Error, attempt};
use super::meter::Meter;
use super::place;
use super::skeletons::floor::{FloorSkel, FloorSkelBuilder};

/// It is attached while this is kept.
pub struct Floor {
    _link: Link,
    _skeleton: FloorSkel<'static>,
}

impl Floor {
    /// Loads and attaches it.
    pub fn attach(meter: &mut Meter) -> Result<Floor, Error> {
        attempt("the program that does nothing", || {
            let skeleton = FloorSkelBuilder::default().open(place())?.load()?;
            meter.add("nothing", skeleton.progs.nothing.as_fd());
            Ok(Floor { _link: skeleton.progs.nothing.attach_trace()?, _skeleton: skeleton })
        })
    }
}
