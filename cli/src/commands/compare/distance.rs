//! The distance of values from their reference, pooled over tokens and pictures.

use serde::Serialize;

/// Sums that distances are made of, by channel.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    /// Of (y - r)^2 and of r^2.
    channels: Vec<(f64, f64)>,
    values_squared: f64,
    products: f64,
}

/// See docs/eval.md.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Distance {
    /// sqrt(sum (y - r)^2 / sum r^2).
    pub relative_error: f64,
    /// sum y r / sqrt(sum y^2 sum r^2).
    pub cosine: f64,
    /// 10 log10(sum r^2 / sum (y - r)^2); none where nothing differs.
    pub sqnr_db: Option<f64>,
    /// The channel with most of the squared error.
    pub worst_channel: Channel,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Channel {
    pub index: usize,
    /// Of the place's squared error.
    pub share: f64,
    /// Of the channel alone; none where its reference is zero.
    pub relative_error: Option<f64>,
}

impl Sums {
    /// Adds rows of `width` channels; what one of the two has more is left out.
    pub fn add(&mut self, values: &[f32], reference: &[f32], width: usize) {
        if self.channels.len() < width {
            self.channels.resize(width, (0.0, 0.0));
        }
        let rows = values.chunks_exact(width.max(1)).zip(reference.chunks_exact(width.max(1)));
        for (y, r) in rows {
            for ((sums, &y), &r) in self.channels.iter_mut().zip(y).zip(r) {
                let (y, r) = (f64::from(y), f64::from(r));
                sums.0 += (y - r) * (y - r);
                sums.1 += r * r;
                self.values_squared += y * y;
                self.products += y * r;
            }
        }
    }

    pub fn distance(&self) -> Distance {
        let noise: f64 = self.channels.iter().map(|c| c.0).sum();
        let signal: f64 = self.channels.iter().map(|c| c.1).sum();
        let worst =
            (0..self.channels.len()).max_by(|&a, &b| self.channels[a].0.total_cmp(&self.channels[b].0).then(b.cmp(&a)));
        let (index, (error, size)) = worst.map_or((0, (0.0, 0.0)), |i| (i, self.channels[i]));
        let norms = (self.values_squared * signal).sqrt();
        Distance {
            relative_error: ratio(noise, signal).sqrt(),
            cosine: if norms > 0.0 { self.products / norms } else { 1.0 },
            sqnr_db: (noise > 0.0 && signal > 0.0).then(|| 10.0 * (signal / noise).log10()),
            worst_channel: Channel {
                index,
                share: ratio(error, noise),
                relative_error: (size > 0.0).then(|| (error / size).sqrt()),
            },
        }
    }
}

/// 0 where there is nothing to divide.
fn ratio(part: f64, whole: f64) -> f64 {
    if part == 0.0 { 0.0 } else { part / whole }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_computed_by_hand() {
        let mut sums = Sums::default();
        sums.add(&[3.0, 1.0], &[3.0, 0.0], 2);
        sums.add(&[4.0, 2.0], &[4.0, 0.0], 2);
        let d = sums.distance();
        assert!((d.relative_error - (5.0f64 / 25.0).sqrt()).abs() < 1e-12);
        assert!((d.cosine - 25.0 / (30.0f64 * 25.0).sqrt()).abs() < 1e-12);
        assert!((d.sqnr_db.unwrap() - 10.0 * 5.0f64.log10()).abs() < 1e-12);
        assert_eq!(d.worst_channel, Channel { index: 1, share: 1.0, relative_error: None });
    }

    #[test]
    fn equal_values_are_no_distance_apart() {
        let mut sums = Sums::default();
        sums.add(&[1.0, -2.0], &[1.0, -2.0], 2);
        let d = sums.distance();
        assert_eq!((d.relative_error, d.cosine, d.sqnr_db, d.worst_channel.share), (0.0, 1.0, None, 0.0));
        let empty = Sums::default().distance();
        assert_eq!((empty.relative_error, empty.cosine), (0.0, 1.0));
    }
}
