//! Order statistics of run times, and the pooled relative error of logits.

/// Percentile `p` in [0, 100] of `values`, interpolated linearly between ranks as numpy does; NaN for no values.
pub fn percentile(values: &[f64], p: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let rank = p / 100.0 * last as f64;
    let below = rank.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (rank - below as f64)
}

/// The middle value; the mean of the two middle ones for an even number.
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 50.0)
}

/// sqrt(sum |y - r|^2 / sum |r|^2) over all rows that were added.
#[derive(Default)]
pub struct PooledError {
    difference: f64,
    reference: f64,
}

impl PooledError {
    /// Adds one row of values and its reference, of equal length.
    pub fn add(&mut self, values: &[f32], reference: &[f32]) {
        for (&y, &r) in values.iter().zip(reference) {
            let (y, r) = (f64::from(y), f64::from(r));
            self.difference += (y - r) * (y - r);
            self.reference += r * r;
        }
    }

    /// The error; 0 where nothing was added.
    pub fn value(&self) -> f64 {
        if self.difference == 0.0 { 0.0 } else { (self.difference / self.reference).sqrt() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_agree_with_numpy() {
        // numpy.percentile([15, 20, 35, 40, 50], [0, 5, 40, 50, 95, 100])
        let values = [50.0, 15.0, 40.0, 20.0, 35.0];
        let want = [(0.0, 15.0), (5.0, 16.0), (40.0, 29.0), (50.0, 35.0), (95.0, 48.0), (100.0, 50.0)];
        for (p, value) in want {
            assert!((percentile(&values, p) - value).abs() < 1e-9, "p{p}: {}", percentile(&values, p));
        }
        assert_eq!(median(&[3.0, 1.0]), 2.0);
        assert_eq!(median(&[7.0]), 7.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_error_is_pooled_over_rows() {
        let mut error = PooledError::default();
        assert_eq!(error.value(), 0.0);
        error.add(&[3.0, 0.0], &[0.0, 0.0]);
        error.add(&[5.0, 4.0], &[5.0, 0.0]);
        assert!((error.value() - 1.0).abs() < 1e-12);
    }
}
