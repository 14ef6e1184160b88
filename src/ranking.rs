//! The order of classes: the largest logit first, of equals (-0 and 0 are) the lower class, NaN last.

use core::cmp::Ordering;
#[cfg(feature = "std")]
use std::vec::Vec;

/// The `N` best classes with their logits. Fewer than `N` classes leave `(usize::MAX, -inf)` at the end.
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

/// The class that comes after the class `last`, or the best of all; None when there is no other.
pub fn next_best(logits: &[f32], last: Option<usize>) -> Option<usize> {
    let comes_after = |class: &usize| last.is_none_or(|last| order(logits, last, *class).is_lt());
    if last.is_some_and(|last| last >= logits.len()) {
        return None;
    }
    (0..logits.len()).filter(comes_after).min_by(|&a, &b| order(logits, a, b))
}

/// The `k` best classes, or all where there are fewer.
#[cfg(feature = "std")]
pub fn best(logits: &[f32], k: usize) -> Vec<usize> {
    let mut classes: Vec<usize> = (0..logits.len()).collect();
    let order = |&a: &usize, &b: &usize| order(logits, a, b);
    if (1..classes.len()).contains(&k) {
        classes.select_nth_unstable_by(k - 1, order);
    }
    classes.truncate(k);
    classes.sort_unstable_by(order);
    classes
}

/// `Less` where class `a` comes before `b`.
fn order(logits: &[f32], a: usize, b: usize) -> Ordering {
    rank(logits[b]).cmp(&rank(logits[a])).then(a.cmp(&b))
}

/// A number that is larger for logits that come first. An integer: a host that takes denormals for zero has no say in
/// the order.
fn rank(logit: f32) -> i32 {
    let magnitude = (logit.to_bits() & 0x7fff_ffff) as i32;
    match logit.is_sign_negative() {
        _ if magnitude > f32::INFINITY.to_bits() as i32 => i32::MIN,
        true => -magnitude,
        false => magnitude,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_comes_first_and_nan_last() {
        let logits = [1.0, f32::NAN, 3.0, 1.0, -2.0, -f32::NAN, 3.0, f32::NEG_INFINITY, f32::INFINITY, 0.0, -0.0];
        let expected = [8, 2, 6, 0, 3, 9, 10, 4, 7, 1, 5];
        assert_eq!(top_k::<11>(&logits).map(|(class, _)| class), expected);
        for k in 0..=expected.len() {
            assert_eq!(best(&logits, k), expected[..k], "{k}");
        }
        assert_eq!(best(&logits, 100), expected);
        assert!(top_k::<11>(&logits)[9].1.is_nan());
    }

    #[test]
    fn equals_are_in_the_order_of_their_classes() {
        assert_eq!(best(&[0.0, -0.0, 0.0], 3), [0, 1, 2]);
        assert_eq!(best(&[f32::NAN; 4], 3), [0, 1, 2]);
        assert_eq!(next_best(&[f32::NAN; 2], Some(0)), Some(1));
        assert_eq!(next_best(&[f32::NAN; 2], Some(1)), None);
    }

    #[test]
    fn fewer_classes_than_asked_for_are_all_that_there_are() {
        assert_eq!(top_k::<2>(&[f32::NEG_INFINITY]), [(0, f32::NEG_INFINITY), (usize::MAX, f32::NEG_INFINITY)]);
        assert!(best(&[], 5).is_empty());
        assert_eq!(next_best(&[], None), None);
        assert_eq!(next_best(&[1.0], Some(usize::MAX)), None);
    }
}
