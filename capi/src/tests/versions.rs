//! Structs of older and newer headers than this library's.

use super::*;

/// A struct of a later version.
#[repr(C)]
struct Later<T> {
    now: T,
    added: u64,
}

fn status_of(options: &Later<vitlet_options>, size: usize) -> Status {
    let opened = open(&NO_OPTIONS).unwrap();
    let later = Later { now: vitlet_options { size, ..options.now }, added: options.added };
    let mut bytes = 0;
    // SAFETY: the model is one; the options are as large as they say, where that is a size that is believed.
    unsafe { vitlet_session_bytes(opened.model, (&raw const later).cast(), &mut bytes, null_mut()) }
}

#[test]
fn a_structs_size_is_zero_the_first_versions_or_more() {
    const NOW: usize = size_of::<vitlet_options>();
    let options = Later { now: NO_OPTIONS, added: 0 };
    for size in [0, NOW, NOW + 8] {
        assert_eq!(status_of(&options, size), Status::Ok, "{size}");
    }
    for size in [1, NOW - 1, 4097, usize::MAX] {
        assert_eq!(status_of(&options, size), Status::Value, "{size}");
    }
    let set = Later { now: NO_OPTIONS, added: 1 << 56 };
    assert_eq!(status_of(&set, NOW + 8), Status::Value, "a field that this library does not know is set");
    assert_eq!(status_of(&set, NOW), Status::Ok, "it is not the struct's");
    assert_eq!(status_of(&set, 0), Status::Ok);
}

#[test]
fn infos_are_filled_up_to_the_callers_size() {
    const NOW: usize = size_of::<vitlet_model_info>();
    let opened = open(&NO_OPTIONS).unwrap();
    let filled = |size| {
        let now = vitlet_model_info {
            size,
            input_width: 77,
            input_height: 77,
            classes: 77,
            features: 77,
            patches: 77,
            dim: 77,
        };
        let mut later = Later { now, added: 77 };
        // SAFETY: the model is one; the information is as large as it says, where that is a size that is believed.
        let status = unsafe { vitlet_model_describe(opened.model, (&raw mut later).cast()) };
        (status, later.now.size, later.now.classes, later.now.dim, later.added)
    };
    assert_eq!(filled(0), (Status::Ok, 0, 10, 96, 77));
    assert_eq!(filled(NOW), (Status::Ok, NOW, 10, 96, 77));
    assert_eq!(filled(NOW + 8), (Status::Ok, NOW + 8, 10, 96, 0), "no library fills what it does not know");
    assert_eq!(filled(NOW - 8), (Status::Value, NOW - 8, 77, 77, 77));
    assert_eq!(filled(usize::MAX), (Status::Value, usize::MAX, 77, 77, 77));
}

#[test]
fn arrays_have_elements_of_the_callers_size() {
    let opened = open(&NO_OPTIONS).unwrap();
    let logits = [1.0_f32, 3.0, 2.0];
    let none = vitlet_guess { index: 77, logit: 0.0, probability: 0.0 };
    let mut guesses = core::array::from_fn::<_, 4, _>(|_| Later { now: none, added: 77 });
    let mut count = 0;
    // SAFETY: the model is one; the arrays have their lengths.
    let mut top = |bytes, k| unsafe {
        let at = guesses.as_mut_ptr().cast();
        (vitlet_top_k(opened.model, logits.as_ptr(), 3, at, bytes, k, &mut count), count)
    };
    assert_eq!(top(size_of::<Later<vitlet_guess>>(), 4), (Status::Ok, 3));
    for bytes in [0, 1, GUESS - 1, GUESS + 1, 4104, usize::MAX] {
        assert_eq!(top(bytes, 1).0, Status::Value, "{bytes}");
    }
    assert_eq!(top(GUESS, usize::MAX).0, Status::Length);
    let got = guesses.map(|guess| (guess.now.index, guess.added));
    assert_eq!(got, [(1, 0), (2, 0), (0, 0), (77, 77)]);
}
