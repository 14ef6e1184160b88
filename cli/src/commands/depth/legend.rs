//! The legend of a picture of distances: a bar of its colours with ticks in metres, in the lower right corner, on a
//! dark panel.

use super::colors::{Palette, Scale};
use crate::panel::{self, INK, LETTER, PAD, Panel};
use crate::plot;

/// Lengths in squares.
const BAR: usize = 10;
const TICK: usize = 3;

/// For a picture of `size` (width, height); none where it is too small, or where there is nothing to tell apart.
pub fn legend(scale: Scale, palette: &Palette, size: (usize, usize)) -> Option<Panel> {
    let square = panel::square(size).filter(|_| scale.far > scale.near)?;
    let ticks = ticks(scale);
    let letters = ticks.iter().map(|(_, label)| label.len()).max().unwrap_or(0);
    let bar_rows = size.1 / 2;
    let width = (PAD + BAR + TICK + 2 + letters * LETTER.0 + PAD) * square;
    let mut legend = Panel::new((width, bar_rows + (2 * PAD + LETTER.1) * square), size, square)?;
    // Far is at the top, as in most pictures.
    let top = (PAD + LETTER.1 / 2) * square;
    let last = (bar_rows - 1).max(1);
    for row in 0..bar_rows {
        let colour = palette.at(row as f32 / last as f32);
        legend.fill((PAD * square, top + row), (BAR * square, 1), colour);
    }
    for (metres, label) in ticks {
        let row = top + (scale.nearness(metres as f32) * last as f32).round() as usize;
        legend.fill(((PAD + BAR) * square, row.saturating_sub(square / 2)), (TICK * square, square), INK);
        let at = ((PAD + BAR + TICK + 2) * square, row.saturating_sub(LETTER.1 / 2 * square));
        legend.write(&label, at, square);
    }
    Some(legend)
}

/// Round distances within the scale, with their labels.
fn ticks(scale: Scale) -> Vec<(f64, String)> {
    let (near, far) = (f64::from(scale.near), f64::from(scale.far));
    let step = plot::step(near, far);
    // The ends may lie on a tick but for rounding.
    let (first, last) = ((near / step - 1e-6).ceil() as i64, (far / step + 1e-6).floor() as i64);
    (first..=last).map(|i| i as f64 * step).map(|metres| (metres, format!("{} m", plot::short(metres, step)))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::colors::Colormap;
    use super::*;

    fn labels(near: f32, far: f32) -> Vec<String> {
        ticks(Scale { far, near }).into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_are_round_distances_within_the_scale() {
        assert_eq!(labels(0.62, 5.3), ["1 m", "2 m", "3 m", "4 m", "5 m"]);
        assert_eq!(labels(0.0, 80.0), ["0 m", "20 m", "40 m", "60 m", "80 m"]);
        assert_eq!(labels(1.0, 1.5), ["1.0 m", "1.1 m", "1.2 m", "1.3 m", "1.4 m", "1.5 m"]);
        assert!(labels(0.0, 1e-3).iter().all(|label| label.chars().all(|c| "0123456789. m".contains(c))));
        // Every character that a label can have is one that can be drawn.
        assert!("0123456789.-m".chars().all(|c| panel::glyph(c) != [0; 7]));
    }

    /// In every size that has a legend, labels stay apart and within the panel, which stays within the picture.
    #[test]
    fn legends_fit_into_their_pictures() {
        let palette = Palette::new(Colormap::Gray);
        for (width, height) in [(120, 144), (160, 160), (640, 480), (120, 4000), (4000, 150), (481, 479), (4032, 3024)]
        {
            for (near, far) in [(0.1, 0.9), (0.62, 5.3), (-0.3, 79.99), (12.0, 12.05)] {
                let scale = Scale { far, near };
                let Some(legend) = super::legend(scale, &palette, (width, height)) else { continue };
                let rows = legend.pixels.len() / legend.width;
                assert!(legend.x + legend.width <= width && legend.y + rows <= height, "{width} x {height}");
                let square = panel::square((width, height)).unwrap();
                let places: Vec<f32> =
                    ticks(scale).iter().map(|(m, _)| scale.nearness(*m as f32) * (height / 2) as f32).collect();
                let apart = (LETTER.1 + 1) * square;
                assert!(places.is_sorted_by(|a, b| a - b >= apart as f32), "{width} x {height}, {near} to {far}");
            }
        }
        let scale = Scale { far: 5.0, near: 1.0 };
        assert!(legend(scale, &palette, (119, 500)).is_none() && legend(scale, &palette, (500, 143)).is_none());
        assert!(legend(Scale { far: 1.0, near: 1.0 }, &palette, (640, 480)).is_none());
    }
}
