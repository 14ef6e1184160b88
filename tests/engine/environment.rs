//! The host's rounding, flushing and trapping do not change the engine's results, and are the host's again
//! afterwards.

use vitlet::picture::Resize;
use vitlet::{
    Error, Executor, Kernels, Model, Picture, Plan, Preprocess, RunConfig, Scorer, Scores, Scratch, Sequential,
    ThreadPool,
};
use vitlet_convert::Options;

/// MXCSR.
#[cfg(target_arch = "x86_64")]
mod host {
    use std::arch::asm;

    /// Rounding down, up and towards zero; flush-to-zero, denormals-are-zero; every exception unmasked; a raised flag.
    pub const ENVIRONMENTS: [u64; 8] = [0x1f80, 0x3f80, 0x5f80, 0x7f80, 0x9f80, 0x1fc0, 0x0000, 0x1fa0];

    /// Rounding down, flush-to-zero and denormals-are-zero.
    pub const CARELESS: u64 = 0x1f80 | 0x8040 | 0x2000;

    pub fn read() -> u64 {
        let mut mxcsr = 0_u32;
        // SAFETY: stores MXCSR into the local.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut mxcsr, options(nostack, preserves_flags)) };
        mxcsr.into()
    }

    pub fn write(value: u64) {
        let mxcsr = value as u32;
        // SAFETY: none of the environments has a reserved bit.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const mxcsr, options(nostack)) };
    }
}

/// FPCR.
#[cfg(target_arch = "aarch64")]
mod host {
    use std::arch::asm;

    /// Rounding up, down and towards zero; flush-to-zero; default NaN; every exception trapped, where the core can.
    pub const ENVIRONMENTS: [u64; 7] = [0, 1 << 22, 2 << 22, 3 << 22, 1 << 24, 1 << 25, 0x9f00];

    /// Rounding down, flush-to-zero.
    pub const CARELESS: u64 = (1 << 24) | (2 << 22);

    pub fn read() -> u64 {
        let fpcr;
        // SAFETY: reads a register.
        unsafe { asm!("mrs {}, fpcr", out(reg) fpcr, options(nomem, nostack, preserves_flags)) };
        fpcr
    }

    pub fn write(fpcr: u64) {
        // SAFETY: none of the environments has a reserved bit.
        unsafe { asm!("msr fpcr, {}", in(reg) fpcr, options(nostack, preserves_flags)) };
    }
}

/// Calls jobs on a thread of its own as well, which rounds down and flushes to zero whatever the caller does.
struct CarelessHelper;

impl Executor for CarelessHelper {
    fn threads(&self) -> usize {
        2
    }

    fn run(&self, job: &(dyn Fn() + Sync)) {
        std::thread::scope(|scope| {
            // To its end before the caller begins, so that the helper is the one that computes.
            let helper = scope.spawn(|| {
                let own = host::read();
                host::write(host::CARELESS);
                job();
                let after = host::read();
                host::write(own);
                after
            });
            assert_eq!(helper.join().unwrap(), host::CARELESS, "the helper's environment is another");
        });
        job();
    }
}

/// `call` gives the same in every environment, and leaves each as it was.
fn is_the_same_everywhere<T: PartialEq>(what: &str, mut call: impl FnMut() -> T) {
    let expected = call();
    for environment in host::ENVIRONMENTS {
        let own = host::read();
        host::write(environment);
        let set = host::read();
        let got = call();
        let after = host::read();
        host::write(own);
        assert!(got == expected, "{what} in {environment:#x}");
        assert_eq!(after, set, "{what} in {environment:#x}: the environment is another");
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Pictures of many sizes and their pixels.
fn pictures() -> impl Iterator<Item = (u32, u32)> {
    (0..60).map(|i| (20 + i * 37 % 211, 20 + i * 53 % 173))
}

#[test]
fn pictures_are_prepared_the_same() {
    let pixels: Vec<u8> = (0..240 * 240 * 3_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let file = crate::common::convert(&crate::common::checkpoint("timm_deit3"), &Options::default());
    let own = *Model::parse(&file.bytes).unwrap().preprocess();
    let (height, width) = (own.height, own.width);
    for resize in [
        own.resize,
        Resize::Cover { height, width },
        Resize::Contain { height, width },
        Resize::ShorterEdge(height.max(width) + 3),
        Resize::Exact { height, width },
    ] {
        let preprocess = Preprocess { resize, ..own };
        is_the_same_everywhere("normalized", || preprocess.normalized().map(|channel| bits(&channel)));
        for (across, down) in pictures() {
            is_the_same_everywhere("scratch_bytes", || preprocess.scratch_bytes((across, down)));
            let mut scratch = vec![0; preprocess.scratch_bytes((across, down)).unwrap()];
            let picture = Picture::rgb8(&pixels, across, down, 3 * across as usize);
            is_the_same_everywhere("prepare", || {
                let mut out = vec![0; (3 * height * width) as usize];
                preprocess.prepare(Kernels::detect(), &picture, &mut scratch, &mut out).unwrap();
                out
            });
        }
    }
}

#[test]
fn sessions_give_the_same() {
    let pixels: Vec<u8> = (0..90 * 70 * 3_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let picture = Picture::rgb8(&pixels, 90, 70, 270);
    let pool = ThreadPool::new(2).unwrap();
    for name in ["timm_deit3", "timm_convnext"] {
        let file = crate::common::convert(&crate::common::checkpoint(name), &Options::default());
        let model = Model::parse(&file.bytes).unwrap();
        let mut logits = Vec::new();
        for executor in [&Sequential as &dyn Executor, &pool, &CarelessHelper] {
            let run = RunConfig::new(Kernels::detect()).max_picture(90, 70);
            let plan = Plan::new(&model, &run, executor.threads()).unwrap();
            let mut scratch = Scratch::new(plan.scratch_bytes()).unwrap();
            let input = vec![0.3; model.config().input_len()];
            let mut session = plan.open(&model, executor, &mut scratch).unwrap();
            logits.push(bits(session.run_tensor(&input).unwrap().first()));
            // Made in the host's environment as well: the session holds the normalized values of bytes.
            is_the_same_everywhere(name, || {
                let mut session = plan.open(&model, executor, &mut scratch).unwrap();
                let mut prepared = vec![0.0; input.len()];
                session.prepare(&picture, &mut prepared).unwrap();
                let picture = bits(session.run_picture(&picture).unwrap().first());
                (bits(&prepared), picture, bits(session.run_tensor(&input).unwrap().first()))
            });
        }
        assert!(logits.iter().all(|other| *other == logits[0]), "{name}: the helper's environment shows");
    }
}

#[test]
fn scores_and_the_best_classes_are_the_same() {
    // The second is the larger where denormals are not zero.
    let logits = [1e-40, 2e-40, -3.7, 0.1, -1e-40, 5.3];
    for kind in [Scores::Softmax, Scores::Sigmoid] {
        is_the_same_everywhere("scores", || {
            let mut scores = logits;
            vitlet::scores(&mut scores, kind);
            let scorer = Scorer::new(&logits, kind);
            (bits(&scores), bits(&logits.map(|x| scorer.score(x))))
        });
    }
    is_the_same_everywhere("top_k", || vitlet::top_k::<6>(&logits).map(|(class, _)| class));
    assert_eq!(vitlet::top_k::<6>(&logits).map(|(class, _)| class), [5, 3, 1, 0, 4, 2]);
}

#[test]
fn files_are_judged_the_same() {
    let mut file = crate::common::convert(&crate::common::checkpoint("timm_deit3"), &Options::default()).bytes;
    let mut scale = 0;
    Model::parse(&file).unwrap().for_each_tensor(|spec, bytes| {
        if spec.name.as_str() == "head.scale" {
            scale = bytes.as_ptr().addr() - file.as_ptr().addr();
        }
    });
    // Negative, unless denormals are taken for zero.
    file[scale..scale + 4].copy_from_slice(&(-1e-40_f32).to_le_bytes());
    is_the_same_everywhere("parse", || Model::parse(&file).err());
    assert!(matches!(Model::parse(&file), Err(Error::Tensor { why: "a scale is negative", .. })));
}
