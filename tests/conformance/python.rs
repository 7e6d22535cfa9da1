//! The Python interpreter with the packages the peers need.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Installed by `scripts/tools` when it is not there yet; fails the test if it cannot be.
pub(crate) fn interpreter() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("peers");
        let status = Command::new("bash")
            .current_dir(root)
            .args(["-c", "set -euo pipefail; . scripts/tools; need_peers \"$1\"", "tests"])
            .arg(&target)
            .status()
            .unwrap();
        assert!(status.success(), "the Python packages of the peers cannot be installed");
        target.join("bin/python")
    })
}
