//! The legend of a picture of distances: a bar of its colours with ticks in metres, in the lower right corner, on a
//! dark panel. Letters are squares of pixels, larger in larger pictures.

use super::colors::{Palette, Scale};
use crate::plot;

/// Height of a picture for each step of a letter's size.
const ROWS_A_STEP: usize = 240;
/// The smallest picture with a legend: ticks would touch in a smaller one.
const SMALLEST: (usize, usize) = (120, 144);

/// Lengths in squares. A letter is 5 wide and 7 tall, and has one square to its right.
const LETTER: (usize, usize) = (6, 7);
const PAD: usize = 3;
const BAR: usize = 10;
const TICK: usize = 3;

/// How much of the picture is left under the panel, of 256.
const UNDER: u32 = 80;
const INK: [u8; 3] = [255; 3];

/// The panel, ready to be laid on the rows of a picture.
pub struct Legend {
    /// Left and upper edge in the picture.
    x: usize,
    y: usize,
    width: usize,
    /// `[height, width]`; none where the picture shines through, darker.
    pixels: Vec<Option<[u8; 3]>>,
}

impl Legend {
    /// For a picture of `width` x `height` pixels; none where it is too small, or where there is nothing to tell apart.
    pub fn new(scale: Scale, palette: &Palette, (width, height): (usize, usize)) -> Option<Self> {
        if width < SMALLEST.0 || height < SMALLEST.1 || scale.far <= scale.near {
            return None;
        }
        let square = (height / ROWS_A_STEP).clamp(1, (width / SMALLEST.0).max(1));
        let ticks = ticks(scale);
        let letters = ticks.iter().map(|(_, label)| label.len()).max().unwrap_or(0);
        let bar_rows = height / 2;
        let panel_width = (PAD + BAR + TICK + 2 + letters * LETTER.0 + PAD) * square;
        let panel_height = bar_rows + (2 * PAD + LETTER.1) * square;
        let (x, y) = (width.checked_sub(panel_width + PAD * square)?, height.checked_sub(panel_height + PAD * square)?);
        let pixels = vec![None; panel_width * panel_height];
        let mut legend = Self { x, y, width: panel_width, pixels };
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

    /// Lays the panel on row `y` of the picture, RGB.
    pub fn cover(&self, y: usize, row: &mut [u8]) {
        let Some(line) = y.checked_sub(self.y).and_then(|y| self.pixels.chunks_exact(self.width).nth(y)) else {
            return;
        };
        let (under, _) = row[3 * self.x..][..3 * self.width].as_chunks_mut::<3>();
        for (pixel, over) in under.iter_mut().zip(line) {
            *pixel = over.unwrap_or(pixel.map(|c| (u32::from(c) * UNDER / 256) as u8));
        }
    }

    fn fill(&mut self, (x, y): (usize, usize), (width, height): (usize, usize), colour: [u8; 3]) {
        for row in self.pixels.chunks_exact_mut(self.width).skip(y).take(height) {
            row[x..][..width].fill(Some(colour));
        }
    }

    fn write(&mut self, text: &str, (x, y): (usize, usize), square: usize) {
        for (i, rows) in text.chars().map(glyph).enumerate() {
            for (dy, bits) in rows.into_iter().enumerate() {
                for dx in (0..5).filter(|dx| bits & (0b10000 >> dx) != 0) {
                    let at = (x + (i * LETTER.0 + dx) * square, y + dy * square);
                    self.fill(at, (square, square), INK);
                }
            }
        }
    }
}

/// Round distances within the scale, with their labels.
fn ticks(scale: Scale) -> Vec<(f64, String)> {
    let (near, far) = (f64::from(scale.near), f64::from(scale.far));
    let step = plot::step(near, far);
    // The ends may lie on a tick but for rounding.
    let (first, last) = ((near / step - 1e-6).ceil() as i64, (far / step + 1e-6).floor() as i64);
    (first..=last).map(|i| i as f64 * step).map(|metres| (metres, format!("{} m", plot::short(metres, step)))).collect()
}

/// The rows of a letter, five bits each.
fn glyph(c: char) -> [u8; 7] {
    match c {
        '0' => [0b01110, 0b10001, 0b10011, 0b10101, 0b11001, 0b10001, 0b01110],
        '1' => [0b00100, 0b01100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110],
        '2' => [0b01110, 0b10001, 0b00001, 0b00110, 0b01000, 0b10000, 0b11111],
        '3' => [0b11110, 0b00001, 0b00001, 0b01110, 0b00001, 0b00001, 0b11110],
        '4' => [0b00010, 0b00110, 0b01010, 0b10010, 0b11111, 0b00010, 0b00010],
        '5' => [0b11111, 0b10000, 0b11110, 0b00001, 0b00001, 0b10001, 0b01110],
        '6' => [0b00110, 0b01000, 0b10000, 0b11110, 0b10001, 0b10001, 0b01110],
        '7' => [0b11111, 0b00001, 0b00010, 0b00100, 0b01000, 0b01000, 0b01000],
        '8' => [0b01110, 0b10001, 0b10001, 0b01110, 0b10001, 0b10001, 0b01110],
        '9' => [0b01110, 0b10001, 0b10001, 0b01111, 0b00001, 0b00010, 0b01100],
        '.' => [0b00000, 0b00000, 0b00000, 0b00000, 0b00000, 0b01100, 0b01100],
        '-' => [0b00000, 0b00000, 0b00000, 0b11111, 0b00000, 0b00000, 0b00000],
        'm' => [0b00000, 0b00000, 0b11010, 0b10101, 0b10101, 0b10101, 0b10101],
        _ => [0; 7],
    }
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
        assert!("0123456789.-m".chars().all(|c| glyph(c) != [0; 7]));
    }

    /// In every size that has a legend, labels stay apart and within the panel, which stays within the picture.
    #[test]
    fn legends_fit_into_their_pictures() {
        let palette = Palette::new(Colormap::Gray);
        for (width, height) in [(120, 144), (160, 160), (640, 480), (120, 4000), (4000, 150), (481, 479), (4032, 3024)]
        {
            for (near, far) in [(0.1, 0.9), (0.62, 5.3), (-0.3, 79.99), (12.0, 12.05)] {
                let scale = Scale { far, near };
                let Some(legend) = Legend::new(scale, &palette, (width, height)) else { continue };
                let rows = legend.pixels.len() / legend.width;
                assert!(legend.x + legend.width <= width && legend.y + rows <= height, "{width} x {height}");
                let square = (height / ROWS_A_STEP).clamp(1, (width / SMALLEST.0).max(1));
                let places: Vec<f32> =
                    ticks(scale).iter().map(|(m, _)| scale.nearness(*m as f32) * (height / 2) as f32).collect();
                let apart = (LETTER.1 + 1) * square;
                assert!(places.is_sorted_by(|a, b| a - b >= apart as f32), "{width} x {height}, {near} to {far}");
            }
        }
        let scale = Scale { far: 5.0, near: 1.0 };
        assert!(
            Legend::new(scale, &palette, (119, 500)).is_none() && Legend::new(scale, &palette, (500, 143)).is_none()
        );
        assert!(Legend::new(Scale { far: 1.0, near: 1.0 }, &palette, (640, 480)).is_none());
    }
}
