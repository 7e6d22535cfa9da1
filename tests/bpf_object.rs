//! The checked-in object file: made of the sources beside it, under no one's licence but ours, and
//! within its budget of instructions.

mod bpf_lab;

use std::process::Command;

use bpf_lab::Lab;
use pilus::io::bpf::abi::{from_wire, to_wire};
use pilus::io::bpf::service::Services;
use pilus::io::bpf::service_abi::SERVICE_COUNTERS;
use pilus::io::bpf::{Bpf, Counter, TcHook};

/// Most instructions the verifier may walk for a program. The kernel's own bound is a million; the
/// load time grows with this number.
const MOST_VERIFIED: u32 = 10_000;
/// Most instructions of a program in the kernel.
const MOST_INSTRUCTIONS: u32 = 2_000;
/// The same of the service programs.
const MOST_SERVICE_VERIFIED: u32 = 100_000;
/// See [`MOST_SERVICE_VERIFIED`].
const MOST_SERVICE_INSTRUCTIONS: u32 = 3_500;

#[test]
fn the_object_files_are_what_the_sources_compile_to() {
    let root = env!("CARGO_MANIFEST_DIR");
    let compiler = Command::new("clang-16").arg("--version").output();
    assert!(
        compiler.is_ok_and(|o| o.status.success()),
        "clang-16 is needed to compare bpf/*.bpf.o with their sources: \
         apt-get install clang-16 llvm-16 libbpf-dev"
    );
    let fresh = std::env::temp_dir().join(format!("pilus-{}.bpf", std::process::id()));
    std::fs::create_dir_all(&fresh).expect("the temporary directory is writable");
    let build = Command::new(format!("{root}/scripts/bpf-build"))
        .arg(&fresh)
        .output()
        .expect("scripts/bpf-build starts");
    let said = String::from_utf8_lossy(&build.stderr).into_owned();
    let objects =
        ["pilus.bpf.o", "service.bpf.o"].map(|name| (name, std::fs::read(fresh.join(name))));
    let _ = std::fs::remove_dir_all(&fresh);
    assert!(build.status.success(), "scripts/bpf-build: {said}");
    for (name, bytes) in objects {
        let checked_in = std::fs::read(format!("{root}/bpf/{name}")).expect("it is checked in");
        assert!(
            bytes.expect("scripts/bpf-build wrote it") == checked_in,
            "bpf/{name} is stale: run scripts/bpf-build and check the result in"
        );
    }
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
    let services = Services::load(&lab.bpf_root(), TcHook::Auto).expect("loads");
    for cost in services.costs().expect("the kernel tells") {
        println!("{cost:?}");
        assert!(!cost.gpl, "{cost:?}");
        assert!(
            cost.instructions > 0 && cost.instructions <= MOST_SERVICE_INSTRUCTIONS,
            "{cost:?}"
        );
        assert!(cost.verified <= MOST_SERVICE_VERIFIED, "{cost:?}");
    }
}

#[test]
fn service_counters_have_the_names_and_places_of_the_header() {
    let header = format!("{}/bpf/service.h", env!("CARGO_MANIFEST_DIR"));
    let header = std::fs::read_to_string(header).expect("it is checked in");
    let (_, body) = header.split_once("enum service_counter {").expect("the enum is there");
    let (body, _) = body.split_once("};").expect("it ends");
    let mut names: Vec<String> = body
        .lines()
        .filter_map(|line| line.trim().split([',', ' ']).next())
        .filter(|name| !name.is_empty())
        .map(str::to_lowercase)
        .collect();
    assert_eq!(names.pop().as_deref(), Some("service_counters"));
    assert_eq!(names, SERVICE_COUNTERS);
}

#[test]
fn counters_have_the_names_and_places_of_the_header() {
    let header = format!("{}/bpf/pilus.h", env!("CARGO_MANIFEST_DIR"));
    let header = std::fs::read_to_string(header).expect("it is checked in");
    let (_, body) = header.split_once("enum counter {").expect("the enum is there");
    let (body, _) = body.split_once("};").expect("it ends");
    let mut names: Vec<String> = body
        .lines()
        .filter_map(|line| line.trim().split([',', ' ']).next())
        .filter(|name| !name.is_empty())
        .map(str::to_lowercase)
        .collect();
    assert_eq!(names.pop().as_deref(), Some("counters"));
    assert_eq!(names, Counter::ALL.map(Counter::name));
    for (place, counter) in Counter::ALL.into_iter().enumerate() {
        assert_eq!(counter as usize, place);
    }
}

#[test]
fn addresses_survive_the_way_into_a_map_and_back() {
    for ip in ["0.0.0.0", "192.0.2.80", "255.255.255.255", "::", "::1", "2001:db8::1"] {
        let ip = ip.parse().expect("an address");
        assert_eq!(from_wire(to_wire(ip)), ip);
    }
    let v4 = to_wire("192.0.2.80".parse().expect("an address"));
    assert_eq!(v4, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 80]);
}
