//! From the built-in object file to maps and loaded programs.

use crate::arrange::Arrange;
use std::collections::HashSet;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, SockMap};

use super::abi::{AddressKey, AddressValue, SteerKey};
use super::error::BpfError;
use super::sys::{self, MapShape};

/// The object file, compiled from `bpf/` by `scripts/bpf-build`.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../bpf/pilus.bpf.o");

/// A program in the kernel. It lives as long as a link or filter holds it, or this value.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) name: &'static str,
    pub(super) fd: OwnedFd,
}

/// Everything the object file holds, in the kernel.
pub(super) struct Loaded {
    pub(super) maps: Maps,
    pub(super) l2_announce: Program,
    pub(super) steer: Program,
}

/// The maps by name.
pub(super) struct Maps {
    pub(super) addresses: HashMap<MapData, AddressKey, AddressValue>,
    pub(super) liveness: Array<MapData, u64>,
    pub(super) counters: PerCpuArray<MapData, u64>,
    pub(super) steering: HashMap<MapData, SteerKey, u32>,
    pub(super) sockets: SockMap<MapData>,
}

/// The names under `maps/` of the BPF root.
pub(super) const MAP_NAMES: [&str; 5] =
    ["addresses", "liveness", "counters", "steering", "sockets"];

fn broken(reason: impl ToString) -> BpfError {
    BpfError::Object { reason: reason.to_string() }
}

/// Opens the maps pinned in `dir`, creates and pins those that are missing or of another layout,
/// and loads the programs on them.
pub(super) fn load(dir: &Path) -> Result<Loaded, BpfError> {
    let mut object = aya_obj::Object::parse(OBJECT).map_err(broken)?;
    let mut definitions: Vec<_> = object.maps.drain().collect();
    // Always the same first one, so that what fails again is the same complaint, with the same "since".
    definitions.arrange_by(|(a, _), (b, _)| a.cmp(b));
    let mut maps = Vec::new();
    for (name, definition) in definitions {
        let fd = open_map(dir, &name, &definition)?;
        maps.push((name, definition, fd));
    }
    object
        .relocate_maps(
            maps.iter().map(|(name, definition, fd)| (name.as_str(), fd.as_raw_fd(), definition)),
            &HashSet::new(),
        )
        .map_err(broken)?;
    let l2_announce = load_program(&object, "l2_announce", sys::PROG_TYPE_SCHED_CLS, 0)?;
    let steer = load_program(&object, "steer", sys::PROG_TYPE_SK_LOOKUP, sys::ATTACH_SK_LOOKUP)?;
    let mut take = |wanted: &str| {
        let at = maps.iter().position(|(name, ..)| name == wanted);
        let at = at.ok_or_else(|| broken(format!("map {wanted} is missing")))?;
        MapData::from_fd(maps.swap_remove(at).2).map_err(broken)
    };
    let maps = Maps {
        addresses: Map::HashMap(take("addresses")?).try_into().map_err(broken)?,
        liveness: Map::Array(take("liveness")?).try_into().map_err(broken)?,
        counters: Map::PerCpuArray(take("counters")?).try_into().map_err(broken)?,
        steering: Map::HashMap(take("steering")?).try_into().map_err(broken)?,
        sockets: Map::SockMap(take("sockets")?).try_into().map_err(broken)?,
    };
    Ok(Loaded { maps, l2_announce, steer })
}

fn open_map(dir: &Path, name: &str, definition: &aya_obj::Map) -> Result<OwnedFd, BpfError> {
    let shape = MapShape {
        kind: definition.map_type(),
        key_size: definition.key_size(),
        value_size: definition.value_size(),
        max_entries: definition.max_entries(),
        flags: definition.map_flags(),
    };
    let path = dir.join(name);
    let shown = path.display();
    match sys::obj_get(&path) {
        Ok(fd) => {
            let pinned = sys::map_shape(fd.as_fd())
                .map_err(|e| BpfError::system(format!("reading the layout of {shown}"), e))?;
            if pinned == shape {
                return Ok(fd);
            }
            log::warn!(
                "pinned map {shown} has another layout ({pinned:?}, this version wants {shape:?}): \
                 creating it anew"
            );
            std::fs::remove_file(&path)
                .map_err(|e| BpfError::system(format!("removing {shown}"), e))?;
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(BpfError::system(format!("opening pinned map {shown}"), e)),
    }
    let fd = sys::map_create(name, shape)
        .map_err(|e| BpfError::system(format!("creating BPF map {name}"), e))?;
    sys::obj_pin(fd.as_fd(), &path)
        .map_err(|e| BpfError::system(format!("pinning BPF map {shown}"), e))?;
    Ok(fd)
}

fn load_program(
    object: &aya_obj::Object,
    name: &'static str,
    kind: u32,
    attach: u32,
) -> Result<Program, BpfError> {
    let program =
        object.programs.get(name).ok_or_else(|| broken(format!("program {name} is missing")))?;
    let function = object
        .functions
        .get(&program.function_key())
        .ok_or_else(|| broken(format!("program {name} has no code")))?;
    sys::prog_load(name, kind, attach, &function.instructions, &program.license)
        .map(|fd| Program { name, fd })
        .map_err(|(source, log)| match BpfError::system(format!("loading {name}"), source) {
            BpfError::System { source, .. } => BpfError::Refused { program: name, source, log },
            other if log.is_empty() => other,
            // The verifier itself says EACCES when it refuses a program.
            _ => BpfError::Refused {
                program: name,
                source: std::io::Error::from_raw_os_error(libc::EACCES),
                log,
            },
        })
}
