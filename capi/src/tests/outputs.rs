//! Outputs by index, another input size, the stop flag, and what errors say.

use super::*;

#[test]
fn outputs_are_counted_and_described_before_a_run_and_read_after_it() {
    let pixels: Vec<u8> = (0..70 * 50).map(|i| (i * 7) as u8).collect();
    let opened = open(&vitlet_options { outputs: 4 | 1, ..NO_OPTIONS }).unwrap();
    let all: Vec<_> = (0..3).map(|i| described(&opened, i)).collect();
    assert_eq!(all[0], Ok(("logits".into(), 1, vec![10], 10)));
    assert_eq!(all[1], Ok(("tokens".into(), 4, vec![64, 96], 64 * 96)));
    assert_eq!(all[2], Err(Status::Value));
    // SAFETY: the session is one.
    assert_eq!(unsafe { vitlet_output_count(opened.session) }, 2);
    assert_eq!(data(&opened, 0), None, "no run yet");

    let logits = run(&opened, &gray(&pixels, 70, 50)).unwrap();
    assert_eq!(logits, run(&open(&NO_OPTIONS).unwrap(), &gray(&pixels, 70, 50)).unwrap());
    let tokens = open(&vitlet_options { outputs: 4, ..NO_OPTIONS }).unwrap();
    assert_eq!(data(&opened, 1), run(&tokens, &gray(&pixels, 70, 50)).ok());
    for beyond in [2, 3, usize::MAX] {
        assert_eq!(data(&opened, beyond), None);
    }
    assert_eq!(run(&opened, &gray(&pixels, 0, 50)), Err(Status::PictureSize));
    assert_eq!(data(&opened, 0), None, "results of an earlier run are not the failed run's");
}

/// Name, bit, dimensions and length of an output.
fn described(opened: &Opened, index: usize) -> Result<(String, u32, Vec<usize>, usize), Status> {
    let mut info = shape();
    // SAFETY: the session is one; names end with a NUL.
    unsafe {
        match vitlet_output_info(opened.session, index, &mut info) {
            Status::Ok => {
                let name = core::ffi::CStr::from_ptr(info.name).to_str().unwrap().into();
                assert!(info.dims[info.rank as usize..].iter().all(|&dim| dim == 1));
                Ok((name, info.output, info.dims[..info.rank as usize].to_vec(), info.elements))
            }
            status => Err(status),
        }
    }
}

#[test]
fn another_input_size_is_the_engines() {
    let pixels: Vec<u8> = (0..70 * 50 * 3).map(|i| (i * 7) as u8).collect();
    let model = Model::parse(FILE).unwrap();
    let plan = Plan::new(&model, &RunConfig::new(Kernels::detect()).input_size(48, 40), 1).unwrap();
    let mut scratch = Memory::new(plan.scratch_bytes());
    let mut session = plan.open(&model, &Sequential, engine::scratch_from(&mut scratch.0)).unwrap();
    let expected = session.run_picture(&Picture::rgb8(&pixels, 70, 50, 210)).unwrap().first().to_vec();

    let of_size = |input_width, input_height| vitlet_options { input_width, input_height, ..NO_OPTIONS };
    let opened = open(&of_size(48, 40)).unwrap();
    let picture = vitlet_picture { format: vitlet_format::Rgb8 as u32, ..gray(&pixels, 70, 50) };
    assert_eq!(run(&opened, &picture), Ok(expected));
    for (width, height) in [(48, 0), (0, 48), (49, 48), (u32::MAX, 48)] {
        let status = open(&of_size(width, height)).err();
        assert!(matches!(status, Some(Status::Options | Status::Model)), "{width} x {height}: {status:?}");
    }
}

#[test]
fn a_flag_stops_runs_and_lets_them_run_again() {
    let mut flag = false;
    let flag = &raw mut flag;
    let opened = open(&vitlet_options { stop: flag, ..NO_OPTIONS }).unwrap();
    let (pixels, mut error) = ([90; 64 * 64], stale());
    let picture = gray(&pixels, 64, 64);
    let expected = run(&opened, &picture).unwrap();
    // SAFETY: the flag and the session are there.
    unsafe {
        vitlet_stop_set(flag, true);
        assert_eq!(vitlet_run_picture(opened.session, &picture, &mut error), Status::Stopped);
        assert_eq!((error.status, text(&error)), (Status::Stopped, "stopped: the caller ended the run"));
        assert_eq!(data(&opened, 0), None);
        vitlet_stop_set(flag, false);
    }
    assert_eq!(run(&opened, &picture), Ok(expected));
}

#[test]
fn errors_say_what_is_wrong_in_one_line() {
    let (mut memory, mut model, mut error) = (Memory::new(vitlet_model_bytes()), null_mut(), stale());
    let bytes = vitlet_model_bytes();
    // SAFETY: memory and file are as long as said.
    unsafe {
        let (at, file) = (memory.start(), FILE.as_ptr().cast());
        assert_eq!(vitlet_model_parse(at, bytes, file, FILE.len() - 1, &mut model, &mut error), Status::Truncated);
        assert_eq!(text(&error), "truncated model file: it ends before its last tensor does");
        assert_eq!(vitlet_model_parse(at, bytes, file, FILE.len(), &mut model, &mut error), Status::Ok);
        assert_eq!((error.status, text(&error)), (Status::Ok, ""));
        let mut say = |options: vitlet_options, size: usize| {
            let mut session = null_mut();
            let mut room = Memory::new(4096);
            error = stale();
            let status = vitlet_session_open(model, &options, room.start(), size, &mut session, &mut error);
            assert_eq!(status, error.status);
            (status, String::from(text(&error)))
        };
        let (status, words) = say(vitlet_options { input_width: 47, input_height: 48, ..NO_OPTIONS }, 4096);
        assert_eq!(status, Status::Options);
        assert!(words.starts_with("run configuration: "), "{words}");
        let (status, words) = say(NO_OPTIONS, 4096);
        assert_eq!(status, Status::Memory);
        assert!(words.starts_with("memory: ") && words.ends_with(" bytes needed, 4096 given"), "{words}");
        let (status, words) = say(vitlet_options { threads: 2, ..NO_OPTIONS }, 4096);
        assert_eq!((status, words.as_str()), (Status::Options, "threads: 2, but the executor has 1"));
        for (options, expected) in [
            (vitlet_options { prefault: 7, ..NO_OPTIONS }, "prefault: 7 is not 0 or 1"),
            (vitlet_options { outputs: 33, ..NO_OPTIONS }, "outputs: 33 has a bit that is no vitlet_output"),
            (
                vitlet_options { max_picture_height: 1 << 25, ..NO_OPTIONS },
                "max_picture_height: 33554432 is not 1 to 16777216",
            ),
            (
                vitlet_options { size: 3, ..NO_OPTIONS },
                "size: 3 is not that of any version of the struct (is it initialized?)",
            ),
        ] {
            assert_eq!(say(options, 4096).1, expected);
        }
        assert_eq!(vitlet_model_open(at, bytes, c"/nowhere".as_ptr(), &mut model, &mut error), Status::File);
        assert_eq!(text(&error), "No such file or directory");
        assert_eq!(vitlet_model_open(at, bytes, c"/".as_ptr(), &mut model, &mut error), Status::File);
        assert_eq!(text(&error), "a directory, not a file");
    }
}

/// The plane, the field or the number that is wrong stands in the text.
#[test]
fn errors_of_pictures_name_the_plane_and_the_number() {
    let options = vitlet_options { max_picture_width: 8, max_picture_height: 6, ..NO_OPTIONS };
    let (opened, pixels) = (open(&options).unwrap(), [0; 256]);
    let say = |picture: &vitlet_picture| {
        let mut error = stale();
        // SAFETY: the session is one; the picture has its pixels.
        let status = unsafe { vitlet_run_picture(opened.session, picture, &mut error) };
        assert_eq!(status, error.status);
        (status, String::from(text(&error)))
    };
    let good =
        || vitlet_picture { format: vitlet_format::I420 as u32, planes: [pixels.as_ptr(); 3], ..gray(&pixels, 8, 6) };
    let region = |x, y, width, height| vitlet_region { x, y, width, height };
    let huge = usize::MAX / 4;
    assert_eq!(say(&good()).0, Status::Ok);
    for (picture, status, expected) in [
        (
            vitlet_picture { strides: [8, 3, 4], ..good() },
            Status::PictureStride,
            "plane 1: stride 3 is smaller than the 4 bytes of a row".into(),
        ),
        (
            vitlet_picture { planes: [pixels.as_ptr(), pixels.as_ptr(), null()], ..good() },
            Status::Null,
            "plane 2: NULL, but this format has it".into(),
        ),
        (
            vitlet_picture { strides: [huge, 4, 4], ..good() },
            Status::PictureStride,
            std::format!("plane 0: 6 rows with stride {huge} are more than memory can be"),
        ),
        (vitlet_picture { format: 9, ..good() }, Status::Value, "format: 9 is no vitlet_format".into()),
        (vitlet_picture { rotation: 45, ..good() }, Status::Value, "rotation: 45 is no vitlet_rotation".into()),
        (vitlet_picture { yuv: 4, ..good() }, Status::Value, "yuv: 4 is no vitlet_yuv".into()),
        (vitlet_picture { width: 0, ..good() }, Status::PictureSize, "width: 0 is not 1 to 16777216".into()),
        (
            vitlet_picture { height: 1 << 25, ..good() },
            Status::PictureSize,
            "height: 33554432 is not 1 to 16777216".into(),
        ),
        (
            vitlet_picture { region: region(5, 1, 4, 2), ..good() },
            Status::PictureRegion,
            "region: 4 x 2 at x 5, y 1 is empty or not inside the picture of 8 x 6".into(),
        ),
        (
            vitlet_picture { region: region(u32::MAX, 1, 4, 2), ..good() },
            Status::PictureRegion,
            "region: 4 x 2 at x 4294967295, y 1 is empty or not inside the picture of 8 x 6".into(),
        ),
        (
            vitlet_picture { width: 10, ..gray(&pixels, 10, 6) },
            Status::PictureTooLarge,
            "10 x 6 pixels: more than the largest picture of the session, 8 x 6".into(),
        ),
    ] {
        let (told, text): (Status, String) = say(&picture);
        assert_eq!((told, text), (status, expected));
    }
}
