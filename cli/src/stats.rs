//! Order statistics of run times, and the sums that relative errors are made of.

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

/// Sums over one row of values y and its reference r.
pub struct Squares {
    /// (y - r)^2.
    pub difference: f64,
    /// r^2.
    pub norm: f64,
}

/// Of two rows of equal length.
pub fn squares(values: &[f32], reference: &[f32]) -> Squares {
    let mut sums = Squares { difference: 0.0, norm: 0.0 };
    for (&y, &r) in values.iter().zip(reference) {
        let (y, r) = (f64::from(y), f64::from(r));
        sums.difference += (y - r) * (y - r);
        sums.norm += r * r;
    }
    sums
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
    fn squares_are_summed() {
        let Squares { difference, norm } = squares(&[3.0, 5.0, 4.0], &[0.0, 5.0, 1.0]);
        assert_eq!((difference, norm), (18.0, 26.0));
    }
}
