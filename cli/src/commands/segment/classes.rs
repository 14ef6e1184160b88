//! The class of every pixel of a picture, from the logits of patches.

use std::ops::Range;

use serde::Serialize;

use super::writer::memory;

/// A class for each pixel.
pub struct ClassMap {
    pub width: usize,
    pub height: usize,
    /// `[height, width]`.
    pub ids: Vec<u16>,
}

/// How much of a picture a class has.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Share {
    pub label: String,
    pub index: usize,
    /// Of all pixels.
    pub share: f64,
}

/// Between which two patches a pixel lies, and how far from the first to the second.
#[derive(Clone, Copy)]
struct Place {
    first: usize,
    t: f32,
}

impl ClassMap {
    /// Of `logits` `[classes, rows, columns]`: they are resized to the picture as by PyTorch's
    /// `interpolate(mode="bilinear", align_corners=False)`, and each pixel gets the class with the largest one, of
    /// equal ones the first.
    ///
    /// # Errors
    /// No memory for that many pixels.
    pub fn new(
        logits: &[f32],
        (rows, columns): (usize, usize),
        (width, height): (usize, usize),
    ) -> Result<Self, String> {
        let plane = rows * columns;
        let (across, down) = (places(columns, width), places(rows, height));
        let mut map = Self { width, height, ids: memory(width.saturating_mul(height))? };
        let mut likely = Vec::new();
        for lines in runs(&down) {
            let [upper, lower] = ends(&down[lines.start], rows);
            for pixels in runs(&across) {
                let [left, right] = ends(&across[pixels.start], columns);
                let corners =
                    [upper * columns + left, upper * columns + right, lower * columns + left, lower * columns + right];
                find_likely(logits.chunks_exact(plane), corners, &mut likely);
                for y in lines.clone() {
                    let row = &mut map.ids[y * width..][pixels.clone()];
                    for (id, place) in row.iter_mut().zip(&across[pixels.clone()]) {
                        *id = best(&likely, place.t, down[y].t);
                    }
                }
            }
        }
        Ok(map)
    }

    /// The classes that there are, those with most pixels first.
    pub fn shares(&self, label: impl Fn(usize) -> String) -> Vec<Share> {
        let mut counts = vec![0_usize; usize::from(u16::MAX) + 1];
        self.ids.iter().for_each(|id| counts[usize::from(*id)] += 1);
        let found = counts.iter().enumerate().filter(|(_, count)| **count > 0);
        let share = |count: usize| count as f64 / self.ids.len() as f64;
        let mut shares: Vec<Share> =
            found.map(|(index, count)| Share { label: label(index), index, share: share(*count) }).collect();
        shares.sort_by(|a, b| b.share.total_cmp(&a.share));
        shares
    }
}

/// For `to` pixels of an axis with `from` patches.
fn places(from: usize, to: usize) -> Vec<Place> {
    let scale = from as f32 / to as f32;
    let place = |i: usize| {
        let x = (scale * (i as f32 + 0.5) - 0.5).clamp(0.0, (from - 1) as f32);
        Place { first: x as usize, t: x - x.floor() }
    };
    (0..to).map(place).collect()
}

fn ends(place: &Place, patches: usize) -> [usize; 2] {
    [place.first, (place.first + 1).min(patches - 1)]
}

/// Pixels that lie between the same two patches.
fn runs(places: &[Place]) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    places.chunk_by(|a, b| a.first == b.first).map(move |run| {
        start += run.len();
        start - run.len()..start
    })
}

/// A class with its logits at the four patches around some pixels.
type Likely = (u16, [f32; 4]);

/// Which classes can be the best between four patches: those whose largest logit is not below another class's smallest.
fn find_likely<'l>(planes: impl Iterator<Item = &'l [f32]> + Clone, corners: [usize; 4], likely: &mut Vec<Likely>) {
    let at = |plane: &[f32]| corners.map(|corner| plane[corner]);
    let floor = planes.clone().map(|plane| at(plane).into_iter().fold(f32::INFINITY, f32::min));
    let floor = floor.fold(f32::NEG_INFINITY, f32::max);
    // Interpolation rounds.
    let floor = floor - 1e-5 * floor.abs();
    likely.clear();
    let all = planes.enumerate().map(|(class, plane)| (class as u16, at(plane)));
    likely.extend(all.filter(|(_, four)| four.iter().any(|x| *x >= floor)));
}

fn best(likely: &[Likely], tx: f32, ty: f32) -> u16 {
    let lerp = |t: f32, a: f32, b: f32| a + t * (b - a);
    let mut best = (0, f32::NEG_INFINITY);
    for (class, [a, b, c, d]) in likely {
        let logit = lerp(ty, lerp(tx, *a, *b), lerp(tx, *c, *d));
        if logit > best.1 {
            best = (*class, logit);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every class at every pixel, without what is left out between patches.
    fn naive(logits: &[f32], (rows, columns): (usize, usize), (width, height): (usize, usize)) -> Vec<u16> {
        let (across, down) = (places(columns, width), places(rows, height));
        let logit = |plane: &[f32], x: usize, y: usize| {
            let ([l, r], [u, d]) = (ends(&across[x], columns), ends(&down[y], rows));
            let at = |y: usize, x: usize| plane[y * columns + x];
            let lerp = |t: f32, a: f32, b: f32| a + t * (b - a);
            lerp(down[y].t, lerp(across[x].t, at(u, l), at(u, r)), lerp(across[x].t, at(d, l), at(d, r)))
        };
        let class = |x: usize, y: usize| {
            let all = logits.chunks_exact(rows * columns).map(|plane| logit(plane, x, y)).enumerate();
            all.reduce(|best, next| if next.1 > best.1 { next } else { best }).map_or(0, |(class, _)| class as u16)
        };
        (0..width * height).map(|i| class(i % width, i / width)).collect()
    }

    #[test]
    fn the_largest_logit_wins_at_every_pixel() {
        let mut state = 7_u32;
        for (rows, columns, classes, width, height) in
            [(3, 4, 6, 41, 29), (1, 1, 3, 5, 4), (5, 2, 40, 3, 7), (4, 4, 2, 4, 4), (1, 6, 9, 100, 1)]
        {
            let mut random = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 20) as f32 / 512.0 - 4.0
            };
            let logits: Vec<f32> = (0..classes * rows * columns).map(|_| random()).collect();
            let map = ClassMap::new(&logits, (rows, columns), (width, height)).unwrap();
            assert_eq!(map.ids, naive(&logits, (rows, columns), (width, height)), "{rows} x {columns}");
        }
    }

    #[test]
    fn shares_are_of_all_pixels_and_the_largest_comes_first() {
        let map = ClassMap { width: 2, height: 2, ids: vec![3, 0, 3, 3] };
        let shares = map.shares(|i| format!("class {i}"));
        let told: Vec<_> = shares.iter().map(|s| (s.label.as_str(), s.index, s.share)).collect();
        assert_eq!(told, [("class 3", 3, 0.75), ("class 0", 0, 0.25)]);
    }
}
