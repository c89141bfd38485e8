//! Runtimes whose ids are no 64 hex digits: where each of them has its containers, and how it calls them.

use super::{ID_MAX, LeafName, is_plain};
use crate::host::inline::Text;

/// One way to have containers: what is above, and what the name is; and the container that is so called.
type Kind = for<'p> fn(&str, &'p str) -> Option<LeafName<'p>>;

const KINDS: [Kind; 6] = [lxc, nspawn, nomad, garden, buildkit, fargate];

/// A container of one of them.
pub(super) fn of<'p>(above: &str, leaf: &'p str) -> Option<LeafName<'p>> {
    KINDS.iter().find_map(|kind| kind(above, leaf))
}

fn so_called<'p>(id: &'p str, runtime: &'static str, name: &str) -> LeafName<'p> {
    LeafName { name: Text::cut(name), ..LeafName::by(id, Some(runtime)) }
}

/// `/lxc/NAME` and `lxc.payload.NAME`; its monitor is in another.
fn lxc<'p>(above: &str, leaf: &'p str) -> Option<LeafName<'p>> {
    let folder = matches!(above, "/lxc" | "/lxc.payload").then_some(leaf);
    let name = folder.or_else(|| leaf.strip_prefix("lxc.payload."))?;
    is_plain(name).then(|| so_called(name, "lxc", name))
}

/// `/machine.slice/machine-NAME.scope`, or `systemd-nspawn@NAME.service`, with the name as systemd escapes it.
/// libvirt's virtual machines are there, too.
fn nspawn<'p>(above: &str, leaf: &'p str) -> Option<LeafName<'p>> {
    if !above.ends_with("/machine.slice") {
        return None;
    }
    let scope = leaf.strip_prefix("machine-").and_then(|rest| rest.strip_suffix(".scope"));
    let service = || leaf.strip_prefix("systemd-nspawn@")?.strip_suffix(".service");
    let id = scope.or_else(service).filter(|id| !id.is_empty() && id.len() <= ID_MAX)?;
    let foreign = ["qemu", "lxc", "xen"].iter().any(|driver| {
        id.strip_prefix(driver).is_some_and(|rest| rest.starts_with(r"\x2d") || rest.starts_with('-'))
    });
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'\\');
    if foreign || !id.starts_with(|first: char| first.is_ascii_alphanumeric()) || !id.bytes().all(fits) {
        return None;
    }
    // Machines' names have letters, digits, `-` and `.`: of these only `-` is escaped.
    let mut name: Text<128> = Text::EMPTY;
    for (number, part) in id.split(r"\x2d").enumerate() {
        name = Text::joined(&[&name, if number == 0 { "" } else { "-" }, part])?;
    }
    Some(so_called(id, "nspawn", &name))
}

/// `/nomad.slice/ALLOCATION.TASK.scope` on v2, `/nomad/.../ALLOCATION.TASK` on v1.
fn nomad<'p>(above: &str, leaf: &'p str) -> Option<LeafName<'p>> {
    let top = above.split('/').nth(1)?;
    let id = leaf.strip_suffix(".scope").unwrap_or(leaf);
    let (allocation, task) = id.split_once('.')?;
    let fits = matches!(top, "nomad" | "nomad.slice") && is_uuid(allocation) && is_plain(task);
    (fits && id.len() <= ID_MAX).then(|| so_called(id, "nomad", task))
}

/// Cloud Foundry's `/garden/GUID`, and `good` or `bad` between the two for what uses less or more than its share.
fn garden<'p>(above: &str, leaf: &'p str) -> Option<LeafName<'p>> {
    let above = ["/good", "/bad"].iter().find_map(|share| above.strip_suffix(share)).unwrap_or(above);
    let parent = above.rsplit('/').next()?;
    let ours = parent == "garden" || parent.starts_with("garden-");
    // Diego's guids lack the end of a UUID.
    let guid = is_uuid(leaf) || groups(leaf, &[8, 4, 4, 4, 4]);
    (ours && guid).then(|| LeafName::by(leaf, Some("garden")))
}

/// A step of a build: `/buildkit/ID`, also below docker's cgroups.
fn buildkit<'p>(above: &str, leaf: &'p str) -> Option<LeafName<'p>> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ours = above.ends_with("/buildkit") && leaf.len() == 25 && leaf.bytes().all(fits);
    ours.then(|| LeafName::by(leaf, Some("buildkit")))
}

/// `/ecs/TASK/TASK-NUMBER`, where the task's id is of 32 hex digits.
fn fargate<'p>(above: &str, leaf: &'p str) -> Option<LeafName<'p>> {
    let (rest, task) = above.rsplit_once('/')?;
    let number = leaf.strip_prefix(task)?.strip_prefix('-')?;
    let fits = rest.starts_with("/ecs") && task.len() == 32 && is_hex(task);
    let number = !number.is_empty() && number.len() <= 20 && number.bytes().all(|byte| byte.is_ascii_digit());
    (fits && number).then(|| LeafName::by(leaf, Some("ecs")))
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_uuid(text: &str) -> bool {
    groups(text, &[8, 4, 4, 4, 12])
}

/// Whether a text is groups of hex digits with `-` between them, and each group is as long as `lengths` says.
fn groups(text: &str, lengths: &[usize]) -> bool {
    text.split('-').count() == lengths.len()
        && text.split('-').zip(lengths).all(|(group, length)| group.len() == *length && is_hex(group))
}
