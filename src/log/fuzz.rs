//! One entry for a fuzzer: foreign bytes as a segment.
