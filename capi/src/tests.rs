//! The boundary: a mistake of C gives a status, and a right call gives the engine's result. (examples/c is
//! built and run by scripts/test_capi.sh.)

mod outputs;
mod pools;
mod versions;

use core::ffi::{c_char, c_void};
use core::ptr::{null, null_mut};
use std::string::String;
use std::vec;
use std::vec::Vec;

use engine::{Kernels, Model, Output, Picture, Plan, RunConfig, Sequential};

use crate::vitlet_status as Status;
use crate::*;

static FILE: &[u8] = vitlet_models::MODEL;

/// Memory at a multiple of 64.
struct Memory(Vec<engine::F32x16>);

impl Memory {
    fn new(bytes: usize) -> Self {
        Self(vec![engine::F32x16([f32::NAN; 16]); bytes.div_ceil(64)])
    }

    fn start(&mut self) -> *mut c_void {
        self.0.as_mut_ptr().cast()
    }
}

const NO_OPTIONS: vitlet_options = vitlet_options {
    size: 0,
    threads: 0,
    max_picture_width: 0,
    max_picture_height: 0,
    outputs: 0,
    input_width: 0,
    input_height: 0,
    prefault: 0,
    kernels: null(),
    executor: vitlet_executor { run: None, context: null_mut() },
    stop: null(),
};

const NO_POOL_OPTIONS: vitlet_pool_options = vitlet_pool_options {
    size: 0,
    threads: 0,
    spin_microseconds: 0,
    priority: 0,
    name: null(),
    cpus: null(),
    cpu_count: 0,
    stack_bytes: 0,
};

fn parse(memory: &mut Memory, file: &[u8]) -> Result<*mut vitlet_model, Status> {
    let mut model = null_mut();
    // SAFETY: memory and file are as long as said.
    match unsafe {
        vitlet_model_parse(
            memory.start(),
            vitlet_model_bytes(),
            file.as_ptr().cast(),
            file.len(),
            &mut model,
            null_mut(),
        )
    } {
        Status::Ok => Ok(model),
        status => Err(status),
    }
}

/// A model and a session.
struct Opened {
    _memory: [Memory; 2],
    model: *mut vitlet_model,
    session: *mut vitlet_session,
}

fn open(options: &vitlet_options) -> Result<Opened, Status> {
    let mut model_memory = Memory::new(vitlet_model_bytes());
    let model = parse(&mut model_memory, FILE)?;
    let (mut bytes, mut session) = (0, null_mut());
    // SAFETY: the model is one; the memory is as long as said.
    unsafe {
        match vitlet_session_bytes(model, options, &mut bytes, null_mut()) {
            Status::Ok => (),
            status => return Err(status),
        }
        let mut memory = Memory::new(bytes);
        match vitlet_session_open(model, options, memory.start(), bytes, &mut session, null_mut()) {
            Status::Ok => Ok(Opened { _memory: [model_memory, memory], model, session }),
            status => Err(status),
        }
    }
}

fn gray(pixels: &[u8], width: u32, height: u32) -> vitlet_picture {
    vitlet_picture {
        size: 0,
        format: vitlet_format::Gray8 as u32,
        width,
        height,
        planes: [pixels.as_ptr(), null(), null()],
        strides: [0; 3],
        region: vitlet_region { x: 0, y: 0, width: 0, height: 0 },
        rotation: 0,
        yuv: 0,
    }
}

fn run(opened: &Opened, picture: &vitlet_picture) -> Result<Vec<f32>, Status> {
    // SAFETY: the session is one; the picture has its pixels.
    match unsafe { vitlet_run_picture(opened.session, picture, null_mut()) } {
        Status::Ok => Ok(data(opened, 0).unwrap()),
        status => Err(status),
    }
}

/// Output `index` of the last run.
fn data(opened: &Opened, index: usize) -> Option<Vec<f32>> {
    let mut len = 77;
    // SAFETY: the session is one; the result is valid until the next run.
    unsafe {
        let start = vitlet_output_data(opened.session, index, &mut len);
        assert_eq!(start.is_null(), len == 0);
        (len > 0).then(|| core::slice::from_raw_parts(start, len).to_vec())
    }
}

/// For vitlet_output_info().
fn shape() -> vitlet_tensor_info {
    vitlet_tensor_info { size: 0, name: null(), output: 0, rank: 0, dims: [0; 4], elements: 0 }
}

/// What an error says.
fn text(error: &vitlet_error) -> &str {
    // SAFETY: the library ends its texts with a NUL.
    unsafe { core::ffi::CStr::from_ptr(error.text.as_ptr()) }.to_str().unwrap()
}

/// An error with other words in it.
fn stale() -> vitlet_error {
    vitlet_error { status: Status::Value, text: [b'#' as c_char; VITLET_ERROR_TEXT_BYTES] }
}

#[test]
fn results_are_the_engines() {
    let pixels: Vec<u8> = (0..70 * 50 * 3).map(|i| (i * 7) as u8).collect();
    let model = Model::parse(FILE).unwrap();
    for (bit, output) in [(1, Output::Logits), (2, Output::Features), (4, Output::Tokens)] {
        let plan = Plan::new(&model, &RunConfig::new(Kernels::detect()).outputs(&[output]), 1).unwrap();
        let mut scratch = Memory::new(plan.scratch_bytes());
        let mut session = plan.open(&model, &Sequential, engine::scratch_from(&mut scratch.0)).unwrap();
        let expected = session.run_picture(&Picture::rgb8(&pixels, 70, 50, 210)).unwrap().first().to_vec();

        let opened = open(&vitlet_options { outputs: bit, ..NO_OPTIONS }).unwrap();
        let picture = vitlet_picture { format: vitlet_format::Rgb8 as u32, ..gray(&pixels, 70, 50) };
        assert_eq!(run(&opened, &picture), Ok(expected.clone()), "{output:?}");
        // SAFETY: the session is one; the arrays have their lengths.
        unsafe {
            let mut tensor = vec![0.0; model.config().input_len()];
            let (session, len, none) = (opened.session, tensor.len(), null_mut());
            assert_eq!(vitlet_prepare_picture(session, &picture, tensor.as_mut_ptr(), len, none), Status::Ok);
            assert_eq!(data(&opened, 0), None, "no run, no results");
            assert_eq!(vitlet_run_tensor(session, tensor.as_ptr(), len, none), Status::Ok);
            assert_eq!(data(&opened, 0), Some(expected));
            assert_eq!(vitlet_run_tensor(session, tensor.as_ptr(), len - 1, none), Status::Length);
            assert_eq!(data(&opened, 0), None, "a failed run has none either");
            assert_eq!(vitlet_prepare_picture(session, &picture, tensor.as_mut_ptr(), len - 1, none), Status::Length);
        }
    }
}

#[test]
fn the_best_classes_have_the_engines_scores_and_labels() {
    let opened = open(&NO_OPTIONS).unwrap();
    let model = Model::parse(FILE).unwrap();
    let mut logits = run(&opened, &gray(&[90; 64 * 64], 64, 64)).unwrap();
    let mut guesses = [vitlet_guess { index: 77, logit: 0.0, probability: 0.0 }; 12];
    let mut count = 0;
    // SAFETY: the model is one; the arrays have their lengths.
    unsafe {
        let status = vitlet_top_k(opened.model, logits.as_ptr(), 10, guesses.as_mut_ptr(), GUESS, 12, &mut count);
        assert_eq!((status, count), (Status::Ok, 10), "fewer classes than asked for");
    }
    let expected = engine::top_k::<10>(&logits);
    engine::scores(&mut logits, model.config().scores);
    for (guess, (class, logit)) in guesses.iter().zip(expected) {
        assert_eq!(*guess, vitlet_guess { index: class, logit, probability: logits[class] });
    }
    let label = |index, room: usize| {
        let mut buffer = [b'#' as c_char; 32];
        // SAFETY: the model is one; the buffer has 32 bytes.
        let len = unsafe { vitlet_model_label(opened.model, index, buffer.as_mut_ptr(), room) };
        let text: String = buffer.iter().take_while(|c| **c != 0).map(|c| char::from(*c as u8)).collect();
        (len, text)
    };
    assert_eq!(label(1, 32), (10, "automobile".into()));
    assert_eq!(label(1, 5), (10, "auto".into()), "cut, with a NUL at its end");
    assert_eq!(label(10, 32), (0, String::new()));
    assert_eq!(label(1, 0).1.len(), 32, "no room, nothing written");
    // SAFETY: the model is one; no buffer.
    assert_eq!(unsafe { vitlet_model_label(opened.model, 1, null_mut(), 9) }, 10);
    let mut info =
        vitlet_model_info { size: 0, input_width: 0, input_height: 0, classes: 0, features: 0, patches: 0, dim: 0 };
    // SAFETY: the model is one.
    assert_eq!(unsafe { vitlet_model_describe(opened.model, &mut info) }, Status::Ok);
    assert_eq!((info.input_width, info.classes, info.dim), (model.config().image_width as u32, 10, 96));
}

/// Size of an array's element.
const GUESS: usize = size_of::<vitlet_guess>();

#[test]
fn nan_is_the_last_of_the_best_classes() {
    let opened = open(&NO_OPTIONS).unwrap();
    let best = |logits: &[f32]| {
        let mut guesses = [vitlet_guess { index: 77, logit: 0.0, probability: 0.0 }; 4];
        let mut count = 0;
        // SAFETY: the model is one; the arrays have their lengths.
        let status = unsafe {
            vitlet_top_k(opened.model, logits.as_ptr(), logits.len(), guesses.as_mut_ptr(), GUESS, 4, &mut count)
        };
        assert_eq!(status, Status::Ok);
        (guesses.map(|guess| guess.index), guesses[0].probability.is_nan(), count)
    };
    assert_eq!(best(&[f32::NAN, 1.0, 2.0, f32::NEG_INFINITY]), ([2, 1, 3, 0], true, 4));
    assert_eq!(best(&[f32::NAN; 3]), ([0, 1, 2, 77], true, 3), "as many as there are classes");
}

#[test]
fn null_pointers_are_statuses() {
    let opened = open(&NO_OPTIONS).unwrap();
    let (model, session) = (opened.model, opened.session);
    let picture = gray(&[0; 16], 4, 4);
    let mut memory = Memory::new(1 << 20);
    let (at, file, len) = (memory.start(), FILE.as_ptr().cast::<c_void>(), FILE.len());
    let (mut m, mut s, mut n, mut pool, none) = (null_mut(), null_mut(), 0, null_mut(), null_mut());
    let (mut edge, mut edge_too) = (0, 0);
    let mut floats = [0.0; 16];
    // SAFETY: pointers that are not null are valid.
    let statuses = unsafe {
        [
            vitlet_model_parse(null_mut(), 4096, file, len, &mut m, none),
            vitlet_model_parse(at, 4096, null(), len, &mut m, none),
            vitlet_model_parse(at, 4096, file, len, null_mut(), none),
            vitlet_model_open(at, 4096, null(), &mut m, none),
            vitlet_model_describe(null(), null_mut()),
            vitlet_model_describe(model, null_mut()),
            vitlet_session_bytes(null(), &NO_OPTIONS, &mut n, none),
            vitlet_session_bytes(model, null(), &mut n, none),
            vitlet_session_bytes(model, &NO_OPTIONS, null_mut(), none),
            vitlet_session_open(null(), &NO_OPTIONS, at, 1 << 20, &mut s, none),
            vitlet_session_open(model, null(), at, 1 << 20, &mut s, none),
            vitlet_session_open(model, &NO_OPTIONS, null_mut(), 1 << 20, &mut s, none),
            vitlet_session_open(model, &NO_OPTIONS, at, 1 << 20, null_mut(), none),
            vitlet_run_picture(null_mut(), &picture, none),
            vitlet_run_picture(session, null(), none),
            vitlet_run_picture(session, &gray_without_pixels(), none),
            vitlet_run_tensor(null_mut(), floats.as_ptr(), 16, none),
            vitlet_run_tensor(session, null(), 16, none),
            vitlet_prepare_picture(null_mut(), &picture, floats.as_mut_ptr(), 16, none),
            vitlet_prepare_picture(session, null(), floats.as_mut_ptr(), 16, none),
            vitlet_prepare_picture(session, &picture, null_mut(), 16, none),
            vitlet_top_k(null(), floats.as_ptr(), 16, null_mut(), GUESS, 0, &mut n),
            vitlet_top_k(model, null(), 16, null_mut(), GUESS, 0, &mut n),
            vitlet_top_k(model, floats.as_ptr(), 16, null_mut(), GUESS, 1, &mut n),
            vitlet_pool_start(&NO_POOL_OPTIONS, null_mut(), none),
            vitlet_pool_start(null(), &mut pool, none),
            vitlet_output_info(null(), 0, &mut shape()),
            vitlet_model_input_size(null(), 1, 1, &mut edge, &mut edge_too),
            vitlet_model_input_size(model, 1, 1, null_mut(), &mut edge_too),
            vitlet_model_input_size(model, 1, 1, &mut edge, null_mut()),
            vitlet_output_info(session, 0, null_mut()),
        ]
    };
    for (i, status) in statuses.into_iter().enumerate() {
        assert_eq!(status, Status::Null, "call {i}");
    }
    // SAFETY: nothing is closed, stopped or named where nothing is.
    unsafe {
        vitlet_model_close(null_mut());
        vitlet_pool_stop(null_mut());
        assert_eq!(vitlet_model_name(null(), null_mut(), 0), 0);
        assert_eq!(vitlet_session_kernels(null(), null_mut(), 0), 0);
        assert_eq!((vitlet_model_depth(null()), vitlet_model_depth(model)), (vitlet_depth::None, vitlet_depth::None));
        // A classifier's own size, whatever the picture's.
        assert_eq!(vitlet_model_input_size(model, 640, 480, &mut edge, &mut edge_too), Status::Ok);
        assert_eq!((edge, edge_too), (32, 32));
        assert_eq!(vitlet_digest(null(), 3), 0);
        assert_eq!(vitlet_output_count(null()), 0);
        assert_eq!(vitlet_output_data(null(), 0, &mut n), null());
        assert_eq!(n, 0);
        vitlet_stop_set(null_mut(), true);
    }
    // The length may be null, and a pool that is not there is the calling thread.
    // SAFETY: all other arguments are valid.
    unsafe {
        assert_eq!(vitlet_run_picture(session, &picture, none), Status::Ok);
        assert!(!vitlet_output_data(session, 0, null_mut()).is_null());
        assert!(vitlet_pool_executor(null_mut()).run.is_none());
    }
}

fn gray_without_pixels() -> vitlet_picture {
    vitlet_picture { planes: [null(); 3], ..gray(&[], 4, 4) }
}

#[test]
fn misaligned_pointers_are_statuses() {
    let opened = open(&NO_OPTIONS).unwrap();
    let picture = gray(&[0; 16], 4, 4);
    let mut memory = Memory::new(4 << 20);
    let (mut m, mut s, mut n, none) = (null_mut(), null_mut(), 0, null_mut());
    let mut floats = [0.0; 4000];
    let mut error = stale();
    let odd = |pointer: *mut c_void| pointer.wrapping_byte_add(1);
    let at = memory.start();
    // SAFETY: misaligned pointers lead nowhere else than into memory that is there.
    let statuses = unsafe {
        [
            vitlet_model_parse(at.wrapping_byte_add(8), 4096, FILE.as_ptr().cast(), FILE.len(), &mut m, none),
            vitlet_model_parse(at, 4096, FILE.as_ptr().cast(), FILE.len(), odd((&raw mut m).cast()).cast(), none),
            vitlet_session_open(opened.model, &NO_OPTIONS, at.wrapping_byte_add(32), 4 << 20, &mut s, none),
            vitlet_session_bytes(odd(opened.model.cast()).cast(), &NO_OPTIONS, &mut n, none),
            vitlet_session_bytes(opened.model, &NO_OPTIONS, odd((&raw mut n).cast()).cast(), none),
            vitlet_session_bytes(opened.model, &NO_OPTIONS, &mut n, odd((&raw mut error).cast()).cast()),
            vitlet_run_picture(odd(opened.session.cast()).cast(), &picture, none),
            vitlet_run_picture(opened.session, odd((&raw const picture).cast_mut().cast()).cast(), none),
            vitlet_run_tensor(opened.session, odd(floats.as_mut_ptr().cast()).cast(), 3072, none),
            vitlet_prepare_picture(opened.session, &picture, odd(floats.as_mut_ptr().cast()).cast(), 3072, none),
        ]
    };
    for (i, status) in statuses.into_iter().enumerate() {
        assert_eq!(status, Status::Misaligned, "call {i}");
    }
    let mut copy = Memory::new(FILE.len() + 64);
    // SAFETY: a copy of the file within memory that is large enough.
    unsafe {
        let inside = copy.start().wrapping_byte_add(4).cast::<u8>();
        inside.copy_from_nonoverlapping(FILE.as_ptr(), FILE.len());
        assert_eq!(vitlet_model_parse(at, 4096, inside.cast(), FILE.len(), &mut m, none), Status::Misaligned);
    }
}

#[test]
fn broken_arguments_are_statuses() {
    let mut memory = Memory::new(vitlet_model_bytes());
    assert_eq!(parse(&mut memory, &FILE[..FILE.len() - 1]), Err(Status::Truncated));
    assert_eq!(parse(&mut memory, &FILE[..0]), Err(Status::NotGguf), "no bytes at all");
    assert_eq!(parse(&mut memory, &FILE[64..]), Err(Status::NotGguf));
    let failed = |options| open(&options).err();
    assert_eq!(failed(vitlet_options { threads: 257, ..NO_OPTIONS }), Some(Status::Options));
    assert_eq!(failed(vitlet_options { outputs: 32, ..NO_OPTIONS }), Some(Status::Value));
    assert_eq!(failed(vitlet_options { prefault: 2, ..NO_OPTIONS }), Some(Status::Value));
    assert_eq!(failed(vitlet_options { prefault: 1, ..NO_OPTIONS }), None);
    assert_eq!(failed(vitlet_options { kernels: c"mmx".as_ptr(), ..NO_OPTIONS }), Some(Status::Kernels));
    assert_eq!(failed(vitlet_options { kernels: c"scalar".as_ptr(), ..NO_OPTIONS }), None);

    let opened = open(&vitlet_options { max_picture_width: 8, max_picture_height: 8, ..NO_OPTIONS }).unwrap();
    let pixels = [5; 200];
    let refused = |picture: vitlet_picture| run(&opened, &picture).err();
    assert_eq!(refused(gray(&pixels, 8, 8)), None);
    assert_eq!(refused(gray(&pixels, 9, 8)), Some(Status::PictureTooLarge));
    assert_eq!(refused(gray(&pixels, 0, 8)), Some(Status::PictureSize));
    assert_eq!(refused(vitlet_picture { strides: [7, 0, 0], ..gray(&pixels, 8, 8) }), Some(Status::PictureStride));
    for stride in [usize::MAX, 1 << (usize::BITS - 1)] {
        let picture = vitlet_picture { strides: [stride, 0, 0], ..gray(&pixels, 8, 8) };
        assert_eq!(refused(picture), Some(Status::PictureStride), "{stride}");
    }
    for (width, height) in [((1 << 24) + 1, 8), (8, (1 << 24) + 1), (u32::MAX, u32::MAX)] {
        assert_eq!(refused(gray(&pixels, width, height)), Some(Status::PictureSize), "longer than any picture");
        let options = vitlet_options { max_picture_width: width, max_picture_height: height, ..NO_OPTIONS };
        assert_eq!(failed(options), Some(Status::Options), "no such picture can run");
    }
    assert_eq!(refused(vitlet_picture { format: 7, ..gray(&pixels, 8, 8) }), Some(Status::Value));
    assert_eq!(refused(vitlet_picture { rotation: 1, ..gray(&pixels, 8, 8) }), Some(Status::Value));
    assert_eq!(refused(vitlet_picture { rotation: 270, ..gray(&pixels, 8, 8) }), None);
    assert_eq!(refused(vitlet_picture { yuv: 4, ..gray(&pixels, 8, 8) }), Some(Status::Value));
    let region = |x, y, width, height| vitlet_region { x, y, width, height };
    assert_eq!(
        refused(vitlet_picture { region: region(4, 4, 4, 4), ..gray(&pixels, 20, 10) }),
        None,
        "a part that fits"
    );
    assert_eq!(
        refused(vitlet_picture { region: region(4, 4, 5, 4), ..gray(&pixels, 8, 8) }),
        Some(Status::PictureRegion)
    );
    let (mut bytes, mut session, none) = (0, null_mut(), null_mut());
    // SAFETY: the model is one; the memory is larger than said.
    unsafe {
        assert_eq!(vitlet_session_bytes(opened.model, &NO_OPTIONS, &mut bytes, none), Status::Ok);
        let mut memory = Memory::new(bytes);
        let status = vitlet_session_open(opened.model, &NO_OPTIONS, memory.start(), bytes - 1, &mut session, none);
        assert_eq!(status, Status::Memory);
        let mut model = null_mut();
        let at = memory.start();
        assert_eq!(vitlet_model_open(at, bytes, c"/nowhere".as_ptr(), &mut model, none), Status::File);
        assert_eq!(vitlet_model_open(at, bytes, c"/".as_ptr(), &mut model, none), Status::File, "a directory");
    }
}

#[test]
fn a_misaligned_file_is_misaligned_whatever_it_holds() {
    let (mut memory, mut text) = (Memory::new(vitlet_model_bytes()), Memory::new(128));
    let mut model = null_mut();
    let inside = text.start().wrapping_byte_add(4);
    // SAFETY: the bytes lie within memory that is large enough.
    let status =
        unsafe { vitlet_model_parse(memory.start(), vitlet_model_bytes(), inside, 64, &mut model, null_mut()) };
    assert_eq!(status, Status::Misaligned);
}

/// An executor of the host's own.
unsafe extern "C" fn alone(_: *mut c_void, job: vitlet_job, data: *mut c_void) {
    // SAFETY: the library's promise.
    unsafe { job.unwrap()(data) };
}

#[test]
fn the_number_of_threads_is_the_executors() {
    let mut pool = null_mut();
    let four = vitlet_pool_options { threads: 4, ..NO_POOL_OPTIONS };
    // SAFETY: the pool is stopped once, after its last session.
    assert_eq!(unsafe { vitlet_pool_start(&four, &mut pool, null_mut()) }, Status::Ok);
    let of_pool = vitlet_pool_executor(pool);
    let of_host = vitlet_executor { run: Some(alone), context: null_mut() };
    let with = |executor, threads| vitlet_options { executor, threads, ..NO_OPTIONS };
    let failed = |executor, threads| open(&with(executor, threads)).err();
    assert_eq!(failed(of_pool, 0), None);
    assert_eq!(failed(of_pool, 4), None);
    for threads in [1, 3, 5] {
        assert_eq!(failed(of_pool, threads), Some(Status::Options), "a pool of four, {threads} threads");
    }
    assert_eq!(failed(NO_OPTIONS.executor, 2), Some(Status::Options), "nobody would do the work of the second");
    assert_eq!(failed(of_host, 0), Some(Status::Options), "the library cannot know");
    assert_eq!(failed(of_host, 257), Some(Status::Options));
    assert_eq!(failed(of_host, 3), None);

    let model = open(&NO_OPTIONS).unwrap();
    let bytes = |options: vitlet_options| {
        let mut bytes = 0;
        // SAFETY: the model is one.
        assert_eq!(unsafe { vitlet_session_bytes(model.model, &options, &mut bytes, null_mut()) }, Status::Ok);
        bytes
    };
    assert_eq!(bytes(with(of_pool, 0)), bytes(with(of_pool, 4)));
    assert!(bytes(with(of_pool, 0)) > bytes(NO_OPTIONS), "each thread has memory of its own");
    let picture = gray(&[90; 64 * 64], 64, 64);
    let expected = run(&model, &picture);
    for options in [with(of_pool, 0), with(of_host, 3)] {
        assert_eq!(run(&open(&options).unwrap(), &picture), expected);
    }
    // SAFETY: no session uses it any more.
    unsafe { vitlet_pool_stop(pool) };
}

#[test]
fn every_status_has_its_words() {
    let text = |status: u32| {
        // SAFETY: the library's strings end with a NUL.
        unsafe { core::ffi::CStr::from_ptr(vitlet_status_string(status)) }.to_str().unwrap()
    };
    let mut all: Vec<_> = (0..=Status::Stopped as u32).map(text).collect();
    assert!(!all.contains(&"unknown status"));
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), Status::Stopped as usize + 1, "no two are alike");
    assert_eq!(text(12345), "unknown status");
}

/// An executor that panics, as one written in Rust might, or throws, as one written in C++ might.
unsafe extern "C-unwind" fn panics(_: *mut c_void, _: vitlet_job, _: *mut c_void) {
    panic!("on purpose");
}

/// Started again by the test below, alone in its process.
#[test]
fn child_that_panics_within_the_library() {
    if std::env::var_os("VITLET_TEST_PANIC").is_none() {
        return;
    }
    type Unwinds = unsafe extern "C-unwind" fn(*mut c_void, vitlet_job, *mut c_void);
    // SAFETY: the same convention; this one lets the panic out.
    let run =
        unsafe { core::mem::transmute::<Unwinds, unsafe extern "C" fn(*mut c_void, vitlet_job, *mut c_void)>(panics) };
    let executor = vitlet_executor { run: Some(run), context: null_mut() };
    let opened = open(&vitlet_options { threads: 2, executor, ..NO_OPTIONS }).unwrap();
    let picture = gray(&[0; 16], 4, 4);
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        // SAFETY: the session is one.
        unsafe { vitlet_run_picture(opened.session, &picture, null_mut()) }
    }));
    std::process::exit(if unwound.is_err() { 42 } else { 43 });
}

/// This build unwinds (`panic = "unwind"` in the profile that tests run in), and still no panic leaves a function of
/// the library.
#[test]
#[cfg(unix)]
fn a_panic_aborts_and_never_unwinds_into_the_host() {
    use std::os::unix::process::ExitStatusExt;
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "tests::child_that_panics_within_the_library", "--nocapture"]);
    let done = child.env("VITLET_TEST_PANIC", "1").env("RUST_BACKTRACE", "full").output().unwrap();
    const SIGABRT: i32 = 6;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!((done.status.signal(), done.status.code()), (Some(SIGABRT), None), "{said}");
    let (panicked, stopped) = said.split_once("cannot unwind").expect("it is stopped");
    assert!(panicked.contains("on purpose"), "{said}");
    // Other threads may work on values in the engine's frames: none of these frames may be unwound.
    assert!(stopped.contains("for_each"), "{said}");
}
