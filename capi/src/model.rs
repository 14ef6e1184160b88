//! Models: parsed in the caller's memory, borrowing the file's bytes.

use core::ffi::{c_char, c_void};

use engine::{Model, ModelParts};

use crate::error::{Failure, reported, vitlet_error};
use crate::pointers::{copy_text, elements, memory, shared, store};
#[cfg(feature = "std")]
use crate::status::vitlet_status as Status;
use crate::status::{status, vitlet_status};
use crate::versions::{self, Versioned};

/// A model: weights and labels, read only. Any number of sessions on any threads may use one at the same time.
pub struct vitlet_model {
    parts: ModelParts,
    /// The file's bytes, the caller's or mapped.
    file: *const u8,
    file_bytes: usize,
    /// Keeps the file mapped.
    #[cfg(feature = "std")]
    _map: Option<memmap2::Mmap>,
}

impl vitlet_model {
    fn new(bytes: &[u8], #[cfg(feature = "std")] map: Option<memmap2::Mmap>) -> Result<Self, Failure> {
        Ok(Self {
            parts: Model::parse(bytes)?.parts(),
            file: bytes.as_ptr(),
            file_bytes: bytes.len(),
            #[cfg(feature = "std")]
            _map: map,
        })
    }

    /// Reads a byte of each page, so that the system has all of the file in memory.
    ///
    /// # Safety
    /// The file's bytes are there.
    pub(crate) unsafe fn prefault(&self) {
        /// The smallest page of any system.
        const PAGE: usize = 4096;
        for at in (0..self.file_bytes).step_by(PAGE) {
            // SAFETY: within the file; the caller's promise.
            unsafe { self.file.add(at).read_volatile() };
        }
    }

    /// # Safety
    /// The file's bytes are there, as they were when it was parsed.
    pub(crate) unsafe fn model(&self) -> Result<Model<'_>, Failure> {
        // SAFETY: the caller's promise.
        Ok(self.parts.model(unsafe { elements(self.file, self.file_bytes) }?)?)
    }
}

/// The sizes of a network's input and outputs.
#[repr(C)]
pub struct vitlet_model_info {
    /// Set it before the call: sizeof(vitlet_model_info), or 0 for the fields of version 1. The call fills that much.
    pub size: usize,
    /// Pixels per row of the network's input; pictures of any size are resized to it.
    pub input_width: u32,
    /// Rows of the network's input.
    pub input_height: u32,
    /// Number of logits; 0 if the network has no head, so that its first output is the features.
    pub classes: usize,
    /// Length of the pooled features, before the head.
    pub features: usize,
    /// Number of patch tokens.
    pub patches: usize,
    /// Length of one token.
    pub dim: usize,
}

// SAFETY: numbers, the size first; a multiple of their alignment.
unsafe impl Versioned for vitlet_model_info {}

/// Size of the memory for a model, in bytes; its address must be a multiple of VITLET_ALIGNMENT. (The weights stay
/// where the file's bytes are.)
pub const VITLET_MODEL_BYTES: usize = 1024;
const _: () = assert!(size_of::<vitlet_model>() <= VITLET_MODEL_BYTES);

/// VITLET_MODEL_BYTES, for hosts that do not read this header.
#[unsafe(no_mangle)]
pub extern "C" fn vitlet_model_bytes() -> usize {
    VITLET_MODEL_BYTES
}

/// Checks the bytes of a model file and makes a model in `memory`. The addresses of both must be multiples of
/// VITLET_ALIGNMENT. The file's bytes must stay unchanged as long as the model is used. Nothing has to be closed.
/// `error` may be NULL.
///
/// # Safety
/// `file` has `file_bytes` bytes, which stay unchanged as long as the model is used; `memory` has
/// `memory_bytes`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vitlet_model_parse(
    memory: *mut c_void,
    memory_bytes: usize,
    file: *const c_void,
    file_bytes: usize,
    model: *mut *mut vitlet_model,
    error: *mut vitlet_error,
) -> vitlet_status {
    // SAFETY: the caller's promises.
    unsafe {
        reported(error, || {
            let bytes = elements(file.cast(), file_bytes)?;
            let parsed = vitlet_model::new(
                bytes,
                #[cfg(feature = "std")]
                None,
            )?;
            place(memory, memory_bytes, model, parsed)
        })
    }
}

/// Maps a model file, checks it, and makes a model in `memory`; vitlet_model_close() unmaps the file. Pages may have
/// any size. The file must not change while it is mapped: if it is cut short, the process gets SIGBUS. To replace it,
/// rename another file over it. `error` may be NULL. Libraries that are built without std lack this function.
///
/// # Safety
/// `memory` has `memory_bytes` bytes, `path` ends with a NUL.
#[cfg(feature = "std")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vitlet_model_open(
    memory: *mut c_void,
    memory_bytes: usize,
    path: *const c_char,
    model: *mut *mut vitlet_model,
    error: *mut vitlet_error,
) -> vitlet_status {
    // SAFETY: the caller's promises; the map is part of the model that borrows from it, and unmapped after it.
    unsafe {
        reported(error, || {
            if path.is_null() {
                return Err(Status::Null.into());
            }
            let map = map(as_path(path)?).map_err(|e| unreadable(&e))?;
            let bytes = elements(map.as_ptr(), map.len())?;
            place(memory, memory_bytes, model, vitlet_model::new(bytes, Some(map))?)
        })
    }
}

/// # Safety
/// The file does not change while it is mapped.
#[cfg(feature = "std")]
unsafe fn map(path: &std::path::Path) -> std::io::Result<memmap2::Mmap> {
    let file = std::fs::File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(std::io::ErrorKind::IsADirectory.into());
    }
    // SAFETY: the caller's promise.
    unsafe { memmap2::Mmap::map(&file) }
}

/// In words of this library: the system's would have to be allocated.
#[cfg(feature = "std")]
fn unreadable(error: &std::io::Error) -> Failure {
    use std::io::ErrorKind;
    let why = match error.kind() {
        ErrorKind::NotFound => "No such file or directory",
        ErrorKind::PermissionDenied => "the file may not be read: permission denied",
        ErrorKind::IsADirectory => "a directory, not a file",
        _ => return Failure::System(Status::File, "the file cannot be opened or mapped", error.raw_os_error()),
    };
    Failure::Because(Status::File, why)
}

/// Paths are bytes on Unix; elsewhere they are UTF-8.
///
/// # Safety
/// `path` ends with a NUL.
#[cfg(feature = "std")]
unsafe fn as_path<'a>(path: *const c_char) -> Result<&'a std::path::Path, Status> {
    // SAFETY: the caller's promise.
    let path = unsafe { core::ffi::CStr::from_ptr(path) };
    #[cfg(unix)]
    return Ok(std::path::Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(path.to_bytes())));
    #[cfg(not(unix))]
    return path.to_str().map(std::path::Path::new).map_err(|_| Status::File);
}

/// # Safety
/// `at` has `bytes` bytes that are nobody else's.
unsafe fn place(
    at: *mut c_void,
    bytes: usize,
    handle: *mut *mut vitlet_model,
    model: vitlet_model,
) -> Result<(), Failure> {
    crate::pointers::check(handle)?;
    // SAFETY: the memory is aligned, large enough and the caller's to give.
    unsafe {
        let start = memory(at, bytes, VITLET_MODEL_BYTES)?.as_mut_ptr().cast::<vitlet_model>();
        start.write(model);
        Ok(store(handle, start)?)
    }
}

/// Unmaps the file of a model that vitlet_model_open() made. No session may use the model any more, and its memory is
/// the caller's again. NULL is allowed.
///
/// # Safety
/// `model` is NULL or a model that is not closed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vitlet_model_close(model: *mut vitlet_model) {
    if crate::pointers::check(model).is_ok() {
        // SAFETY: the caller's promise: a model, dropped once.
        unsafe { model.drop_in_place() };
    }
}

/// Fills `info` with the sizes of the network's input and outputs.
///
/// # Safety
/// `model` is a model; `info.size` is set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vitlet_model_describe(
    model: *const vitlet_model,
    info: *mut vitlet_model_info,
) -> vitlet_status {
    status(|| {
        // SAFETY: the caller's promises.
        let model = unsafe { shared(model)?.model()? };
        let config = model.config();
        let described = vitlet_model_info {
            size: size_of::<vitlet_model_info>(),
            input_width: config.image_width as u32,
            input_height: config.image_height as u32,
            classes: config.classes,
            features: config.features(),
            patches: config.patches(),
            dim: config.dim,
        };
        // SAFETY: as above.
        unsafe { versions::fill(info, &described) }
    })
}

/// What the numbers of a depth output are.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum vitlet_depth {
    /// The network has no depth head.
    None = 0,
    /// Distances in metres.
    Metres,
    /// Inverse distances up to a scale and a shift of the picture: larger is nearer.
    Inverse,
}

/// What VITLET_OUTPUT_DEPTH of a network means; VITLET_DEPTH_NONE also for NULL.
///
/// # Safety
/// `model` is a model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vitlet_model_depth(model: *const vitlet_model) -> vitlet_depth {
    // SAFETY: the caller's promise.
    let model = unsafe { shared(model).ok().and_then(|model| model.model().ok()) };
    match model.and_then(|model| model.config().head.depth().map(|depth| depth.metric)) {
        None => vitlet_depth::None,
        Some(true) => vitlet_depth::Metres,
        Some(false) => vitlet_depth::Inverse,
    }
}

/// The size of the network's input that the checkpoint's own code takes for a picture of `width` x `height` pixels, for
/// vitlet_options.input_width and vitlet_options.input_height. Depth models follow the aspect ratio of the picture; for
/// all others it is the model's own size. A picture that is turned by a quarter has its edges swapped.
///
/// # Safety
/// `model` is a model; `input_width` and `input_height` have room for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vitlet_model_input_size(
    model: *const vitlet_model,
    width: u32,
    height: u32,
    input_width: *mut u32,
    input_height: *mut u32,
) -> vitlet_status {
    status(|| {
        // SAFETY: the caller's promises.
        unsafe {
            crate::pointers::check(input_width)?;
            crate::pointers::check(input_height)?;
            let size = shared(model)?.model()?.preprocess().size_for((height, width));
            store(input_height, size.0)?;
            Ok(store(input_width, size.1)?)
        }
    })
}

/// Copies the label of class `index`, in UTF-8, into `buffer` as snprintf() does: cut to `buffer_bytes`, with a NUL at
/// its end. Returns the length of the whole label in bytes, without the NUL, or 0 if there is no label. `buffer` may be
/// NULL.
///
/// # Safety
/// `model` is a model, `buffer` has `buffer_bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vitlet_model_label(
    model: *const vitlet_model,
    index: usize,
    buffer: *mut c_char,
    buffer_bytes: usize,
) -> usize {
    // SAFETY: the caller's promises.
    unsafe {
        let label = shared(model).ok().and_then(|model| model.model().ok()?.label(index));
        copy_text(label.unwrap_or(""), buffer, buffer_bytes)
    }
}

/// Copies the model's name, like vitlet_model_label().
///
/// # Safety
/// As vitlet_model_label().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vitlet_model_name(
    model: *const vitlet_model,
    buffer: *mut c_char,
    buffer_bytes: usize,
) -> usize {
    // SAFETY: the caller's promises.
    unsafe {
        let name = shared(model).ok().and_then(|model| model.model().ok()?.name());
        copy_text(name.unwrap_or(""), buffer, buffer_bytes)
    }
}
