//! Pixels counted by class: what intersection over union is computed from.
//!
//! ```text
//! IoU of a class = pixels that are and were found / pixels that are or were found        mIoU: the mean over classes
//! ```
//!
//! over all pixels of a data set (Everingham et al. 2010, "The Pascal Visual Object Classes Challenge"). A class that
//! is nowhere, neither in the labels nor in what was found, has no IoU.

use super::super::depth::metrics::Paired;

/// Counts of some pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct Tally {
    /// By class: in the labels, found, and both.
    counts: Vec<[u64; 3]>,
}

impl Tally {
    /// Of the pixels with a class; `None` in the labels is none.
    pub fn new(classes: usize, truth: &[Option<u16>], found: &[u16]) -> Self {
        let mut counts = vec![[0; 3]; classes];
        for (truth, found) in truth.iter().zip(found) {
            let Some(truth) = truth else { continue };
            counts[usize::from(*truth)][0] += 1;
            counts[usize::from(*found)][1] += 1;
            counts[usize::from(*truth)][2] += u64::from(truth == found);
        }
        Self { counts }
    }

    pub fn sum(classes: usize, all: &[&Self]) -> Self {
        let mut sum = Self { counts: vec![[0; 3]; classes] };
        all.iter().for_each(|tally| sum.add(tally));
        sum
    }

    fn add(&mut self, other: &Self) {
        for (sum, counts) in self.counts.iter_mut().zip(&other.counts) {
            sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    }

    fn without(&self, other: &Self) -> Self {
        let pairs = self.counts.iter().zip(&other.counts);
        Self { counts: pairs.map(|(sum, counts)| std::array::from_fn(|i| sum[i] - counts[i])).collect() }
    }

    pub fn pixels(&self) -> u64 {
        self.counts.iter().map(|[truth, ..]| truth).sum()
    }

    /// Pixels of a class in the labels.
    pub fn pixels_of(&self, class: usize) -> u64 {
        self.counts[class][0]
    }

    /// The classes that are anywhere, with their IoU.
    pub fn ious(&self) -> impl Iterator<Item = (usize, f64)> {
        let union = |[truth, found, both]: [u64; 3]| truth + found - both;
        let seen = self.counts.iter().enumerate().filter(move |(_, counts)| union(**counts) > 0);
        seen.map(move |(class, counts)| (class, counts[2] as f64 / union(*counts) as f64))
    }

    /// None without pixels.
    pub fn miou(&self) -> Option<f64> {
        let (n, sum) = self.ious().fold((0_usize, 0.0), |(n, sum), (_, iou)| (n + 1, sum + iou));
        (n > 0).then(|| sum / n as f64)
    }

    /// The share of pixels whose class was found; none without pixels.
    pub fn accuracy(&self) -> Option<f64> {
        let (pixels, both) = (self.pixels(), self.counts.iter().map(|[.., both]| both).sum::<u64>());
        (pixels > 0).then(|| both as f64 / pixels as f64)
    }
}

/// mIoU of a model and of its reference over the same pictures. It is no mean over pictures: the interval of the
/// difference is Student's over the jackknife's pseudo-values (Tukey 1958), which come from leaving out each picture
/// once.
pub fn paired(classes: usize, model: &[&Tally], reference: &[&Tally]) -> Paired {
    let sums = [model, reference].map(|all| Tally::sum(classes, all));
    let [ours, theirs] = [&sums[0], &sums[1]].map(|sum| sum.miou().unwrap_or(0.0));
    let n = model.len() as f64;
    let pseudo = |whole: f64, sum: &Tally, one: &Tally| n * whole - (n - 1.0) * sum.without(one).miou().unwrap_or(0.0);
    let values: Vec<(f64, f64)> = model
        .iter()
        .zip(reference)
        .map(|(one, other)| (pseudo(ours, &sums[0], one), pseudo(theirs, &sums[1], other)))
        .collect();
    let spread = Paired::new(&values);
    let difference = ours - theirs;
    let interval = spread.interval.map(|[low, high]| [low, high].map(|end| difference + (end - spread.difference)));
    Paired { model: ours, reference: theirs, difference, interval }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_that_are_nowhere_do_not_count() {
        let truth = [Some(0), Some(0), Some(1), None, Some(1)];
        let tally = Tally::new(4, &truth, &[0, 2, 1, 3, 1]);
        assert_eq!(tally.ious().collect::<Vec<_>>(), [(0, 0.5), (1, 1.0), (2, 0.0)]);
        assert_eq!((tally.miou(), tally.accuracy(), tally.pixels(), tally.pixels_of(1)), (Some(0.5), Some(0.75), 4, 2));
        let none = Tally::new(2, &[None], &[1]);
        assert_eq!((none.miou(), none.accuracy(), none.pixels()), (None, None, 0));
    }

    #[test]
    fn the_interval_of_a_difference_shrinks_with_pictures() {
        let picture = |hits: usize| {
            Tally::new(
                2,
                &[Some(0), Some(0), Some(1), Some(1)],
                &[u16::from(hits < 1), u16::from(hits < 2), u16::from(hits > 2), u16::from(hits > 3)],
            )
        };
        let (ours, theirs): (Vec<_>, Vec<_>) =
            [(2, 3), (3, 4), (1, 1), (4, 4), (2, 2), (3, 4)].map(|(a, b)| (picture(a), picture(b))).into_iter().unzip();
        let of = |n: usize| paired(2, &ours[..n].iter().collect::<Vec<_>>(), &theirs[..n].iter().collect::<Vec<_>>());
        let all = of(6);
        assert!((all.model, all.reference) == (all.reference + all.difference, all.reference) && all.difference < 0.0);
        let width = |p: Paired| p.interval.map(|[low, high]| high - low).unwrap();
        assert!(
            width(all) < width(of(3))
                && all.interval.is_some_and(|[low, high]| low < all.difference && all.difference < high)
        );
        assert_eq!(of(1).interval, None);
        let same = paired(2, &ours.iter().collect::<Vec<_>>(), &ours.iter().collect::<Vec<_>>());
        assert_eq!((same.difference, same.interval), (0.0, Some([0.0, 0.0])));
    }
}
