//! Scores of classes: probabilities from a network's logits.

use crate::config::Scores;
use crate::fpenv::exact;

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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn nan_is_never_a_probability_in_disguise() {
        let mut x = [1.0, f32::NAN, 3.0];
        scores(&mut x, Scores::Softmax);
        assert!(x.iter().all(|score| score.is_nan()), "{x:?}");
        let mut x = [0.0, f32::NAN];
        scores(&mut x, Scores::Sigmoid);
        assert!(x[0] == 0.5 && x[1].is_nan(), "{x:?}");
    }
}
