//! The `pilus` command: the command line and the wiring table.

fn main() {}
