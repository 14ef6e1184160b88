//! The classes of the largest logits, for any number of them (the engine's `top_k` takes a constant).

/// The classes of the `k` largest logits, the largest first; of equals the lower class comes first.
pub fn top(logits: &[f32], k: usize) -> Vec<usize> {
    let mut classes: Vec<usize> = (0..logits.len()).collect();
    let order = |&a: &usize, &b: &usize| logits[b].total_cmp(&logits[a]).then(a.cmp(&b));
    let k = k.min(classes.len());
    if k > 0 && k < classes.len() {
        classes.select_nth_unstable_by(k - 1, order);
    }
    classes.truncate(k);
    classes.sort_unstable_by(order);
    classes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_a_stable_sort() {
        let logits = [0.5, -1.0, 3.0, 0.5, 3.0, f32::NEG_INFINITY];
        assert_eq!(top(&logits, 4), [2, 4, 0, 3]);
        assert_eq!(top(&logits, 100), [2, 4, 0, 3, 1, 5]);
        assert!(top(&logits, 0).is_empty());
        assert!(top(&[], 5).is_empty());
    }
}
