//! Model and picture: the files that the firmware loaded beside the image, or the built-in ones.
//!
//! `initramfs files.tar 0x08000000` in config.txt makes the firmware load a file and note its place in the device tree,
//! as for Linux. That file is a tar archive (its files begin at multiples of 512 bytes, so a model can be read in
//! place): `tar cf files.tar model.gguf picture.jpg`. What ends in `.gguf` is the model, any other file the picture.

use core::slice;

use dtoolkit::fdt::Fdt;
use dtoolkit::{Node, Property};
use tar_no_std::TarArchiveRef;

use crate::console::println;

/// Where initramfs and device tree may be: mapped, and not the heap.
const WINDOW: core::ops::Range<usize> = crate::heap::END..0x1800_0000;

/// A file, and what to call it.
#[derive(Clone, Copy)]
pub struct File {
    /// Its bytes.
    pub bytes: &'static [u8],
    /// "built in" or "initramfs".
    pub origin: &'static str,
}

/// What is to be classified by what.
pub struct Files {
    /// A model file on a 64-byte boundary.
    pub model: File,
    /// A JPEG or PPM.
    pub picture: File,
}

impl Files {
    /// The initramfs's files, if the device tree names one, and the built-in ones for what it lacks.
    pub fn find(device_tree: usize) -> Self {
        let mut files = Self {
            model: File { bytes: vitlet_models::MODEL, origin: "built in" },
            picture: File { bytes: vitlet_models::pictures::CHELSEA, origin: "built in" },
        };
        let Some(initramfs) = device_tree_at(device_tree).and_then(initramfs) else { return files };
        let Ok(archive) = TarArchiveRef::new(initramfs) else {
            println!("files    the initramfs is no tar archive: the built-in files are used");
            return files;
        };
        for entry in archive.entries() {
            let file = File { bytes: entry.data(), origin: "initramfs" };
            match entry.filename().as_str() {
                Ok(name) if name.ends_with(".gguf") => files.model = file,
                _ => files.picture = file,
            }
        }
        files
    }
}

/// `len` bytes at `start`, if they lie where the firmware may put files.
fn window(start: usize, len: usize) -> Option<&'static [u8]> {
    let end = start.checked_add(len)?;
    if start < WINDOW.start || end > WINDOW.end {
        return None;
    }
    // SAFETY: mapped memory that nothing in this image writes.
    Some(unsafe { slice::from_raw_parts(core::ptr::with_exposed_provenance(start), len) })
}

/// The device tree that the firmware has left at `start`. Other loaders leave something else there, or nothing.
fn device_tree_at(start: usize) -> Option<Fdt<'static>> {
    if start >= WINDOW.end {
        println!("files    the device tree at {start:#x} is not mapped: see device_tree_address in config.txt");
        return None;
    }
    let header = window(start, 8)?;
    let (magic, len) = (word(header, 0)?, word(header, 4)?);
    if magic != 0xd00d_feed {
        return None;
    }
    Fdt::new(window(start, len as usize)?).ok()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|&word| u32::from_be_bytes(word))
}

/// What `/chosen` says about the initramfs. Firmwares write the addresses in 4 or in 8 bytes.
fn initramfs(tree: Fdt<'static>) -> Option<&'static [u8]> {
    let chosen = tree.find_node("/chosen")?;
    let address = |name| {
        let property = chosen.property(name)?;
        let bytes = property.value();
        (bytes.len() <= 8).then(|| bytes.iter().fold(0, |n, &byte| n << 8 | usize::from(byte)))
    };
    let (start, end) = (address("linux,initrd-start")?, address("linux,initrd-end")?);
    let found = window(start, end.checked_sub(start)?);
    if found.is_none() {
        println!("files    the initramfs at {start:#x} is out of place: see initramfs in config.txt");
    }
    found
}
