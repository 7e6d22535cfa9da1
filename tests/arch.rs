//! The rules of the architecture, held by reading the source.
#![expect(clippy::unwrap_used, reason = "a test that cannot read the source must fail")]
use std::fs;
use std::path::{Path, PathBuf};

/// A file longer than this is several files.
const MAX_LINES: usize = 900;

fn files(root: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn sources(below: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(below), &mut found);
    found.sort();
    found.retain(|path| path.extension().is_some_and(|e| e == "rs" || e == "c" || e == "h"));
    found.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The modules of this crate that a source text names: `crate::api::x` gives `api`; braces are followed.
fn used_modules(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut used = Vec::new();
    for after in code.split("crate::").skip(1) {
        if let Some(group) = after.strip_prefix('{') {
            let group = group.split('}').next().unwrap_or("");
            used.extend(group.split(',').map(|part| first_word(part.trim())));
        } else {
            used.push(first_word(after));
        }
    }
    used
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn server_of(path: &Path) -> Option<String> {
    let mut parts = path.components().map(|part| part.as_os_str().to_string_lossy().into_owned());
    parts.find(|part| part == "server")?;
    Some(parts.next()?.trim_end_matches(".rs").to_owned())
}

#[test]
fn the_kernel_knows_nothing_of_the_rest() {
    let mut lines = 0;
    for (path, text) in sources("src/kernel") {
        assert!(
            used_modules(&text).iter().all(|m| m == "kernel"),
            "{}: imports more",
            path.display()
        );
        if !path.ends_with("tests.rs") {
            lines += text.lines().count();
        }
        let words: Vec<String> = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .flat_map(|line| line.split(|c: char| !c.is_alphanumeric()))
            .map(str::to_lowercase)
            .collect();
        for word in ["http", "kubernetes", "ingress", "bpf", "tls", "vrrp", "arp"] {
            assert!(!words.iter().any(|w| w == word), "{} speaks of {word}", path.display());
        }
    }
    assert!((100..3000).contains(&lines), "{lines} lines");
}

#[test]
fn servers_see_kernel_api_and_proto_only_and_never_each_other() {
    let mut seen = 0;
    for (path, text) in sources("src/server") {
        let Some(server) = server_of(&path).filter(|server| server != "mod") else { continue };
        seen += 1;
        // Their connections are tasks on the loop, so these two hold sockets.
        let sockets = ["proxy", "admin"].contains(&server.as_str());
        // What they decide is about what an API server has: its JSON, Leases and Events, never its connections.
        let kubernetes = ["kube", "publish"].contains(&server.as_str());
        for module in used_modules(&text) {
            let allowed = ["kernel", "api", "proto", "arrange"].contains(&module.as_str())
                || kubernetes && module == "kube_lite"
                || sockets && module == "io"
                || module == "server";
            assert!(allowed, "{} uses crate::{module}", path.display());
        }
        for other in text.split("crate::server::").skip(1).map(first_word) {
            assert_eq!(other, server, "{} uses another server", path.display());
        }
    }
    assert!(seen > 10, "only {seen} files found");
}

#[test]
fn codecs_and_messages_do_not_reach_upwards() {
    for (below, allowed) in
        [("src/proto", &["proto", "api", "arrange"][..]), ("src/api", &["api", "kernel"])]
    {
        for (path, text) in sources(below) {
            for module in used_modules(&text) {
                assert!(
                    allowed.contains(&module.as_str()),
                    "{} uses crate::{module}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn unsafe_code_is_in_io_only_and_says_why_it_is_sound() {
    for (path, text) in sources("src") {
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            if !code.contains("unsafe {") && !code.contains("unsafe impl") {
                continue;
            }
            assert!(
                path.components().any(|c| c.as_os_str() == "io"),
                "{}:{}",
                path.display(),
                at + 1
            );
            let said = lines[at.saturating_sub(12)..=at].iter().any(|line| line.contains("SAFETY"));
            assert!(said, "{}:{}: no SAFETY comment", path.display(), at + 1);
        }
    }
}

#[test]
fn no_file_is_too_long_and_none_has_an_empty_name() {
    for below in ["src", "tests", "bpf"] {
        for (path, text) in sources(below) {
            let lines = text.lines().count();
            assert!(lines <= MAX_LINES, "{}: {lines} lines", path.display());
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            for vague in ["utils", "util", "helper", "helpers", "manager", "misc", "common_utils"] {
                assert_ne!(name, vague, "{}", path.display());
            }
        }
    }
}

#[test]
fn main_stays_small() {
    let main =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/main.rs")).unwrap();
    let lines = main.lines().count();
    assert!(lines < 150, "{lines} lines: main.rs is the wiring and nothing else");
}

#[test]
fn every_server_runs_on_one_of_the_two_threads() {
    use pilus::api::wiring::{EFFECTS, OBJECTS};
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/message.rs");
    let text = fs::read_to_string(path).unwrap();
    let numbers = text
        .lines()
        .filter_map(|line| line.split_once(": ServerId = ServerId(")?.1.strip_suffix(");"));
    let mut named: Vec<u8> = numbers.map(|number| number.parse().unwrap()).collect();
    named.sort_unstable();
    let mut placed: Vec<u8> = EFFECTS.iter().chain(OBJECTS).map(|id| id.0).collect();
    placed.sort_unstable();
    assert!(named.len() > 10);
    assert_eq!(named, placed);
}
