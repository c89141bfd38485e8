//! Known issues: names that operators give to stacks they have met before.

/// A name for stacks whose frames hold these words, in this order, innermost first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownIssue {
    /// What it is called in documents.
    pub name: String,
    /// Each a part of a frame's name; frames between them do not matter.
    pub frames: Vec<String>,
}

impl KnownIssue {
    /// Whether a stack, innermost frame first, is of this issue.
    pub fn matches<S: AsRef<str>>(&self, stack: &[S]) -> bool {
        let mut frames = stack.iter();
        self.frames.iter().all(|part| frames.any(|frame| frame.as_ref().contains(part.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_must_come_in_order_each_in_a_frame_of_its_own() {
        let issue = KnownIssue { name: "nfs".into(), frames: vec!["nfs_wait_bit".into(), "rpc_".into()] };
        assert!(issue.matches(&["schedule", "nfs_wait_bit_killable", "x", "rpc_wait"]));
        assert!(!issue.matches(&["rpc_wait", "nfs_wait_bit_killable"]), "the other way round");
        assert!(!issue.matches(&["nfs_wait_bit_rpc_"]), "one frame is not two");
        assert!(!issue.matches::<&str>(&[]));
    }
}
