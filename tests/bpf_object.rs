//! The checked-in object file: made of the sources beside it, under no one's licence but ours, and
//! within its budget of instructions.

mod bpf_lab;

use std::process::Command;

use bpf_lab::Lab;
use pilus::io::bpf::{Bpf, TcHook};

/// Most instructions the verifier may walk for a program. The kernel's own bound is a million; the
/// load time grows with this number.
const MOST_VERIFIED: u32 = 10_000;
/// Most instructions of a program in the kernel.
const MOST_INSTRUCTIONS: u32 = 2_000;

#[test]
fn the_object_file_is_what_the_sources_compile_to() {
    let root = env!("CARGO_MANIFEST_DIR");
    let compiler = Command::new("clang-16").arg("--version").output();
    assert!(
        compiler.is_ok_and(|o| o.status.success()),
        "clang-16 is needed to compare bpf/pilus.bpf.o with its sources: \
         apt-get install clang-16 llvm-16 libbpf-dev"
    );
    let fresh = std::env::temp_dir().join(format!("pilus-{}.bpf.o", std::process::id()));
    let build = Command::new(format!("{root}/scripts/bpf-build"))
        .arg(&fresh)
        .output()
        .expect("scripts/bpf-build starts");
    let said = String::from_utf8_lossy(&build.stderr).into_owned();
    let bytes = std::fs::read(&fresh);
    let _ = std::fs::remove_file(&fresh);
    assert!(build.status.success(), "scripts/bpf-build: {said}");
    let checked_in = std::fs::read(format!("{root}/bpf/pilus.bpf.o")).expect("it is checked in");
    assert!(
        bytes.expect("scripts/bpf-build wrote it") == checked_in,
        "bpf/pilus.bpf.o is stale: run scripts/bpf-build and check the result in"
    );
}

#[test]
fn programs_stay_in_budget_and_need_no_gpl() {
    needs_root!("programs_stay_in_budget_and_need_no_gpl");
    let lab = Lab::new();
    let bpf = Bpf::load(&lab.bpf_root(), TcHook::Auto).expect("loads");
    for cost in bpf.costs().expect("the kernel tells") {
        println!("{cost:?}");
        assert!(!cost.gpl, "{cost:?}");
        assert!(cost.instructions > 0 && cost.instructions <= MOST_INSTRUCTIONS, "{cost:?}");
        // The kernel tells since 5.16.
        assert!(cost.verified <= MOST_VERIFIED, "{cost:?}");
    }
    bpf.release().expect("releases");
}
