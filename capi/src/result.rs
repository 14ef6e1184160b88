//! What to do with logits.

use engine::{Scorer, next_best};

use crate::model::vitlet_model;
use crate::pointers::{elements, shared, store};
use crate::status::{status, vitlet_status};
use crate::versions::Elements;

/// A class that a picture may show.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct vitlet_guess {
    /// The class, for vitlet_model_label().
    pub index: usize,
    /// Its logit.
    pub logit: f32,
    /// Its probability: a softmax over all classes, or a sigmoid of this logit alone; the model says which.
    pub probability: f32,
}

/// Writes the `k` largest of `len` logits, largest first, NaN last. Stores in `count` how many it wrote: `k`, or the
/// number of classes if that is smaller. `guess_bytes` is sizeof(vitlet_guess). Of equal logits the lower index comes
/// first. If a logit is NaN, every probability of a softmax is NaN, too. `count` may be NULL.
///
/// # Safety
/// `model` is a model, `logits` has `len` elements, `guesses` has `k`, each of `guess_bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vitlet_top_k(
    model: *const vitlet_model,
    logits: *const f32,
    len: usize,
    guesses: *mut vitlet_guess,
    guess_bytes: usize,
    k: usize,
    count: *mut usize,
) -> vitlet_status {
    status(|| {
        // SAFETY: the caller's promises.
        unsafe {
            let scores = shared(model)?.model()?.config().scores;
            let logits = elements(logits, len)?;
            let mut guesses = Elements::new(guesses, guess_bytes, k)?;
            let written = fill(logits, &Scorer::new(logits, scores), &mut guesses);
            if !count.is_null() {
                store(count, written)?;
            }
            Ok(())
        }
    })
}

fn fill(logits: &[f32], scorer: &Scorer, guesses: &mut Elements<vitlet_guess>) -> usize {
    let mut last = None;
    for i in 0..guesses.len() {
        last = next_best(logits, last);
        let Some(index) = last else {
            return i;
        };
        let logit = logits[index];
        guesses.set(i, vitlet_guess { index, logit, probability: scorer.score(logit) });
    }
    guesses.len()
}

/// A hash of the bits of `len` floats. Two machines get the same hash if all bits are equal. `vitlet classify --digest`
/// prints the same number for the same picture and int8 model. 0 if `values` is NULL or misaligned.
///
/// # Safety
/// `values` has `len` elements.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vitlet_digest(values: *const f32, len: usize) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { elements(values, len) }.map_or(0, engine::digest)
}
