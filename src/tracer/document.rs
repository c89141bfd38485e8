//! An event as it is stored: one JSON object, the envelope and the tracer's own data, written into
//! bytes that are there already. What is too large is written again with less in its lists, and with as
//! much as fits, so nothing is ever lost whole. `uploaded_time` is not in it: whoever ships it puts it in.

use std::fmt::Display;
use std::io;

use serde::{Serialize, Serializer};

use super::fields::field;
use super::{About, Data, Field, FieldKind, Shrink, Trigger};
use crate::clock::{Now, Wall};
use crate::host::{Container, Role};

/// All that a document says beside the tracer's own data.
#[derive(Clone, Copy)]
pub struct Envelope<'a> {
    /// This host's name.
    pub hostname: &'a str,
    /// This host's region; may be empty.
    pub region: &'a str,
    /// The container that the event is about, if it is about one and it is still known.
    pub container: Option<Container<'a>>,
    /// The tracer's name.
    pub tracer_name: &'a str,
    /// The event's id: unique for ever.
    pub tracer_id: &'a dyn Display,
    /// What the tracer says of it.
    pub about: &'a About,
    /// When it is stored.
    pub now: Now,
    /// Whether it came from the kernel, and not from a rule on samples.
    pub event: bool,
}

/// An event does not fit even with its lists empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the document does not fit into {0} bytes even without its lists; raise log.document")]
pub struct TooLarge(usize);

/// The fields of the envelope, `uploaded_time` among them.
pub const FIELDS: &[Field] = &[
    field("@timestamp", FieldKind::Date, "When the rule fired"),
    field("hostname", FieldKind::Keyword, "Name of the host"),
    field("region", FieldKind::Keyword, "Region of the host, as configured"),
    field("uploaded_time", FieldKind::Date, "When the document was sent"),
    field("time", FieldKind::Date, "When the document was stored"),
    field("container_id", FieldKind::Keyword, "The runtime's id of the container"),
    field("container_name", FieldKind::Keyword, "Name of the container"),
    field("container_hostname", FieldKind::Keyword, "Host name inside the container"),
    field("container_host_namespace", FieldKind::Keyword, "Kubernetes namespace of its pod"),
    field(
        "container_type",
        FieldKind::Keyword,
        "What it is to its pod: container, init, sidecar, ephemeral, sandbox",
    ),
    field(
        "container_runtime",
        FieldKind::Keyword,
        "What made it: docker, containerd, crio, podman, lxc or another",
    ),
    field("container_qos", FieldKind::Keyword, "QoS class of its pod: guaranteed, burstable, besteffort"),
    field("pod", FieldKind::Keyword, "Its pod's name, or uid where nothing tells the name"),
    field("pod_uid", FieldKind::Keyword, "Its pod's uid"),
    field("cgroup_path", FieldKind::Keyword, "Path of its cgroup below the mount point"),
    field("tracer_name", FieldKind::Keyword, "The tracer"),
    field("tracer_id", FieldKind::Keyword, "The event's id: unique for ever"),
    field("tracer_time", FieldKind::Date, "When the rule fired"),
    field("tracer_type", FieldKind::Keyword, "autotracing: a rule on samples; event: of the kernel; manual"),
    field("onset_version", FieldKind::Keyword, "The agent's version"),
];

/// A document that has to be cut and fills `FILLED` of `PARTS` parts of its room is good enough: each time that
/// it is written anew holds up the loop.
const FILLED: usize = 7;
/// The parts that its room is divided into.
const PARTS: usize = 8;

/// Times that a document is written for a better fit; then the best that fitted is taken.
const TRIES: u32 = 6;

/// Writes the whole document. Returns its length.
pub fn write(envelope: &Envelope<'_>, data: &dyn Data, to: &mut [u8]) -> Result<usize, TooLarge> {
    let room = to.len();
    let mut fit = Fit::new(room);
    let mut tries = 0;
    loop {
        let mut sheet = Sheet { bytes: &mut *to, len: 0 };
        // A length that is not known is too long.
        let written = fill(envelope, data, Shrink::new(fit.part, room), &mut sheet);
        let len = if written.is_ok() { sheet.len } else { usize::MAX };
        tries += 1;
        if len <= room && (fit.settled() || fit.filled(len) || tries >= TRIES) {
            return Ok(len);
        }
        if len > room && fit.part == 0 {
            return Err(TooLarge(room));
        }
        fit.next(len, tries >= TRIES);
    }
}

/// The search for the largest part of the lists that fits.
struct Fit {
    room: usize,
    /// The part to try.
    part: u32,
    /// The largest that fitted, and the smallest that did not, with their lengths.
    fitted: Option<(u32, usize)>,
    over: Option<(u32, usize)>,
}

impl Fit {
    fn new(room: usize) -> Fit {
        Fit { room, part: Shrink::WHOLE, fitted: None, over: None }
    }

    /// Whether no part is left between what fits and what does not, if this one fits.
    fn settled(&self) -> bool {
        self.over.is_none_or(|(over, _)| over <= self.part + 1)
    }

    fn filled(&self, len: usize) -> bool {
        len >= self.room / PARTS * FILLED
    }

    /// Notes how long the part was, and chooses another: on the line between the two that are known, or
    /// halfway where that leads nowhere. `last`: there is no more time, one that is known to fit is taken.
    fn next(&mut self, len: usize, last: bool) {
        let tried = Some((self.part, len));
        *(if len > self.room { &mut self.over } else { &mut self.fitted }) = tried;
        let (low, low_len) = self.fitted.unwrap_or((0, 0));
        let (high, high_len) = self.over.unwrap_or((Shrink::WHOLE, len));
        self.part = match self.fitted {
            Some((fitted, _)) if last => fitted,
            None if last => high / 2,
            _ => {
                // A little less than all of it, for labels are not all of one length.
                let aim = (self.room - self.room / 32).saturating_sub(low_len) as u128;
                let line = (high_len.saturating_sub(low_len) as u128).max(1);
                let more = u128::from(high - low) * aim / line;
                let part = low.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
                if part <= low || part >= high { low + (high - low) / 2 } else { part }
            }
        };
    }
}

fn fill(
    envelope: &Envelope<'_>,
    data: &dyn Data,
    shrink: Shrink,
    sheet: &mut Sheet<'_>,
) -> serde_json::Result<()> {
    serde_json::to_writer(&mut *sheet, &Outside::of(envelope))?;
    // The data goes inside the brace that was just closed.
    sheet.len -= 1;
    sheet.put(b",\"tracer_data\":");
    data.write(shrink, sheet)?;
    sheet.put(b"}");
    Ok(())
}

/// Bytes that are filled from the start. What does not fit is only counted: an error would be
/// allocated.
struct Sheet<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

impl Sheet<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let end = self.len.saturating_add(bytes.len());
        if let Some(place) = self.bytes.get_mut(self.len..end) {
            place.copy_from_slice(bytes);
        }
        self.len = end;
    }
}

impl io::Write for Sheet<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.put(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Serialize)]
struct Outside<'a> {
    #[serde(rename = "@timestamp")]
    timestamp: Wall,
    hostname: &'a str,
    region: &'a str,
    time: Wall,
    #[serde(flatten)]
    container: Option<Inside<'a>>,
    tracer_name: &'a str,
    #[serde(serialize_with = "shown")]
    tracer_id: &'a dyn Display,
    tracer_time: Wall,
    tracer_type: &'static str,
    onset_version: &'static str,
}

#[derive(Serialize)]
struct Inside<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    container_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    container_name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    container_hostname: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    container_host_namespace: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_runtime: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_qos: Option<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pod: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pod_uid: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    cgroup_path: &'a str,
}

impl<'a> Outside<'a> {
    fn of(envelope: &Envelope<'a>) -> Outside<'a> {
        let tracer_type = match envelope.about.trigger {
            Trigger::Manual => "manual",
            _ if envelope.event => "event",
            _ => "autotracing",
        };
        Outside {
            timestamp: envelope.about.time,
            hostname: envelope.hostname,
            region: envelope.region,
            time: envelope.now.wall,
            container: envelope.container.map(|container| Inside {
                container_id: container.id(),
                container_name: container.name(),
                container_hostname: container.hostname(),
                container_host_namespace: container.namespace(),
                container_type: container.role().map(Role::name),
                container_runtime: container.runtime(),
                container_qos: container.qos(),
                pod: container.pod(),
                pod_uid: container.pod_uid(),
                cgroup_path: container.cgroup_path(),
            }),
            tracer_name: envelope.tracer_name,
            tracer_id: envelope.tracer_id,
            tracer_time: envelope.about.time,
            tracer_type,
            onset_version: env!("CARGO_PKG_VERSION"),
        }
    }
}

fn shown<S: Serializer>(value: &&dyn Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}
