//! A dark panel with drawings and words, laid on the rows of a picture: the legend of depths, the classes of a
//! segmentation. Letters are squares of pixels, larger in larger pictures; they are capitals, but for the m of metres.

/// Lengths in squares. A letter is 5 wide and 7 tall, and has one square to its right.
pub const LETTER: (usize, usize) = (6, 7);
/// Between the edge of the panel and what is on it, and between the panel and the edge of the picture.
pub const PAD: usize = 3;
pub const INK: [u8; 3] = [255; 3];

/// Height of a picture for each step of a letter's size.
const ROWS_A_STEP: usize = 240;
/// The smallest picture with a panel: words would touch in a smaller one.
pub const SMALLEST: (usize, usize) = (120, 144);

/// How much of the picture is left under the panel, of 256.
const UNDER: u32 = 80;

/// The panel, ready to be laid on the rows of a picture.
pub struct Panel {
    /// Left and upper edge in the picture.
    pub x: usize,
    pub y: usize,
    pub width: usize,
    /// `[height, width]`; none where the picture shines through, darker.
    pub pixels: Vec<Option<[u8; 3]>>,
}

/// Edge of a letter's squares in a picture of `width` x `height` pixels; none where it is too small for letters.
pub fn square((width, height): (usize, usize)) -> Option<usize> {
    let fits = width >= SMALLEST.0 && height >= SMALLEST.1;
    fits.then(|| (height / ROWS_A_STEP).clamp(1, (width / SMALLEST.0).max(1)))
}

impl Panel {
    /// An empty one of `size` (width, height) in the lower right corner of a picture; none where it does not fit.
    pub fn new(size: (usize, usize), picture: (usize, usize), square: usize) -> Option<Self> {
        let left = |picture: usize, own: usize| picture.checked_sub(own + PAD * square);
        let (x, y) = (left(picture.0, size.0)?, left(picture.1, size.1)?);
        Some(Self { x, y, width: size.0, pixels: vec![None; size.0 * size.1] })
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

    /// A rectangle.
    pub fn fill(&mut self, (x, y): (usize, usize), (width, height): (usize, usize), colour: [u8; 3]) {
        for row in self.pixels.chunks_exact_mut(self.width).skip(y).take(height) {
            row[x..][..width].fill(Some(colour));
        }
    }

    /// Words, from their upper left corner on.
    pub fn write(&mut self, text: &str, (x, y): (usize, usize), square: usize) {
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

/// The rows of a letter, five bits each.
pub fn glyph(c: char) -> [u8; 7] {
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
        'A' => [0b01110, 0b10001, 0b10001, 0b11111, 0b10001, 0b10001, 0b10001],
        'B' => [0b11110, 0b10001, 0b10001, 0b11110, 0b10001, 0b10001, 0b11110],
        'C' => [0b01110, 0b10001, 0b10000, 0b10000, 0b10000, 0b10001, 0b01110],
        'D' => [0b11110, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b11110],
        'E' => [0b11111, 0b10000, 0b10000, 0b11110, 0b10000, 0b10000, 0b11111],
        'F' => [0b11111, 0b10000, 0b10000, 0b11110, 0b10000, 0b10000, 0b10000],
        'G' => [0b01110, 0b10001, 0b10000, 0b10111, 0b10001, 0b10001, 0b01111],
        'H' => [0b10001, 0b10001, 0b10001, 0b11111, 0b10001, 0b10001, 0b10001],
        'I' => [0b01110, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110],
        'J' => [0b00111, 0b00010, 0b00010, 0b00010, 0b00010, 0b10010, 0b01100],
        'K' => [0b10001, 0b10010, 0b10100, 0b11000, 0b10100, 0b10010, 0b10001],
        'L' => [0b10000, 0b10000, 0b10000, 0b10000, 0b10000, 0b10000, 0b11111],
        'M' => [0b10001, 0b11011, 0b10101, 0b10101, 0b10001, 0b10001, 0b10001],
        'N' => [0b10001, 0b11001, 0b10101, 0b10011, 0b10001, 0b10001, 0b10001],
        'O' => [0b01110, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01110],
        'P' => [0b11110, 0b10001, 0b10001, 0b11110, 0b10000, 0b10000, 0b10000],
        'Q' => [0b01110, 0b10001, 0b10001, 0b10001, 0b10101, 0b10010, 0b01101],
        'R' => [0b11110, 0b10001, 0b10001, 0b11110, 0b10100, 0b10010, 0b10001],
        'S' => [0b01111, 0b10000, 0b10000, 0b01110, 0b00001, 0b00001, 0b11110],
        'T' => [0b11111, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100],
        'U' => [0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01110],
        'V' => [0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01010, 0b00100],
        'W' => [0b10001, 0b10001, 0b10001, 0b10101, 0b10101, 0b11011, 0b10001],
        'X' => [0b10001, 0b10001, 0b01010, 0b00100, 0b01010, 0b10001, 0b10001],
        'Y' => [0b10001, 0b10001, 0b01010, 0b00100, 0b00100, 0b00100, 0b00100],
        'Z' => [0b11111, 0b00001, 0b00010, 0b00100, 0b01000, 0b10000, 0b11111],
        '%' => [0b11001, 0b11010, 0b00010, 0b00100, 0b01000, 0b01011, 0b10011],
        ',' => [0b00000, 0b00000, 0b00000, 0b00000, 0b00110, 0b00100, 0b01000],
        '/' => [0b00001, 0b00001, 0b00010, 0b00100, 0b01000, 0b10000, 0b10000],
        '_' => [0b00000, 0b00000, 0b00000, 0b00000, 0b00000, 0b00000, 0b11111],
        '<' => [0b00010, 0b00100, 0b01000, 0b10000, 0b01000, 0b00100, 0b00010],
        '(' => [0b00010, 0b00100, 0b01000, 0b01000, 0b01000, 0b00100, 0b00010],
        ')' => [0b01000, 0b00100, 0b00010, 0b00010, 0b00010, 0b00100, 0b01000],
        '\'' => [0b00100, 0b00100, 0b01000, 0b00000, 0b00000, 0b00000, 0b00000],
        '+' => [0b00000, 0b00100, 0b00100, 0b11111, 0b00100, 0b00100, 0b00000],
        ' ' => [0; 7],
        c if c.is_ascii_lowercase() => glyph(c.to_ascii_uppercase()),
        // A box for what cannot be written.
        _ => [0b11111, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b11111],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_letter_is_itself() {
        let all: Vec<[u8; 7]> = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,-+%/_<()'m".chars().map(glyph).collect();
        assert!(all.iter().enumerate().all(|(i, one)| !all[..i].contains(one) && *one != [0; 7]));
        assert_eq!((glyph('q'), glyph(' ')), (glyph('Q'), [0; 7]));
    }
}
