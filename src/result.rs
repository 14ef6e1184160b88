//! What to do with logits: the best classes, scores, and a hash to compare machines by.

use crate::config::Scores;
use crate::kernels::fpenv::exact;

/// The `N` largest logits with their classes, largest first; the lower class first where they are equal, NaN last.
/// Fewer than `N` classes leave `(usize::MAX, -inf)` at the end.
pub fn top_k<const N: usize>(logits: &[f32]) -> [(usize, f32); N] {
    let mut best = [(usize::MAX, f32::NEG_INFINITY); N];
    let mut last = None;
    for entry in &mut best {
        last = next_best(logits, last);
        let Some(class) = last else { break };
        *entry = (class, logits[class]);
    }
    best
}

/// The class that comes after the class `last` in the order of [`top_k`], or first of all; None when there is no other.
pub fn next_best(logits: &[f32], last: Option<usize>) -> Option<usize> {
    // The last one's logit; without it, one before all.
    let (last, limit) = last.and_then(|class| Some((class, *logits.get(class)?))).unzip();
    let is_left = |class: usize, logit: f32| {
        limit.is_none_or(|limit| logit < limit || (logit == limit && last.is_some_and(|last| class > last)))
    };
    let left = logits.iter().enumerate().filter(|&(class, logit)| !logit.is_nan() && is_left(class, *logit));
    left.reduce(|best, other| if other.1 > best.1 { other } else { best }).map(|(class, _)| class)
}

/// Turns logits into scores: softmax, or a sigmoid each.
pub struct Scorer {
    kind: Scores,
    max: f32,
    sum: f32,
}

impl Scorer {
    /// Reads all logits.
    pub fn new(logits: &[f32], kind: Scores) -> Self {
        exact(|| {
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            Self { kind, max, sum: logits.iter().map(|x| libm::expf(x - max)).sum() }
        })
    }

    /// The score of one of them.
    pub fn score(&self, logit: f32) -> f32 {
        exact(|| self.compute(logit))
    }

    fn compute(&self, logit: f32) -> f32 {
        match self.kind {
            Scores::Softmax => libm::expf(logit - self.max) / self.sum,
            Scores::Sigmoid => 1.0 / (1.0 + libm::expf(-logit)),
        }
    }
}

/// Turns logits into scores in place.
pub fn scores(logits: &mut [f32], kind: Scores) {
    let scorer = Scorer::new(logits, kind);
    exact(|| logits.iter_mut().for_each(|x| *x = scorer.compute(*x)));
}

/// FNV-1a, 64 bits, over the floats' bits in order: equal on two machines exactly if every bit is.
pub fn digest(values: &[f32]) -> u64 {
    values.iter().fold(FNV_START, |hash, x| fnv1a(hash, u64::from(x.to_bits())))
}

/// FNV-1a, 64 bits, over bytes as little-endian words of 64 bits, the last zero-padded: the file's checksum.
pub fn checksum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(FNV_START, |hash, word| fnv1a(hash, u64::from_le_bytes(*word)));
    if rest.is_empty() {
        return hash;
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    fnv1a(hash, u64::from_le_bytes(last))
}

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

fn fnv1a(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn top_k_orders_ties_by_class_and_skips_nan() {
        let logits = [1.0, f32::NAN, 3.0, 1.0, -2.0, 3.0];
        assert_eq!(top_k::<4>(&logits), [(2, 3.0), (5, 3.0), (0, 1.0), (3, 1.0)]);
        assert_eq!(next_best(&logits, Some(3)), Some(4));
        assert_eq!(next_best(&logits, Some(4)), None);
        assert_eq!(top_k::<2>(&[f32::NEG_INFINITY]), [(0, f32::NEG_INFINITY), (usize::MAX, f32::NEG_INFINITY)]);
    }

    #[test]
    fn scores_are_probabilities() {
        let mut x = [1000.0, 1000.0, f32::NEG_INFINITY];
        scores(&mut x, Scores::Softmax);
        assert_eq!(x, [0.5, 0.5, 0.0]);
        let mut x = [0.0, 100.0];
        scores(&mut x, Scores::Sigmoid);
        assert_eq!(x, [0.5, 1.0]);
    }

    #[test]
    fn digests_tell_signs_of_zero_apart() {
        assert_ne!(digest(&[0.0]), digest(&[-0.0]));
        assert_eq!(checksum(&[1, 2, 3]), checksum(&[1, 2, 3, 0]));
        assert_ne!(checksum(&[1, 2, 3]), checksum(&[1, 2, 4]));
    }
}
