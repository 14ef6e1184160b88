//! Colours for depths: near is the light or warm end of every map.

use clap::ValueEnum;
use colorous::Gradient;

use super::map::{Summary, Unit};

/// A colour map. All but turbo and spectral are perceptual: equal steps look equally large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Colormap {
    /// Black, violet, orange, yellow
    Inferno,
    /// Black, violet, pink, cream
    Magma,
    /// Blue, pink, yellow
    Plasma,
    /// Violet, green, yellow
    Viridis,
    /// Blue, gray, yellow: the same to most colour-blind readers
    Cividis,
    /// A rainbow that shows small steps best
    Turbo,
    /// Blue, green, yellow, red, as Depth Anything's own pictures
    Spectral,
    /// Black to white
    Gray,
}

/// Steps of a colour map; a picture of 8 bits has no more.
const STEPS: usize = 256;

/// The colours of a map, from far to near.
pub struct Palette([[u8; 3]; STEPS]);

impl Palette {
    pub fn new(map: Colormap) -> Self {
        let gradient: Gradient = match map {
            Colormap::Inferno => colorous::INFERNO,
            Colormap::Magma => colorous::MAGMA,
            Colormap::Plasma => colorous::PLASMA,
            Colormap::Viridis => colorous::VIRIDIS,
            Colormap::Cividis => colorous::CIVIDIS,
            Colormap::Turbo => colorous::TURBO,
            Colormap::Spectral => colorous::SPECTRAL,
            Colormap::Gray => return Self(std::array::from_fn(|i| [i as u8; 3])),
        };
        // Spectral begins with red.
        let step = |i: usize| if map == Colormap::Spectral { STEPS - 1 - i } else { i };
        Self(std::array::from_fn(|i| gradient.eval_rational(step(i), STEPS).as_array()))
    }

    /// The colour at a place between far, 0, and near, 1.
    pub fn at(&self, nearness: f32) -> [u8; 3] {
        self.0[(nearness.clamp(0.0, 1.0) * (STEPS - 1) as f32).round() as usize]
    }
}

/// The numbers that get the two ends of a scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    pub far: f32,
    pub near: f32,
}

impl Scale {
    /// `range`, the least and the greatest number that are told apart, or those of the picture.
    pub fn new(summary: &Summary, range: Option<(f32, f32)>) -> Self {
        let (least, greatest) = range.unwrap_or((summary.min, summary.max));
        match summary.unit {
            Unit::Metres => Self { far: greatest, near: least },
            Unit::Inverse => Self { far: least, near: greatest },
        }
    }

    /// Where a number lies between far, 0, and near, 1; everything is far where both are the same.
    pub fn nearness(&self, depth: f32) -> f32 {
        let span = self.near - self.far;
        if span == 0.0 { 0.0 } else { ((depth - self.far) / span).clamp(0.0, 1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_map_ends_lighter_or_warmer_than_it_begins() {
        for map in Colormap::value_variants() {
            let palette = Palette::new(*map);
            let (far, near) = (palette.at(0.0), palette.at(1.0));
            let red = |c: [u8; 3]| i32::from(c[0]) - i32::from(c[2]);
            let light = |c: [u8; 3]| c.iter().map(|x| i32::from(*x)).sum::<i32>();
            assert!(light(near) > light(far) || red(near) > red(far), "{map:?}: {far:?} to {near:?}");
            assert_eq!((palette.at(-1.0), palette.at(2.0)), (far, near));
        }
        // The published tables' ends and middles.
        let ends = |map| [0.0, 1.0].map(|t| Palette::new(map).at(t));
        assert_eq!(ends(Colormap::Inferno), [[0, 0, 4], [252, 255, 164]]);
        assert_eq!(ends(Colormap::Viridis), [[68, 1, 84], [253, 231, 37]]);
        assert_eq!(ends(Colormap::Gray), [[0; 3], [255; 3]]);
    }

    #[test]
    fn near_is_one_in_either_unit() {
        let summary = |unit| Summary { unit, min: 1.0, max: 3.0, median: 2.0, nearest: [0; 2], farthest: [0; 2] };
        let metres = Scale::new(&summary(Unit::Metres), None);
        assert_eq!([1.0, 1.5, 3.0, 9.0].map(|d| metres.nearness(d)), [1.0, 0.75, 0.0, 0.0]);
        let inverse = Scale::new(&summary(Unit::Inverse), Some((0.0, 4.0)));
        assert_eq!([-1.0, 1.0, 4.0].map(|d| inverse.nearness(d)), [0.0, 0.25, 1.0]);
        assert_eq!(Scale { far: 2.0, near: 2.0 }.nearness(2.0), 0.0);
    }
}
