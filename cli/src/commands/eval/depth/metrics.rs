//! How far predicted distances are from true ones, as depth estimation is usually measured (Eigen et al. 2014, "Depth
//! Map Prediction from a Single Image using a Multi-Scale Deep Network").
//!
//! ```text
//! AbsRel = mean |p - t| / t      RMSE = sqrt(mean (p - t)^2)      delta k = share of max(p / t, t / p) < 1.25^k
//! ```
//!
//! over the pixels of one picture; a data set has the mean over its pictures. An alignment replaces p by `scale p +
//! shift` with the least sum of squares, in metres for distances, and for relative inverse depth in 1 / metres (Ranftl
//! et al. 2020, "Towards Robust Monocular Depth Estimation").

use serde::Serialize;

use crate::commands::depth::map::Unit;

/// Nearer predictions count as this many metres: a ratio to nothing means nothing.
const NEAREST: f64 = 1e-3;

/// Of one picture, or the means over several.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Metrics {
    pub abs_rel: f64,
    /// Metres.
    pub rmse: f64,
    pub delta1: f64,
    pub delta2: f64,
    pub delta3: f64,
}

/// A number of the network, and the true distance in metres, of one pixel.
pub type Pair = (f32, f32);

impl Metrics {
    /// Of predicted and true distances, all positive; none without any.
    fn of(pairs: impl Iterator<Item = (f64, f64)>) -> Option<Self> {
        let (mut n, mut relative, mut squares, mut within) = (0_usize, 0.0, 0.0, [0_usize; 3]);
        for (p, t) in pairs {
            let p = p.max(NEAREST);
            n += 1;
            relative += (p - t).abs() / t;
            squares += (p - t).powi(2);
            let ratio = (p / t).max(t / p);
            within.iter_mut().zip([1.25, 1.5625, 1.953_125]).for_each(|(n, limit)| *n += usize::from(ratio < limit));
        }
        let mean = |sum: f64| sum / n as f64;
        let [delta1, delta2, delta3] = within.map(|count| mean(count as f64));
        (n > 0).then(|| Self { abs_rel: mean(relative), rmse: mean(squares).sqrt(), delta1, delta2, delta3 })
    }

    /// As the network gives them; none where its numbers are no distances, or without pixels.
    pub fn unaligned(unit: Unit, pairs: &[Pair]) -> Option<Self> {
        let metres = unit == Unit::Metres;
        metres.then(|| Self::of(pairs.iter().map(|(p, t)| (f64::from(*p), f64::from(*t))))).flatten()
    }

    /// After scale and shift; none without pixels. Where an aligned inverse depth would lie beyond the picture's
    /// farthest true distance, or beyond infinity, it counts as that distance.
    pub fn aligned(unit: Unit, pairs: &[Pair]) -> Option<Self> {
        let space = |t: f32| if unit == Unit::Metres { f64::from(t) } else { 1.0 / f64::from(t) };
        let (scale, shift) = fit(pairs.iter().map(|(p, t)| (f64::from(*p), space(*t))))?;
        let farthest = pairs.iter().map(|(_, t)| f64::from(*t)).fold(0.0, f64::max);
        let metres = |p: f32| {
            let fitted = scale * f64::from(p) + shift;
            if unit == Unit::Metres { fitted } else { 1.0 / fitted.max(1.0 / farthest) }
        };
        Self::of(pairs.iter().map(|(p, t)| (metres(*p), f64::from(*t))))
    }

    /// The means over pictures; none without any.
    pub fn mean<'m>(all: impl Iterator<Item = &'m Self> + Clone) -> Option<Self> {
        let n = all.clone().count();
        let mean = |pick: fn(&Self) -> f64| all.clone().map(pick).sum::<f64>() / n as f64;
        (n > 0).then(|| Self {
            abs_rel: mean(|m| m.abs_rel),
            rmse: mean(|m| m.rmse),
            delta1: mean(|m| m.delta1),
            delta2: mean(|m| m.delta2),
            delta3: mean(|m| m.delta3),
        })
    }
}

/// Scale and shift of x with the least sum of squares to y; none without points.
fn fit(points: impl Iterator<Item = (f64, f64)> + Clone) -> Option<(f64, f64)> {
    let n = points.clone().count() as f64;
    let (x, y) = points.clone().fold((0.0, 0.0), |(x, y), point| (x + point.0 / n, y + point.1 / n));
    let (square, product) = points.fold((0.0, 0.0), |(square, product), point| {
        let from = point.0 - x;
        (square + from * from, product + from * (point.1 - y))
    });
    let scale = if square > 0.0 { product / square } else { 0.0 };
    (n > 0.0).then_some((scale, y - scale * x))
}

/// The mean of a metric in both networks over the same pictures, and of the difference.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Paired {
    pub model: f64,
    pub reference: f64,
    /// The model's less the reference's.
    pub difference: f64,
    /// Its 95 % interval, Student's over the differences of the pictures; none of fewer than two.
    pub interval: Option<[f64; 2]>,
}

impl Paired {
    /// Of at least one picture: the model's number and the reference's.
    pub fn new(pictures: &[(f64, f64)]) -> Self {
        let n = pictures.len() as f64;
        let mean = |pick: fn(&(f64, f64)) -> f64| pictures.iter().map(pick).sum::<f64>() / n;
        let difference = mean(|p| p.0 - p.1);
        let squares: f64 = pictures.iter().map(|p| (p.0 - p.1 - difference).powi(2)).sum();
        let half = |freedom: usize| student(freedom) * (squares / freedom as f64 / n).sqrt();
        let interval = pictures.len().checked_sub(1).filter(|freedom| *freedom > 0).map(half);
        Self {
            model: mean(|p| p.0),
            reference: mean(|p| p.1),
            difference,
            interval: interval.map(|half| [difference - half, difference + half]),
        }
    }
}

/// The 97.5th percentile of Student's distribution: a table, and from 10 degrees of freedom on the expansion around the
/// normal distribution's (Abramowitz and Stegun, 26.7.5), which is within 0.0005 there.
fn student(freedom: usize) -> f64 {
    const TABLE: [f64; 9] = [12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622];
    const Z: f64 = 1.959_963_984_540_054;
    let expanded = || {
        let v = freedom as f64;
        let [z3, z5, z7] = [3, 5, 7].map(|power| Z.powi(power));
        let third = 3.0 * z7 + 19.0 * z5 + 17.0 * z3 - 15.0 * Z;
        Z + (z3 + Z) / (4.0 * v) + (5.0 * z5 + 16.0 * z3 + 3.0 * Z) / (96.0 * v * v) + third / (384.0 * v.powi(3))
    };
    TABLE.get(freedom - 1).copied().unwrap_or_else(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of a network and distances, the same in the script that made the expected values.
    fn pairs() -> Vec<Pair> {
        let pair = |i: usize| {
            let t = 0.5 + (i * 37 % 101) as f32 / 8.0;
            (t * (0.7 + (i * 53 % 64) as f32 / 80.0) - 0.25, t)
        };
        (0..500).map(pair).collect()
    }

    fn is_near(got: Metrics, want: [f64; 5]) {
        let got = [got.abs_rel, got.rmse, got.delta1, got.delta2, got.delta3];
        assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-9), "{got:?}\n{want:?}");
    }

    /// Computed with numpy 2.4 (numpy.linalg.lstsq for the alignment).
    #[test]
    fn equal_to_numpy() {
        let pairs = pairs();
        is_near(
            Metrics::unaligned(Unit::Metres, &pairs).expect("pixels"),
            [0.207536531099, 1.828285905046, 0.554, 0.966, 0.99],
        );
        is_near(
            Metrics::aligned(Unit::Metres, &pairs).expect("pixels"),
            [0.263802197582, 1.482239878804, 0.618, 0.904, 0.956],
        );
        is_near(
            Metrics::aligned(Unit::Inverse, &pairs).expect("pixels"),
            [0.383403262421, 2.782177495744, 0.296, 0.568, 0.764],
        );
    }

    #[test]
    fn what_cannot_be_measured_is_nothing() {
        assert_eq!(Metrics::unaligned(Unit::Inverse, &[(1.0, 1.0)]), None);
        assert_eq!((Metrics::unaligned(Unit::Metres, &[]), Metrics::aligned(Unit::Metres, &[])), (None, None));
        assert_eq!(Metrics::mean([].iter()), None);
        // A map of one value: the mean is the best that scale and shift make of it.
        let flat = Metrics::aligned(Unit::Metres, &[(5.0, 1.0), (5.0, 3.0)]).expect("two pixels");
        assert_eq!((flat.abs_rel, flat.rmse), ((1.0 + 1.0 / 3.0) / 2.0, 1.0));
        // Nothing nearer than a millimetre, so that ratios are numbers.
        let near = Metrics::unaligned(Unit::Metres, &[(-2.0, 1.0)]).expect("a pixel");
        assert_eq!((near.abs_rel, near.delta3), (0.999, 0.0));
    }

    #[test]
    fn intervals_of_differences() {
        // Differences -1, 0, 1, 2: mean 0.5, standard error sqrt(5 / 3 / 4), 3 degrees of freedom.
        let paired = Paired::new(&[(1.0, 2.0), (3.0, 3.0), (5.0, 4.0), (9.0, 7.0)]);
        assert_eq!((paired.model, paired.reference, paired.difference), (4.5, 4.0, 0.5));
        let half = 3.1824 * (5.0_f64 / 12.0).sqrt();
        assert!(paired.interval.is_some_and(|[low, high]| (low - 0.5 + half).abs() < 1e-9 && high > 2.5));
        assert_eq!(Paired::new(&[(1.0, 2.0)]).interval, None);
        for (freedom, want) in [(1, 12.7062), (10, 2.2281), (30, 2.0423), (100, 1.9840), (10_000, 1.9602)] {
            assert!((student(freedom) - want).abs() < 5e-4, "{freedom}: {}", student(freedom));
        }
    }
}
