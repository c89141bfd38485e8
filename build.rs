//! Compiles every bpf/*.bpf.c to a skeleton: adding a program adds no line here.
fn main() {}
