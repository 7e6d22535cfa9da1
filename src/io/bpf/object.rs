//! From the built-in object file to maps and loaded programs.

use crate::arrange::Arrange;
use std::collections::HashSet;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, SockMap};

use super::ProgramCost;
use super::abi::{AddressKey, AddressValue, SteerKey};
use super::error::BpfError;
use super::sys::{self, MapShape};

/// The object file, compiled from `bpf/` by `scripts/bpf-build`.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../bpf/pilus.bpf.o");

/// Size of one BPF instruction in bytes.
const INSTRUCTION_SIZE: u32 = 8;

/// A program in the kernel. It lives as long as a link or filter holds it, or this value.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) name: &'static str,
    pub(super) fd: OwnedFd,
}

// === impl Program ===

impl Program {
    /// What it costs the kernel.
    pub(super) fn cost(&self) -> Result<ProgramCost, BpfError> {
        let info = sys::prog_info(self.fd.as_fd())
            .map_err(|e| BpfError::system(format!("reading about {}", self.name), e))?;
        Ok(ProgramCost {
            name: self.name,
            instructions: info.xlated_len / INSTRUCTION_SIZE,
            verified: info.verified_insns,
            gpl: info.bits & 1 != 0,
        })
    }
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
    let programs = [
        ("l2_announce", sys::PROG_TYPE_SCHED_CLS, 0),
        ("steer", sys::PROG_TYPE_SK_LOOKUP, sys::ATTACH_SK_LOOKUP),
    ];
    let (mut maps, [l2_announce, steer]) = load_object(OBJECT, dir, &|_| None, programs)?;
    let mut take = |wanted: &str| MapData::from_fd(take_map(&mut maps, wanted)?.0).map_err(broken);
    let maps = Maps {
        addresses: Map::HashMap(take("addresses")?).try_into().map_err(broken)?,
        liveness: Map::Array(take("liveness")?).try_into().map_err(broken)?,
        counters: Map::PerCpuArray(take("counters")?).try_into().map_err(broken)?,
        steering: Map::HashMap(take("steering")?).try_into().map_err(broken)?,
        sockets: Map::SockMap(take("sockets")?).try_into().map_err(broken)?,
    };
    Ok(Loaded { maps, l2_announce, steer })
}

/// The maps of an object file by name, and how they are laid out.
pub(super) type NamedMaps = Vec<(String, OwnedFd, MapShape)>;

/// Takes one of them.
pub(super) fn take_map(maps: &mut NamedMaps, name: &str) -> Result<(OwnedFd, MapShape), BpfError> {
    let at = maps.iter().position(|(found, ..)| found == name);
    let at = at.ok_or_else(|| broken(format!("map {name} is missing")))?;
    let (_, fd, shape) = maps.swap_remove(at);
    Ok((fd, shape))
}

/// Loads an object file. `size` may say that a map is to have another number of entries than the file says; one
/// that is pinned keeps its own.
pub(super) fn load_object<const N: usize>(
    file: &[u8],
    dir: &Path,
    size: &dyn Fn(&str) -> Option<u32>,
    programs: [(&'static str, u32, u32); N],
) -> Result<(NamedMaps, [Program; N]), BpfError> {
    let mut object = aya_obj::Object::parse(file).map_err(broken)?;
    let mut definitions: Vec<_> = object.maps.drain().collect();
    // Always the same first one, so that what fails again is the same complaint, with the same "since".
    definitions.arrange_by(|(a, _), (b, _)| a.cmp(b));
    let mut maps = Vec::new();
    for (name, definition) in definitions {
        let (fd, shape) = open_map(dir, &name, &definition, size(&name))?;
        maps.push((name, definition, fd, shape));
    }
    object
        .relocate_maps(
            maps.iter()
                .map(|(name, definition, fd, _)| (name.as_str(), fd.as_raw_fd(), definition)),
            &HashSet::new(),
        )
        .map_err(broken)?;
    let mut loaded = Vec::new();
    for (name, kind, attach) in programs {
        loaded.push(load_program(&object, name, kind, attach)?);
    }
    let maps = maps.into_iter().map(|(name, _, fd, shape)| (name, fd, shape)).collect();
    let loaded = loaded.try_into().map_err(|_| broken("programs are missing"))?;
    Ok((maps, loaded))
}

/// How often a map is looked for that another thread makes at the same time.
const OPEN_ATTEMPTS: usize = 3;

fn open_map(
    dir: &Path,
    name: &str,
    definition: &aya_obj::Map,
    size: Option<u32>,
) -> Result<(OwnedFd, MapShape), BpfError> {
    let mut shape = MapShape {
        kind: definition.map_type(),
        key_size: definition.key_size(),
        value_size: definition.value_size(),
        max_entries: size.unwrap_or(definition.max_entries()),
        flags: definition.map_flags(),
    };
    let path = dir.join(name);
    let shown = path.display();
    for _ in 0..OPEN_ATTEMPTS {
        match sys::obj_get(&path) {
            Ok(fd) => {
                let pinned = sys::map_shape(fd.as_fd())
                    .map_err(|e| BpfError::system(format!("reading the layout of {shown}"), e))?;
                if size.is_some() {
                    shape.max_entries = pinned.max_entries;
                }
                if pinned == shape {
                    return Ok((fd, shape));
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
        match sys::obj_pin(fd.as_fd(), &path) {
            Ok(()) => return Ok((fd, shape)),
            // Two threads load programs that share it.
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {}
            Err(e) => return Err(BpfError::system(format!("pinning BPF map {shown}"), e)),
        }
    }
    Err(broken(format!("map {name} is made and removed again and again")))
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
