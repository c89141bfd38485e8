//! What block I/O adds to a document, field by field.

use crate::tracer::fields::field;
use crate::tracer::{Field, FieldKind};

const P: FieldKind = FieldKind::Long;

/// What it adds to a document.
pub const FIELDS: [Field; 45] = [
    field("process_file_io_stats.device", FieldKind::Keyword, "The device; the one that fired comes first"),
    field("process_file_io_stats.pid", P, "Process id on the host; most bytes first"),
    field(
        "process_file_io_stats.comm",
        FieldKind::Keyword,
        "Name of the process; [others]: the rest of them; [unattributed]: what nobody was seen to do",
    ),
    field("process_file_io_stats.container_id", FieldKind::Keyword, "Its container"),
    field("process_file_io_stats.container_hostname", FieldKind::Keyword, "Host name inside the container"),
    field(
        "process_file_io_stats.dirtied_earlier",
        FieldKind::Boolean,
        "Whether it writes what someone else made dirty before the capture",
    ),
    field(
        "process_file_io_stats.shared",
        FieldKind::Boolean,
        "Whether some of what it writes was made dirty by one of several processes, not known which",
    ),
    field("process_file_io_stats.total_fs_read_bps", P, "Bytes a second read from filesystems, where known"),
    field(
        "process_file_io_stats.total_fs_write_bps",
        P,
        "Bytes a second written to filesystems, where known",
    ),
    field("process_file_io_stats.total_disk_read_bps", P, "Bytes a second read from the device"),
    field("process_file_io_stats.total_disk_write_bps", P, "Bytes a second written to the device"),
    field("process_file_io_stats.total_file_count", P, "Files, those left out included"),
    field("process_file_io_stats.total_files.major", P, "Number of the filesystem's device"),
    field("process_file_io_stats.total_files.minor", P, "Number of the filesystem's device"),
    field("process_file_io_stats.total_files.dev_name", FieldKind::Keyword, "The device that it went to"),
    field("process_file_io_stats.total_files.inode", P, "The file's inode"),
    field(
        "process_file_io_stats.total_files.path",
        FieldKind::Keyword,
        "Its path with its mount point, by the latest name that its I/O was seen under, (deleted) after it if that was gone; [metadata]: the filesystem's own, its journal included",
    ),
    field("process_file_io_stats.total_files.is_direct", FieldKind::Boolean, "Past the page cache"),
    field(
        "process_file_io_stats.total_files.dirtied_earlier",
        FieldKind::Boolean,
        "Made dirty before the capture, so by whom is not known",
    ),
    field(
        "process_file_io_stats.total_files.shared",
        FieldKind::Boolean,
        "Several processes wrote to the file, and which of them made this dirty is not known",
    ),
    field("process_file_io_stats.total_files.fs_read_bps", P, "Bytes a second read from the filesystem"),
    field("process_file_io_stats.total_files.fs_write_bps", P, "Bytes a second written to the filesystem"),
    field("process_file_io_stats.total_files.disk_read_bps", P, "Bytes a second read from the device"),
    field("process_file_io_stats.total_files.disk_write_bps", P, "Bytes a second written to the device"),
    field("process_file_io_stats.total_files.in_flight", P, "Requests still under way at the end"),
    field("process_file_io_stats.total_files.q2c_us", P, "From the queue to the end, on average"),
    field("process_file_io_stats.total_files.d2c_us", P, "From the device to the end, on average"),
    field("process_file_io_stats.total_files.max_q2c_us", P, "The longest from the queue to the end"),
    field("process_file_io_stats.total_files.max_d2c_us", P, "The longest from the device to the end"),
    field("device_io.device", FieldKind::Keyword, "Name of a device; the one that fired comes first"),
    field("device_io.major", P, "Its driver's number"),
    field("device_io.minor", P, "Its own number"),
    field("device_io.read_bps", P, "Bytes a second that it read meanwhile, of diskstats"),
    field("device_io.write_bps", P, "Bytes a second that it wrote meanwhile, of diskstats"),
    field("io_schedule_timeout_stacks.pid", P, "Process id on the host; longest wait first"),
    field("io_schedule_timeout_stacks.tid", P, "Thread id on the host"),
    field("io_schedule_timeout_stacks.cpu", P, "The CPU that it was last on"),
    field("io_schedule_timeout_stacks.comm", FieldKind::Keyword, "Name of the thread"),
    field("io_schedule_timeout_stacks.container_id", FieldKind::Keyword, "Its container"),
    field("io_schedule_timeout_stacks.container_hostname", FieldKind::Keyword, "Host name inside it"),
    field("io_schedule_timeout_stacks.in_iowait", FieldKind::Boolean, "Whether its wait counts as iowait"),
    field("io_schedule_timeout_stacks.schedule_latency_us", P, "How long it waited, in microseconds"),
    field("io_schedule_timeout_stacks.stack", FieldKind::Keyword, "Its kernel frames, innermost first"),
    field(
        "not_attached",
        FieldKind::Keyword,
        "Tracepoints of filesystems that the kernel has and would not attach: what was written to ext4's files is missing then",
    ),
    field("stalls_seen", P, "Waits over the limit, those left out included"),
];
